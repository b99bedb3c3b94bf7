"""``target="cuda"`` as users meet it, in the simulator."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import tenon as tn
from engine.errors import DeviceError, DeviceMemoryError, UnsupportedError
from frontend import functional as F
from frontend import models, nn, optim
from tenon.generation import kept_for

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])


def _model() -> nn.Module:
    tn.seed(0)
    return nn.Linear(4, 3)


def test_targets_and_devices_have_names():
    exe = tn.compile(lambda x: x + 1, tn.spec("N"), target="cuda:1")
    assert "on cuda:1 (the simulator)" in repr(exe) and "on cuda:1 (the simulator)" in str(exe.report)
    np.testing.assert_array_equal(exe(X[0]), X[0] + 1)
    assert [d.target for d in tn.devices()] == ["cpu", "cuda:0", "cuda:1"]
    assert "the simulator" in str(tn.devices()[1])
    with pytest.raises(DeviceError, match="no such GPU; there are cuda:0, cuda:1"):
        tn.compile(lambda x: x, tn.spec(2), target="cuda:7")
    with pytest.raises(UnsupportedError, match="no target 'gpu'; expected one of 'cpu', 'reference', 'cuda'"):
        tn.compile(lambda x: x, tn.spec(2), target="gpu")
    with pytest.raises(UnsupportedError, match="in the simulator, and a GPU's profile needs a GPU"):
        exe.profile(X[0])


def test_too_little_memory_is_said_before_anything_runs():
    exe = tn.compile(lambda x: x.unsqueeze(1) + x, tn.spec("N"), target="cuda")
    with pytest.raises(DeviceMemoryError, match=r"needs 4,[\d,]+ bytes on cuda:0 for inputs, results"):
        exe(np.zeros(1 << 15, np.float32))
    assert exe(np.zeros(2, np.float32)).shape == (2, 2)


def test_state_is_where_it_was_written_last():
    """Programs on two GPUs and on the processor train one model in turns, and every one sees the others' updates."""
    expected, model = _model(), _model()
    steps = {}
    for target, m in (("reference", expected), ("cpu", model), ("cuda", model), ("cuda:1", model)):
        sgd = optim.SGD(m.parameters(), lr=0.1)
        steps[target] = tn.train_step(m, F.cross_entropy, sgd, [tn.spec("B", 4), tn.spec("B", dtype="i64")],
                                      target=target)  # fmt: skip
    for target in ("cuda", "cuda", "cpu", "cuda:1", "cuda", "cuda:1", "cpu"):
        np.testing.assert_allclose(steps[target](X, Y), steps["reference"](X, Y), 1e-5)
        if target == "cuda:1":  # by the host, in place
            for m in (model, expected):
                m.weight.data = m.weight.numpy() * 0.5
    for name, value in expected.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], value, 1e-5, 1e-6)


def test_a_trainer_brings_the_next_batch_while_one_runs():
    found = {}
    for target in ("cpu", "cuda"):
        model = _model()
        adam = optim.Adam(model.parameters(), lr=0.05)
        trainer = tn.Trainer(model, adam, nn.CrossEntropyLoss(), metrics=["accuracy"], target=target)
        history = trainer.fit(X, Y, epochs=2, batch_size=2, verbose=0)
        found[target] = history, trainer.evaluate(X, Y), trainer.predict(X)
    (cpu, scores, predicted), (cuda, their_scores, theirs) = found["cpu"], found["cuda"]
    np.testing.assert_allclose(cuda.history["loss"], cpu.history["loss"], 1e-5)
    assert their_scores == pytest.approx(scores, 1e-5)
    np.testing.assert_allclose(theirs, predicted, 1e-4, 1e-5)
    assert trainer.executables[0].counters["early"] == 4


def test_generation_replays_a_graph_a_token():
    tn.seed(0)
    model = models.GPT(models.GPTConfig(vocab_size=12, n_positions=8, n_embd=16, n_layer=1, n_head=2)).eval()
    wanted = tn.generate(model, [3, 1, 4], 4)
    found = tn.generate(model, [3, 1, 4], 4, target="cuda")
    np.testing.assert_array_equal(found, wanted)
    (generator,) = kept_for(model)[1, 8, "cuda"]
    step = next(program for name, program in generator.programs.items() if name.startswith("step"))
    assert step.counters["replays"] == 3 and step.counters["graphs"] == 1


