"""Recurrent cells: one step, for loops that users write."""

from __future__ import annotations

from typing import Any

from engine.dims import shape_text
from engine.errors import ShapeError, TenonError
from frontend import creation, rearranging
from frontend import functional as F
from frontend.nn import init
from frontend.nn.init_parameters import new_parameter
from frontend.nn.module import Module
from frontend.nn.parameter import Parameter
from frontend.sizes import plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


class RNNCellBase(Module):
    """What the cells share. The input is (N, input_size) or (input_size,), the state (N, hidden_size) or
    (hidden_size,), zero where it is left out. Raises ShapeError where they are not.

    PyTorch: torch.nn.RNNCellBase.
    """

    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, dtype: object = None):
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = num_chunks * hidden_size
        self.weight_ih = new_parameter((rows, input_size), dtype)
        self.weight_hh = new_parameter((rows, hidden_size), dtype)
        self.register_parameter("bias_ih", new_parameter((rows,), dtype) if bias else None)
        self.register_parameter("bias_hh", new_parameter((rows,), dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew: uniform within 1 / sqrt(hidden_size)."""
        bound = self.hidden_size**-0.5 if self.hidden_size > 0 else 0.0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _checked(self, input: Any, *states: Any) -> tuple[Tensor, ...]:
        """The input and the states; zeros for one that is None."""
        x = as_tensor(input)
        self._check("the input", x, x.ndim, self.input_size)
        found = [x]
        for state in states:
            if state is None:
                found.append(creation.zeros((*x.shape[:-1], self.hidden_size), dtype=x.dtype))
                continue
            s = as_tensor(state)
            self._check("the state", s, x.ndim, self.hidden_size)
            found.append(s)
        return tuple(found)

    def _check(self, what: str, x: Tensor, rank: int, size: int) -> None:
        shape = plain_shape(x.shape)
        if x.ndim not in (1, 2) or x.ndim != rank or shape[-1] != size:
            wanted = f"(N, {size})" if rank == 2 else f"({size},)"
            raise ShapeError(f"{type(self).__name__}: {what} has shape {shape_text(shape)}, {wanted} was expected")

    def _inward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_ih, self.bias_ih)

    def _onward(self, h: Tensor) -> Tensor:
        return F.linear(h, self.weight_hh, self.bias_hh)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(RNNCellBase):
    """``tanh(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)``, or relu of it: the next state.

    PyTorch: torch.nn.RNNCell.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", dtype: object = None
    ):  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise TenonError(f"RNNCell: nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, 1, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        x, h = self._checked(input, hx)
        total = self._inward(x) + self._onward(h)
        return total.tanh() if self.nonlinearity == "tanh" else total.relu()


class LSTMCell(RNNCellBase):
    """One step of an LSTM: ``(h, c)`` from the input and ``(h, c)``.

    PyTorch: torch.nn.LSTMCell.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, dtype: object = None):
        super().__init__(input_size, hidden_size, bias, 4, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise ShapeError(f"LSTMCell: the state is a pair (h, c), not {hx!r:.60}")
        x, h, c = self._checked(input, *(hx or (None, None)))
        i, f, g, o = rearranging.chunk(self._inward(x) + self._onward(h), 4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell(RNNCellBase):
    """One step of gated recurrent units: the next state.

    PyTorch: torch.nn.GRUCell.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, dtype: object = None):
        super().__init__(input_size, hidden_size, bias, 3, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        x, h = self._checked(input, hx)
        x_r, x_u, x_n = rearranging.chunk(self._inward(x), 3, -1)
        h_r, h_u, h_n = rearranging.chunk(self._onward(h), 3, -1)
        n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
        return n + (x_u + h_u).sigmoid() * (h - n)
