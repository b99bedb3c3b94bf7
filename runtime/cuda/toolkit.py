"""The one module that touches numba.cuda: what kernels are written with, and from their text to PTX.

Kernels are compiled for an architecture, "sm_80" or "sm_90a", with no GPU and no driver at hand. Where the environment
says ``NUMBA_ENABLE_CUDASIM=1`` nothing is compiled: ``cuda`` is the simulator's, and every intrinsic is the Python
function that it is declared with. That is decided once, when this module is imported.

Every integer in a kernel is an i64: parameters and results of intrinsics, thread numbers, counters. An intrinsic
narrows what it is given to the width that it declares, and NVVM then narrows the arithmetic that led there. (A uint32
from a local array is an int64 as soon as it meets one, but two of them make a uint64, and that and an int64 a float64.)
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from types import SimpleNamespace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from engine.errors import CompileError, TenonError, UnsupportedError
from engine.program import Kernel
from runtime.cuda.simulator import SIMULATED
from runtime.sources import load_source

ARCHITECTURES = ("sm_80", "sm_90a")
"""What kernels are written for: tensor cores by mma.sync and cp.async, and Hopper's wgmma and TMA."""

array: TypeAlias = Any
i32: TypeAlias = int
i64: TypeAlias = int
u16: TypeAlias = int
u32: TypeAlias = int
u64: TypeAlias = int
f32: TypeAlias = float | np.floating
f64: TypeAlias = float | np.floating
literal: TypeAlias = int
"""The words in which intrinsics declare what they take and give. A ``literal`` is a constant of the text; an ``array``
is a local array, to which its builder gets a pointer."""

_REGISTERS = {"i32": "r", "i64": "l", "u16": "h", "u32": "r", "u64": "l", "f32": "f", "f64": "d"}
_WIDTHS = {"i32": 32, "i64": 64, "u16": 16, "u32": 32, "u64": 64}

Function = TypeVar("Function", bound=Callable[..., Any])
Build = Callable[[Any, Sequence[Any], Sequence[Any]], Any]
"""``build(builder, values, results)`` emits LLVM for an intrinsic: from the values of its parameters (Python numbers
for literals, pointers to their first element for arrays) to one value, or a sequence of them, of the LLVM types
``results``."""


def _import() -> Any:
    """numba.cuda, able to compile without a driver. Raises UnsupportedError that says what to install."""
    install = 'CUDA kernels need the packages of the extra "cuda": pip install "tenon[cuda]"'
    try:
        from numba import cuda
        from numba.cuda import dispatcher
    except Exception as error:  # with a NumPy that is too new, an AttributeError
        try:
            found = (
                f"numba-cuda {metadata.version('numba-cuda')} with numpy {metadata.version('numpy')} does not import"
            )
        except metadata.PackageNotFoundError:
            found = "numba-cuda is not installed"
        raise UnsupportedError(f"{install} ({found}: {type(error).__name__}: {error})") from error
    version = metadata.version("numba-cuda")
    if not version.startswith("0.30."):
        raise UnsupportedError(f"{install} (numba-cuda is {version}; expected 0.30)")
    dispatcher.get_current_device = lambda: _device  # device functions ask it for what they are compiled for
    return cuda


_device = SimpleNamespace(compute_capability=(8, 0))
_compiling = threading.Lock()

cuda: Any
if SIMULATED:
    from runtime.cuda.simulator.words import cuda
else:
    cuda = _import()


# --- what kernels are written with --------------------------------------------------------------------------


def device(function: Function) -> Function:
    """A function that kernels may call, compiled with them."""
    return function if SIMULATED else cuda.jit(device=True)(function)


def intrinsic(build: Build) -> Callable[[Function], Function]:
    """A function for kernels that ``build`` turns into LLVM instructions. The function underneath is what the simulator
    runs; its annotations are words of this module: ``def ldmatrix(address: u32) -> tuple[u32, u32]``.

    The instructions keep their place among other threads' only if the builder marks them so (``convergent``).
    """

    def declare(fallback: Function) -> Function:
        return fallback if SIMULATED else _declared(fallback, build)

    return declare


def ptx(template: str, pure: bool = False) -> Callable[[Function], Function]:
    """A function for kernels that is inline PTX. In ``template``, ``$name`` is a parameter and ``$0``, ``$1`` ... are
    the results. What is not ``pure`` reads or writes memory, and keeps its place among others that do. What says
    ``.sync`` is executed by all threads of the warp together, and stays where it is written."""

    def declare(fallback: Function) -> Function:
        return fallback if SIMULATED else _declared(fallback, _inline(template, pure, fallback))

    return declare


