"""The table of a model's layers."""

from __future__ import annotations

import tenon as tn
from engine import dims
from tenon import nn

B = dims.dim("B")


def test_a_summary() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Sequential(nn.LazyLinear(10))
    )
    model[0].requires_grad_(False)
    found = tn.summary(model, tn.spec("B", 1, 6, 6))
    assert (found.trained, found.frozen, found.state) == (4 * 36 * 10 + 10 + 8, 40, 9)
    lines = str(found).splitlines()
    assert lines[0] == "Sequential" and lines[1].split() == ["layer", "output", "parameters", "flops", "bytes"]
    conv = 2 * 36 * 4 * 9 + 36 * 4  # for each example: the products, and adding the bias
    assert found.layers[0].flops == conv * B and found.layers[0].bytes == 4 * (36 + 4 * 36) * B + 4 * 40
    row = ["0", "(Conv2d)", "(B,", "4,", "6,", "6)", "40", "frozen", "2.74", "K*B", "720*B", "+", "160"]
    assert lines[2].split() == row
    assert lines[7].startswith("  0 (Linear)") and "1,450" in lines[7]
    assert found.layers[-1].flops == (2 * 4 * 36 * 10 + 10) * B
    assert dims.evaluate(found.flops, {"B": 3}) == sum(dims.evaluate(x.flops, {"B": 3}) for x in found.layers)
    assert " floating-point operations, " in lines[-1]
    assert lines[-2] == "1,498 parameters: 1,458 trained, 40 frozen; 9 numbers of other state"
    assert not any(m._forward_hooks for m in model.modules()) and model.training


def test_shared_and_unused_layers() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.idle = nn.ReLU()

        def forward(self, x: tn.Tensor) -> tuple[tn.Tensor, tn.Tensor]:
            return self.a(x), self.b(x)

    found = tn.summary(Tied(), tn.spec(2, 4))
    assert found.trained == 16
    assert [layer.output for layer in found.layers] == ["(2, 4)", "(2, 4)", "not used"]
