"""Recurrent layers: RNN, LSTM and GRU, in several layers and both directions, with PyTorch's parameters.

Each direction of each layer is one contraction for the inputs of all steps and one op for the steps, whatever their
number.
"""

from __future__ import annotations

import warnings
from typing import Any

from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError, TenonError
from frontend import functional as F
from frontend import recurrence, shaping
from frontend.nn import init
from frontend.nn.init_parameters import new_parameter
from frontend.nn.module import Module
from frontend.sizes import plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]

_KEYS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class RNNBase(Module):
    """What the recurrent layers share; PyTorch's arguments and parameters.

    Called with the input (T, N, input_size), (N, T, input_size) with ``batch_first``, or (T, input_size); the initial
    state, zero where it is left out: (D * num_layers, N, P), D being 2 for ``bidirectional`` layers, without N for
    one example; and ``lengths`` (N), integers from 1 to T, where the examples are of several lengths. Gives the states
    of the last layer, the directions side by side in the last axis, and the final state of each layer and direction.

    With ``lengths`` the results are those of PyTorch's packed sequences: the final state is that at each length, the
    reverse direction starts there, and the states behind it are zero.

    Raises ShapeError for an input or a state of the wrong shape, DTypeError for one of another dtype than the
    parameters, and, in a call, IndexRangeError for a length that is not from 1 to T.

    PyTorch: torch.nn.RNNBase.
    """

    kind: str
    gates: int

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, dtype: object = None,
    ):  # fmt: skip
        super().__init__()
        name = type(self).__name__
        for what, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if not isinstance(size, int) or size < (what != "input_size"):
                raise ShapeError(f"{name}: {what} must be a positive integer, not {size!r}")
        if not isinstance(dropout, (int, float)) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise TenonError(f"{name}: dropout is a probability from 0 to 1, not {dropout!r}")
        if not 0 <= proj_size < hidden_size:
            raise ShapeError(f"{name}: proj_size must be at least 0 and less than hidden_size {hidden_size}")
        if dropout and num_layers == 1:
            warnings.warn(f"{name}: dropout acts between layers, and there is only one", stacklevel=3)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        for layer in range(num_layers):
            for suffix in self._directions(layer):
                width = self._width
                inside = input_size if layer == 0 else width * self._count
                rows = self.gates * hidden_size
                shapes: tuple[tuple[int, ...], ...] = ((rows, inside), (rows, width))
                shapes += ((rows,), (rows,)) if bias else ()
                for key, shape in zip(_KEYS, shapes, strict=False):
                    setattr(self, key + suffix, new_parameter(shape, dtype))
                if proj_size:
                    setattr(self, "weight_hr" + suffix, new_parameter((proj_size, hidden_size), dtype))
        self.reset_parameters()

    @property
    def _width(self) -> int:
        """Numbers in the hidden state."""
        return self.proj_size or self.hidden_size

    @property
    def _count(self) -> int:
        """How many directions a layer has."""
        return 2 if self.bidirectional else 1

    def _directions(self, layer: int) -> list[str]:
        """How the parameters of each direction end."""
        return [f"_l{layer}", f"_l{layer}_reverse"][: self._count]

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each direction of each layer."""
        return [
            [getattr(self, key + suffix) for key in _KEYS if hasattr(self, key + suffix)]
            for layer in range(self.num_layers)
            for suffix in self._directions(layer)
        ]

    def reset_parameters(self) -> None:
        """Draw the parameters anew: uniform within 1 / sqrt(hidden_size)."""
        bound = self.hidden_size**-0.5
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: the weights are packed by the programs that use them."""

    def forward(self, input: Tensor, hx: Any = None, lengths: Any = None) -> Any:
        x = as_tensor(input)
        name, like = type(self).__name__, self.weight_ih_l0
        if x.ndim not in (2, 3):
            raise ShapeError(f"{name} takes an input of 3 axes, or 2 for one example, not {shape_text(x.shape)}")
        if plain_shape(x.shape)[-1] != self.input_size:
            raise ShapeError(f"{name}: the last axis is input_size {self.input_size}, not {x.shape[-1]}")
        if x.dtype != like.dtype:
            raise DTypeError(f"{name}: the parameters are {like.dtype}, the input is {x.dtype}")
        single = x.ndim == 2
        if single and lengths is not None:
            raise ShapeError(f"{name}: lengths are for a batch, and the input {shape_text(x.shape)} is one example")
        x = x.unsqueeze(1) if single else x.transpose(0, 1) if self.batch_first else x
        state = self._initial(hx, x, single)
        if lengths is not None:
            lengths = recurrence.checked_lengths(lengths, x)
            x = recurrence.within(x, lengths)  # what is behind a length may be NaN
        x, last = self._layers(x, state, lengths)
        if single:
            return x.squeeze(1), self._result([s.squeeze(1) for s in last])
        return x.transpose(0, 1) if self.batch_first else x, self._result(last)

    def _layers(
        self, x: Tensor, state: list[Tensor] | None, lengths: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """The output (T, N, ...) and the final states."""
        finals: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for reverse, suffix in enumerate(self._directions(layer)):
                weights = [getattr(self, key + suffix, None) for key in _KEYS]
                first = None if state is None else [s[len(finals)] for s in state]
                out, last = recurrence.recur(self.kind, x, weights, first, lengths, bool(reverse))
                outputs.append(out)
                finals.append(last)
            x = outputs[0] if len(outputs) == 1 else shaping.concat(outputs, -1)
        return x, [_stacked(parts) for parts in zip(*finals, strict=True)]

    def _initial(self, hx: Any, x: Tensor, single: bool) -> list[Tensor] | None:
        """The initial states (D * num_layers, N, ...), or None."""
        if hx is None:
            return None
        states = self._states_of(hx)
        sizes = (self._width, self.hidden_size)
        found = []
        for name, state, size in zip(("h_0", "c_0"), states, sizes, strict=False):
            s = as_tensor(state)
            batch = () if single else (x.shape[1],)
            expected = plain_shape((self.num_layers * self._count, *batch, size))
            if s.ndim != len(expected) or any(
                isinstance(a, int) and isinstance(b, int) and a != b
                for a, b in zip(plain_shape(s.shape), expected, strict=True)
            ):
                raise ShapeError(
                    f"{type(self).__name__}: {name} has shape {shape_text(plain_shape(s.shape))}, "
                    f"{shape_text(expected)} was expected"
                )
            found.append(s.unsqueeze(1) if single else s)
        return found

    def _states_of(self, hx: Any) -> tuple[Any, ...]:
        return (hx,)

    def _result(self, last: list[Tensor]) -> Any:
        return last[0]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
                    "bidirectional": False}  # fmt: skip
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