class Echo(nn.Module):
    """Says again what it reads, more or less."""

    vocab_size = 6

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(6, 4), nn.Linear(4, 6)

    def encode(self, source):
        return self.embedding(source).mean(1)

    def decode(self, tokens, memory):
        return self.head(self.embedding(tokens) + memory.unsqueeze(1))


def test_a_beam_search_finds_what_it_finds_on_the_cpu():
    tn.seed(0)
    model, source = Echo(), np.array([[2, 3], [4, 5]])
    wanted, found = (
        tn.beam_search(model, source, 3, start=0, stop=1, beams=2, target=target) for target in ("cpu", "cuda")
    )
    for a, b in zip(sum(wanted, []), sum(found, []), strict=True):
        np.testing.assert_array_equal(b.tokens, a.tokens)
        assert b.score == pytest.approx(a.score, 1e-5)
    (search,) = (s for key, s in kept_for(model).items() if key[-1] == "cuda")
    assert search.encode.target == search.step.target == "cuda"


def test_attributions_are_computed_where_they_are_asked_for():
    model = _model()
    found = tn.attribute(model, X, Y, device="cuda")
    np.testing.assert_allclose(found, tn.attribute(model, X, Y), 1e-6)
    with pytest.raises(UnsupportedError, match="no target 'gpu'"):
        tn.attribute(model, X, Y, device="gpu")


def test_a_guarded_loop_runs_under_both_guards():
    def f(x):
        def loop(x):
            def body(c, _):
                return F.cond((c > 0).all(), lambda: c * 2, lambda: c - 1), None

            return F.scan(body, x, length=3)[0]

        return F.cond(x.sum() > 0, lambda: loop(x), lambda: -x)

    cuda, reference = (tn.compile(f, tn.spec(3), target=t) for t in ("cuda", "reference"))
    for x in ([1.0, 2.0, 3.0], [-5.0, 1.0, 1.0], [4.0, -1.0, 1.0]):
        np.testing.assert_allclose(cuda(np.array(x, np.float32)), reference(np.array(x, np.float32)))


@pytest.mark.slow
def test_a_dump_has_ptx_and_what_each_kernel_takes(tmp_path):
    exe = tn.compile(lambda x: (x * x).sum(), tn.spec("N"), target="cuda")
    folder = exe.dump(tmp_path / "dump", X[0])
    kernels = list((folder / "kernels").iterdir())
    assert {p.suffix for p in kernels} == {".py", ".ptx", ".sass", ".txt"}
    text = next(p for p in kernels if p.suffix == ".ptx").read_text()
    assert ".target sm_80" in text
    resources = next(p for p in kernels if p.suffix == ".txt").read_text()
    assert "bytes of stack: 0" in resources and "registers of a thread: " in resources
    assert "PTX" in (folder / "index.html").read_text()


def test_bisect_finds_the_kernel_that_is_wrong(tmp_path):
    exe = tn.compile(lambda x: (x * 2 + 1).sum(1), tn.spec("N", 4), target="cuda")
    assert tn.bisect(exe, X, folder=None) is None
    program = exe._built.program
    (kernel,) = program.kernels
    wrong = kernel.source.replace("float32(2.0)", "float32(3.0)")
    assert wrong != kernel.source
    kernels = (replace(kernel, source=wrong, key="0" * 64),)
    main = tuple(replace(c, kernel="0" * 64) for c in program.main)
    exe._built = replace(exe._built, program=replace(program, kernels=kernels, main=main))
    found = tn.bisect(exe, X, folder=tmp_path)
    assert found is not None and found.kind == "kernel"
    ran = subprocess.run([sys.executable, str(found.reproducer)], capture_output=True, text=True)
    assert ran.returncode == 1 and "cuda" in found.reproducer.read_text(), ran.stderr
