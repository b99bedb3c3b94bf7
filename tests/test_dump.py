"""exe.stages and exe.dump: every stage is there, reads well and runs."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from engine.graph import Graph
from engine.program import Program
from engine.schedule import Schedule
from tenon import F, nn, optim
from tenon.executable import unused_folder
from tenon.inspection import listings


@pytest.fixture(scope="module")
def step() -> tn.Executable:
    tn.seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    specs = [tn.spec("B", 3), tn.spec("B", dtype="i64")]
    return tn.train_step(model, F.cross_entropy, optimizer, specs).executable


X, Y = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0])


def test_stages_go_from_the_trace_to_the_program(step):
    stages = list(step.stages.items())
    assert stages[0] == ("trace", step.graph)
    names = [name for name, _ in stages]
    assert {"autodiff", "simplify", "simplify-2", "fuse", "schedule", "program"} <= set(names)
    assert [type(stage) for _, stage in stages[-2:]] == [Schedule, Program]
    assert all(isinstance(stage, Graph) for _, stage in stages[:-2])
    assert step.stages["fuse"].groups
    assert step.stages["program"].main == step.program.main
    assert step.compile_count == 1


def test_a_dump_has_every_stage_and_runs(step, tmp_path, python):
    folder = step.dump(tmp_path / "out", X, Y)
    expected = {name: np.array(cell.array) for name, cell in step.cells.items()}
    loss = float(step(X, Y))
    names = {path.name for path in folder.iterdir()}
    assert {"00-trace.py", "schedule.txt", "program.txt", "memory.txt", "report.txt", "inputs.npz", "kernels"} <= names
    graphs = sorted(folder.glob("*.py"))
    assert len(graphs) == len(step.stages) - 2
    for path in (graphs[0], graphs[-1]):
        printed = python(path).stdout
        assert "inputs.npz" in printed.splitlines()[0]
        assert float(printed.splitlines()[1].split("= ")[1]) == pytest.approx(loss, rel=1e-5)
    suffixes = {
        name: sorted(p.suffix for p in (folder / "kernels").glob(f"{name}.*")) for name in _kernel_names(folder)
    }
    assert suffixes and all(found == [".ll", ".py", ".s"] for found in suffixes.values())
    assert len(suffixes) == len(step.program.kernels)
    memory = (folder / "memory.txt").read_text()
    assert memory.startswith("B=6\n") and "arena" in memory and "#" in memory
    with np.load(folder / "inputs.npz") as saved:
        for name, array in expected.items():
            np.testing.assert_array_equal(saved[f"state:{name}"], array)


def _kernel_names(folder):
    return {path.stem for path in (folder / "kernels").iterdir()}


def test_a_dump_replaces_an_older_one_and_nothing_else(tmp_path):
    exe = tn.compile(lambda x: x + 1, tn.spec("B"), target="reference")
    first = exe.dump(tmp_path / "out")
    (first / "00-trace.py").unlink()
    assert (exe.dump(tmp_path / "out") / "00-trace.py").is_file()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    with pytest.raises(tn.TenonError, match="is no dump of Tenon's"):
        exe.dump(mine)
    assert [p.name for p in mine.iterdir()] == ["notes.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]


def test_a_dump_that_fails_leaves_nothing_behind(tmp_path):
    exe = tn.compile(lambda x: x + 1, tn.spec("B"), target="reference")
    with pytest.raises(tn.ShapeError):
        exe.dump(tmp_path / "out", np.ones((2, 2), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_dumps_of_one_name_do_not_collide(tmp_path):
    assert unused_folder(tmp_path, "step") == tmp_path / "step"
    (tmp_path / "step").mkdir()
    (tmp_path / "step-2").mkdir()
    assert unused_folder(tmp_path, "step") == tmp_path / "step-3"


def test_listings_name_every_kernel_and_buffer(step):
    schedule = step.stages["schedule"]
    text = listings.schedule_text(schedule)
    for buffer in schedule.buffers:
        assert buffer.name in text
    for kernel in schedule.kernels:
        assert kernel.name in text
    program = listings.program_text(step.program)
    assert all(call.label in program for call in step.program.main)
    assert "updates: " in program and "checks 1: index {value} is out of range" in program


def test_kernels_are_named_by_what_they_do(step):
    labels = [call.label for call in step.program.main]
    assert "matmul_bias_relu_le_3x5" in labels and len(set(labels)) == len(labels)
    names = listings.kernel_names(step.program)
    assert len(set(names.values())) == len(names) == len(step.program.kernels)
    assert not any(kernel.key[:8] in names[kernel.key] for kernel in step.program.kernels)
    again = tn.compile(lambda x: F.conv2d(x, tn.ones(4, 2, 3, 3)).relu() * 2, tn.spec("B", 2, 8, 8))
    assert "conv2d_relu_mul_4x3x3" in [call.label for call in again.program.main]
