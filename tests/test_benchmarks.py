"""The benchmark counts and reports what it says; a small comparison runs from end to end."""

from __future__ import annotations

import json

import pytest

from benchmarks import profiling, report, work
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