def typed(takes: str, gives: str, build: Callable[..., Any]) -> Callable[[Function], Function]:
    """A function for kernels on numbers of exact types, as generated bodies have them: integers keep their width.

    ``takes`` and ``gives`` list NumPy's names of types, ``any`` for whatever number is given, and ``same`` for its type
    once more. ``build(builder, kind, *values)`` emits the result, or a sequence of several; ``kind`` is that of the
    ``any``: f (float), i (signed), u (unsigned) or b (bool). The function underneath is what the simulator runs.
    """

    def declare(fallback: Function) -> Function:
        return fallback if SIMULATED else _typed(fallback, takes.split(), gives.split(), build)

    return declare


def _typed(fallback: Function, takes: Sequence[str], gives: Sequence[str], build: Callable[..., Any]) -> Function:
    from numba.cuda import types
    from numba.cuda.extending import intrinsic as numba_intrinsic

    def kind_of(number: Any) -> str:
        if isinstance(number, types.Float):
            return "f"
        return "b" if isinstance(number, types.Boolean) else "i" if number.signed else "u"

    def typed(typingctx: Any, *given: Any) -> Any:
        free = next((types.unliteral(g) for w, g in zip(takes, given, strict=True) if w == "any"), types.int64)
        known = {"any": free, "same": free, "bool": types.boolean}
        taken, made = ([known.get(w) or getattr(types, w) for w in words] for words in (takes, gives))
        result = types.Tuple(made) if len(made) > 1 else made[0] if made else types.void

        def codegen(context: Any, builder: Any, signature: Any, passed: Any) -> Any:
            found = build(builder, kind_of(free), *passed)
            if not made:
                return context.get_dummy_value()
            return found if len(made) == 1 else context.make_tuple(builder, result, found)

        return result(*taken), codegen

    _name_parameters(typed, fallback, [f"a{i}" for i in range(len(takes))])
    found: Function = numba_intrinsic(typed)
    return found


def array_of(dtype: str, fallback: Function) -> Function:
    """A function for kernels that takes an address and a shape, a tuple, and gives the C-contiguous array there, of the
    NumPy type ``dtype``. ``fallback`` is what the simulator runs."""
    if SIMULATED:
        return fallback
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic as numba_intrinsic
    from numba.cuda.np.arrayobj import make_array, populate_array

    element = types.boolean if dtype == "bool_" else getattr(types, dtype)

    def typed(typingctx: Any, address: Any, shape: Any) -> Any:
        result = types.Array(element, len(shape), "C")

        def codegen(context: Any, builder: Any, signature: Any, passed: Any) -> Any:
            step = context.get_abi_sizeof(context.get_data_type(element))
            i64 = ir.IntType(64)
            sizes = [builder.extract_value(passed[1], i) for i in range(len(shape))]
            sizes = [builder.sext(n, i64) if n.type.width < 64 else n for n in sizes]
            strides = [ir.Constant(i64, step)]
            for n in sizes[:0:-1]:
                strides.insert(0, builder.mul(strides[0], n))
            made = make_array(result)(context, builder)
            data = builder.inttoptr(passed[0], context.get_data_type(element).as_pointer())
            populate_array(made, data, sizes, strides[: len(shape)], step, None)
            return made._getvalue()

        return result(types.int64, shape), codegen

    _name_parameters(typed, fallback, ["address", "shape"])
    found: Function = numba_intrinsic(typed)
    return found


def _name_parameters(typing: Callable[..., Any], fallback: Callable[..., Any], names: Sequence[str]) -> None:
    """Give the typing function of an intrinsic the parameters ``names``, which numba matches calls with."""
    position = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named = [inspect.Parameter(n, position) for n in ("typingctx", *names)]
    typing.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    typing.__name__, typing.__doc__ = fallback.__name__, fallback.__doc__


def _words(fallback: Callable[..., Any]) -> tuple[dict[str, str], list[str]]:
    """The parameters' and the results' words, from the annotations of a function."""
    words: dict[str, str] = dict(fallback.__annotations__)
    result = words.pop("return", "None")
    results = re.findall(r"\w+", result.removeprefix("tuple"))
    return words, [] if results == ["None"] else results


def _inline(template: str, pure: bool, fallback: Callable[..., Any]) -> Build:
    from llvmlite import ir

    words, results = _words(fallback)
    literals = [w == "literal" for w in words.values()]
    registers = [_REGISTERS[w] for w in words.values() if w != "literal"]
    places = {n: len(results) + sum(not x for x in literals[:i]) for i, n in enumerate(words)}
    constraints = [f"={_REGISTERS[w]}" for w in results] + registers + ([] if pure else ["~{memory}"])
    attributes = ("convergent",) if ".sync" in template or "bar." in template else ()

    def build(builder: Any, values: Sequence[Any], types: Sequence[Any]) -> Any:
        known = dict(zip(words, values, strict=True))

        def operand(found: re.Match[str]) -> str:
            name = found[1]
            return str(known[name]) if words[name] == "literal" else f"${places[name]}"

        text = re.sub(r"\$([A-Za-z_]\w*)", operand, template)
        given = [v for v, is_literal in zip(values, literals, strict=True) if not is_literal]
        made = ir.VoidType() if not types else types[0] if len(types) == 1 else ir.LiteralStructType(types)
        assembly = ir.InlineAsm(ir.FunctionType(made, [v.type for v in given]), text, ",".join(constraints), not pure)
        found = builder.call(assembly, given, attrs=attributes)
        return found if len(types) <= 1 else [builder.extract_value(found, i) for i in range(len(types))]

    return build


