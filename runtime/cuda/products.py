"""How fragments are multiplied: the products that tensor cores know, and float32 made of them.

``kind`` is ``f16``, ``bf16``, or for operands of float32 ``tf32x3`` (the default: each factor is split into two tf32
numbers, and all products of these but the smallest are added up), ``tf32`` or ``medium`` (rounded to bf16).

With ``tf32x3`` the small products have accumulators of their own, ``<acc>_low``: they round finer, and infinity times
the zero that is left over of an exact factor makes a NaN that can be told from one that belongs in the result.
"""

from __future__ import annotations

from engine.dtypes import DType, f32
from engine.records import dataclass

_FLOAT32 = {"highest": "tf32x3", "high": "tf32", "medium": "medium"}
_MADE = {"tf32x3": "_low", "medium": "_pair"}
"""What the registers are called that :meth:`Products.prepare` makes."""


def product_kind(dtype: DType, exactness: str) -> str:
    """How operands of ``dtype`` (f16, bf16 or f32) are multiplied; for f32 a kernel's ``products`` decides."""
    return _FLOAT32[exactness] if dtype == f32 else dtype.name


def lower_part(word: str, lower: str) -> list[str]:
    """Lines that set ``upper`` and ``lower``: the two tf32 numbers of which the float32 with the bits ``word`` is the
    sum, to 22 bits of its 24."""
    # The upper 11 bits as they are: rounded up, the largest numbers would become infinite. What is left is rounded by
    # half of what tensor cores do not read; of infinity and NaN nothing has to be left.
    return [
        f"upper = {word} & 0xFFFFE000",
        f"{lower} = float_bits(bits_float({word}) - bits_float(upper)) + 0x1000",
    ]


@dataclass(frozen=True)
class Products:
    """Lines that multiply the fragments in the registers ``a`` and ``b`` of a warp into ``acc``, by ``kind``.

    ``rows`` fragments of 16 rows and ``columns`` fragments of 8 columns. Accumulator ``4 * (i * columns + j) + e`` is
    row ``lane // 4 + 8 * (e // 2)`` and column ``lane % 4 * 2 + e % 2`` of fragment (i, j).
    """

    kind: str
    rows: int
    columns: int
    a: str = "a"
    b: str = "b"
    acc: str = "acc"

    @property
    def accumulators(self) -> int:
        return 4 * self.rows * self.columns

    @property
    def steps(self) -> int:
        """Steps of k that are multiplied at once."""
        return 2 if self.kind == "medium" else 1

    @property
    def _words(self) -> dict[str, int]:
        """Registers of one step, by operand."""
        return {self.a: 4 * self.rows, self.b: 2 * self.columns}

    @property
    def _sums(self) -> list[str]:
        return [self.acc, f"{self.acc}_low"] if self.kind == "tf32x3" else [self.acc]

    def declare(self) -> list[str]:
        """Lines that make the registers. Those of an operand hold ``steps`` steps, one behind the other."""
        lines = []
        for name, count in self._words.items():
            lines.append(f"{name} = cuda.local.array({self.steps * count}, uint32)")
            if self.kind in _MADE:
                lines.append(f"{name}{_MADE[self.kind]} = cuda.local.array({count}, uint32)")
        return [*lines, *(f"{acc} = cuda.local.array({self.accumulators}, float32)" for acc in self._sums)]

    def clear(self) -> list[str]:
        """Lines that set the accumulators to zero."""
        return [f"for i in range({self.accumulators}):", *(f"    {acc}[i] = float32(0.0)" for acc in self._sums)]

    def prepare(self, name: str) -> list[str]:
        """Lines behind the loads of operand ``name``'s fragments: what has to happen to them before products."""
        words = self._words[name]
        match self.kind:
            case "tf32x3":
                lines = [*lower_part(f"{name}[i]", f"{name}_low[i]"), f"{name}[i] = upper"]
            case "tf32":
                lines = [f"{name}[i] = to_tf32(bits_float({name}[i]))"]
            case "medium":
                # Words four elements of k apart make a pair, of a and of b alike: within a step k may have any order.
                first, apart = ("(i >> 2) * 4 + (i & 1)", 2) if name == self.a else ("(i >> 1) * 2", 1)
                step = "i >> 1 & 1" if name == self.a else "i & 1"
                lines = [
                    f"first = ({step}) * {words} + {first}",
                    f"{name}_pair[i] = pack_bf16(bits_float({name}[first]), bits_float({name}[first + {apart}]))",
                ]
            case _:
                return []
        return [f"for i in range({words}):", *(f"    {line}" for line in lines)]

    def multiply(self) -> list[str]:
        """Lines that add what has been prepared."""
        match self.kind:
            case "tf32x3":
                body = [
                    self._mma("m16n8k8_tf32", f"{self.acc}_low", f"{self.a}_low", self.b),
                    self._mma("m16n8k8_tf32", f"{self.acc}_low", self.a, f"{self.b}_low"),
                    self._mma("m16n8k8_tf32", self.acc, self.a, self.b),
                ]
            case "tf32":
                body = [self._mma("m16n8k8_tf32", self.acc, self.a, self.b)]
            case "medium":
                body = [self._mma("m16n8k16_bf16", self.acc, f"{self.a}_pair", f"{self.b}_pair")]
            case _:
                body = [self._mma(f"m16n8k16_{self.kind}", self.acc, self.a, self.b)]
        return [
            f"for i in range({self.rows}):",
            f"    for j in range({self.columns}):",
            f"        o = 4 * (i * {self.columns} + j)",
            *(f"        {line}" for line in body),
        ]

    def _mma(self, name: str, acc: str, a: str, b: str) -> str:
        out = ", ".join(f"{acc}[o + {e}]" for e in range(4))
        left = ", ".join(f"{a}[4 * i + {e}]" for e in range(4))
        return f"{out} = mma_{name}({left}, {b}[2 * j], {b}[2 * j + 1], {out})"

    def value(self, number: str) -> str:
        """The expression of accumulator ``number`` once all has been added."""
        if self.kind != "tf32x3":
            return f"{self.acc}[{number}]"
        return with_lower(f"{self.acc}[{number}]", f"{self.acc}_low[{number}]")


def with_lower(total: str, lower: str) -> str:
    """The expression of a sum of large products and one of small ones together: where the small ones met infinity, what
    they make of it does not count."""
    return f"{total} + select(is_finite({lower}), {lower}, float32(0.0))"