def _stacked(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else shaping.stack(parts)


class RNN(RNNBase):
    """Elman's recurrence: ``h = tanh(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)``, or relu. See RNNBase.

    PyTorch: torch.nn.RNN. Differs: lengths are an argument, not a packed sequence.
    """

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, dtype: object = None,
    ):  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise TenonError(f"RNN: nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype=dtype)
        self.nonlinearity = nonlinearity

    @property
    def kind(self) -> str:  # type: ignore[override]
        return f"rnn_{self.nonlinearity}"


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997). The state is the pair ``(h, c)``; with ``proj_size``
    (Sak et al., 2014) h is projected to so many numbers. See RNNBase.

    PyTorch: torch.nn.LSTM. Differs: lengths are an argument, not a packed sequence.
    """

    kind = "lstm"
    gates = 4

    def _states_of(self, hx: Any) -> tuple[Any, ...]:
        if not isinstance(hx, (tuple, list)) or len(hx) != 2:
            raise ShapeError(f"LSTM: the initial state is a pair (h_0, c_0), not {hx!r:.60}")
        return tuple(hx)

    def _result(self, last: list[Tensor]) -> Any:
        return tuple(last)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al., 2014), with the reset gate behind the recurrent product. See RNNBase.

    PyTorch: torch.nn.GRU. Differs: lengths are an argument, not a packed sequence.
    """

    kind = "gru"
    gates = 3

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, dtype: object = None,
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype=dtype)