def _declared(fallback: Function, build: Build) -> Function:
    """The numba intrinsic with the name and the parameters of ``fallback``."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import _intrinsic as numba_intrinsic  # the public one takes no options
    from numba.cuda.np.arrayobj import make_array

    words, results = _words(fallback)
    numbers = {"i32": types.int32, "i64": types.int64, "u16": types.uint16, "u32": types.uint32, "u64": types.uint64,
               "f32": types.float32, "f64": types.float64}  # fmt: skip
    machine = {"f32": ir.FloatType(), "f64": ir.DoubleType()} | {w: ir.IntType(n) for w, n in _WIDTHS.items()}

    def typed(typingctx: Any, *given: Any) -> Any:
        taken = [numbers.get(w, g) for w, g in zip(words.values(), given, strict=True)]
        given_back = [types.int64 if w in _WIDTHS else numbers[w] for w in results]
        result = types.Tuple(given_back) if len(results) > 1 else given_back[0] if results else types.void

        def value(context: Any, builder: Any, word: str, kind: Any, passed: Any) -> Any:
            if word == "literal":
                return kind.literal_value
            if word == "array":
                return make_array(kind)(context, builder, passed).data
            return passed

        def codegen(context: Any, builder: Any, signature: Any, passed: Any) -> Any:
            values = [
                value(context, builder, w, kind, v)
                for w, kind, v in zip(words.values(), signature.args, passed, strict=True)
            ]
            made = build(builder, values, [machine[w] for w in results])
            if not results:
                return context.get_dummy_value()
            made = [made] if len(results) == 1 else made
            items = [_widened(builder, item, w) for item, w in zip(made, results, strict=True)]
            return items[0] if len(items) == 1 else context.make_tuple(builder, result, items)

        return result(*taken), codegen

    functools.update_wrapper(typed, fallback)
    position = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named = [inspect.Parameter(n, position) for n in ("typingctx", *words)]
    typed.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    found: Function = numba_intrinsic(target="cuda", prefer_literal="literal" in words.values())(typed)
    return found


def _widened(builder: Any, value: Any, word: str) -> Any:
    """A result as kernels have it: integers are i64."""
    from llvmlite import ir

    if _WIDTHS.get(word, 64) == 64:
        return value
    return (builder.sext if word == "i32" else builder.zext)(value, ir.IntType(64))


# --- from text to PTX ----------------------------------------------------------------------------------------


def to_ptx(kernel: Kernel, architecture: str) -> str:
    """The PTX of ``kernel`` for an architecture; its entry has the kernel's name. Raises CompileError with the kernel's
    name, what went wrong and its source."""
    from numba.cuda import types

    capability = compute_capability(architecture)
    try:
        with _compiling:
            _device.compute_capability = capability
            function = getattr(load_source(kernel), kernel.name)
            signature = types.void(*[types.int64] * function.__code__.co_argcount)
            bounds = (kernel.threads, 1)  # with no number of blocks ptxas spills registers to let more of them run
            text, _ = cuda.compile_ptx(function, signature, cc=capability, launch_bounds=bounds)
    except Exception as error:
        numbered = "\n".join(f"{i:5} {line}" for i, line in enumerate(kernel.source.splitlines(), 1))
        why = error.message if isinstance(error, TenonError) else f"{type(error).__name__}: {error}"
        raise CompileError(
            f"the kernel {kernel.name!r} does not compile for {architecture}: {why}\nIts source:\n{numbered}"
        ) from error
    entry = re.search(r"\.entry (\w+)", text)
    assert entry is not None
    return text.replace(entry[1], kernel.name)


def compute_capability(architecture: str) -> tuple[int, int] | tuple[int, int, str]:
    """(9, 0, "a") of "sm_90a". Raises UnsupportedError for what is not the name of an architecture."""
    found = re.fullmatch(r"sm_(\d+)(\d)(a?)", architecture)
    if not found:
        raise UnsupportedError(f"{architecture!r} is not an architecture; expected one like {', '.join(ARCHITECTURES)}")
    major, minor = int(found[1]), int(found[2])
    return (major, minor, "a") if found[3] else (major, minor)
