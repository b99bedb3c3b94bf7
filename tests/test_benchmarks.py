"""The benchmark counts and reports what it says; a small comparison runs from end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import gpu_engines, gpu_results, gpu_torch, gpu_work, profiling, report, work
from benchmarks.models import CASES


def test_operations_are_counted_by_hand_and_from_the_graph():
    layers = [784 * 128, 128 * 10]
    assert work.of_case(CASES["mlp:infer"])[0] == 2 * 128 * sum(layers)
    # training adds both gradients of each layer, but not that of the images
    assert work.of_case(CASES["mlp:train"])[0] == 2 * 128 * (3 * sum(layers) - layers[0])
    convolutions = 28 * 28 * 32 * 9 + 14 * 14 * 64 * 32 * 9
    assert work.of_case(CASES["cnn:infer1"])[0] == 2 * (convolutions + 64 * 7 * 7 * 128 + 128 * 10)


def test_bytes_are_inputs_state_and_results():
    parameters = 784 * 128 + 128 + 128 * 10 + 10
    assert work.of_case(CASES["mlp:infer"])[1] == 4 * (128 * 784 + parameters + 128 * 10)


def test_attention_and_recurrences_count_their_products():
    scores = 8 * 8 * 128 * 128 // 2  # batch, heads, the half that causal attention looks at
    linear = 8 * 128 * (4 * (3 + 1 + 4 + 4) * 256 * 256 + 256 * 256)
    assert work.of_case(CASES["gpt:infer"])[0] == 2 * (linear + 4 * scores * 2 * 32)
    gates = 28 * (28 + 128) * 512 + 28 * (128 + 128) * 512
    assert work.of_case(CASES["lstm:infer1"])[0] == 2 * (gates + 128 * 10)


def test_factors_are_medians_of_the_factors_round_by_round():
    engines = {
        "tenon": {"seconds": [1.0, 4.0, 1.0], "cold": 1.0, "warm": 0.1, "memory": 10.0},
        "torch": {"seconds": [2.0, 4.0, 3.0], "cold": 0.5, "memory": 20.0},
    }
    case = {"engines": engines, "flops": 10, "bytes": 10, "peak": 20.0, "bandwidth": 100.0}
    assert report.slower(case, "torch") == 2
    found = {"machine": {"python": "3"}, "cases": {"cnn:train": case}}
    assert report.least_seconds(found, "cnn:train") == 0.5
    text = report.markdown(found)
    assert "| cnn:train | 1000 | 50% | 2.00x | 2.00x |" in text
    assert "| cnn:train | 1.00; again 0.10, 10 | 0.50, 20 |" in text


@pytest.mark.slow
def test_a_comparison_runs(python, tmp_path):
    pytest.importorskip("torch")
    python(
        "-m", "benchmarks", "--workloads", "mlp:infer1", "--peers", "torch", "--rounds", "1", "--seconds", "0.01",
        "--out", tmp_path / "found",
    )  # fmt: skip
    case = json.loads((tmp_path / "found.json").read_text("utf-8"))["cases"]["mlp:infer1"]
    assert case["engines"].keys() == {"tenon", "torch"}
    assert "| mlp:infer1 |" in (tmp_path / "found.md").read_text("utf-8")


@pytest.mark.slow
def test_a_sweep_runs(python, tmp_path):
    pytest.importorskip("torch")
    python(
        "-m", "benchmarks.sweeps", "--kinds", "softmax:256x64,matmul:NN:6x512x512", "--peers", "torch", "--rounds", "1",
        "--seconds", "0.01", "--out", tmp_path / "found",
    )  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))["ops"]
    assert {name: times.keys() for name, times in found.items()} == dict.fromkeys(found, {"tenon", "torch"})
    assert found.keys() == {"softmax:256x64", "matmul:NN:6x512x512"}
    assert "| matmul | 1 |" in (tmp_path / "found.md").read_text("utf-8")


def test_what_profiling_costs_is_measured():
    line = profiling.measure(CASES["mlp:infer1"], 0.2)
    assert line.startswith("mlp:infer1") and "together 100.0%" in line


# --- on a GPU ----------------------------------------------------------------------------------------------


def test_work_on_a_gpu_is_counted_by_hand():
    goal = gpu_work.Goal("eager", 0.8)
    product = gpu_work.matmul(4, 5, 6, goal)
    assert product.flops == 2 * 4 * 5 * 6 and product.bytes == 2 * (4 * 6 + 6 * 5 + 4 * 5)
    forward, both = (gpu_work.attention(2, 3, 16, 8, backward) for backward in (False, True))
    assert forward.flops == 2 * 3 * (2 * 16 * 16 * 8) * 2 / 2  # two products a head, half of each is causal
    assert both.flops == 3.5 * forward.flops
    assert gpu_work.bandwidth("add", 3, 100).bytes == 1200
    assert {w.goal.rival for w in gpu_work.WORK} == {"eager", "compile", "copy"}
    assert {w.name for w in gpu_work.WORK if w.group == "step"} <= set(CASES)


def test_results_on_a_gpu_are_held_to_their_goals():
    product = gpu_work.matmul(1000, 1000, 1000, gpu_work.Goal("eager", 0.8))
    reached = gpu_work.Result(product, {"tenon": 1e-3, "eager": 0.9e-3}, 1e12)
    assert reached.ratio == pytest.approx(0.9) and reached.verdict == "reached" and reached.rate == "2.0 TFLOP/s"
    missed = gpu_work.Result(product, {"tenon": 1e-3, "eager": 0.7e-3}, 1e12)
    assert missed.verdict == "MISSED"
    alone = gpu_work.Result(product, {"tenon": 1e-3}, 1e12)
    assert alone.ratio is None and alone.verdict == "eager was not measured"
    copied = gpu_work.Result(gpu_work.bandwidth("add", 3, 10**6), {"tenon": 12e-6}, 2e12)
    assert copied.ratio == pytest.approx(0.5) and copied.rate == "1000 GB/s"
    text = gpu_work.table([reached, missed, alone, copied])
    assert "| 1.000 ms | 0.900 ms | - | 2.0 TFLOP/s | 0.90 / 0.8 of eager | reached |" in text


GPU_WORK = [
    gpu_work.matmul(5, 16, 8, gpu_work.Goal("eager", 1.0)),
    gpu_work.matmul(5, 16, 8, gpu_work.Goal("eager", 1.0), "f32"),
    *(gpu_work.attention(1, 2, 16, 16, backward) for backward in (False, True)),
    *(gpu_work.bandwidth(name, 2, 8192) for name in ("add", "softmax", "layer_norm")),
    gpu_work.Work("mlp:train", "step", (), gpu_work.Goal("compile", 1.0), "f32"),
    gpu_work.Work("gpt", "gpt", (2, 8, 16, 2, 1, 11), gpu_work.Goal("compile", 1.0), "bf16"),
]


@pytest.mark.parametrize(
    "work",
    [pytest.param(w, marks=[pytest.mark.slow] * (w.name == "gpt"), id=f"{w.name} {w.dtype}") for w in GPU_WORK],
)
def test_what_is_compared_on_a_gpu_is_the_same_work(work):
    """Both engines do it on the processor here."""
    pytest.importorskip("torch")
    ours = gpu_engines.tenon(work, "cpu").results()
    theirs = gpu_torch.engines(work, "cpu")["eager"].results()
    assert gpu_results.disagreement(work, ours, theirs) == ""


def test_wrong_results_on_a_gpu_are_found():
    step = GPU_WORK[-2]
    right = [np.array(x) for x in (2.3, 2.1, 1.9)]
    assert gpu_results.disagreement(step, right, right) == ""
    slower = [np.array(x) for x in (2.3, 2.101, 2.0)]  # a part of the gradient is missing
    assert "losses are" in gpu_results.disagreement(step, slower, right)
    product = GPU_WORK[1]
    right = [np.ones((2, 3), np.float32)]
    for bad in (np.full((2, 3), np.nan), np.ones((3, 2)), np.array([[1, 1, 1], [1, 1.001, 1]])):
        assert "wrong" in gpu_results.disagreement(product, [bad], right)
    result = gpu_work.Result(product, {}, 1e12, "why")
    assert result.ratio is None and result.verdict == "WRONG: why" and result.rate == ""


def test_the_benchmark_refuses_to_measure_without_a_gpu(python):
    found = python("-m", "benchmarks", "--target", "cuda", status=2, NUMBA_ENABLE_CUDASIM="1")
    assert "nothing was measured" in found.stderr and not found.stdout
