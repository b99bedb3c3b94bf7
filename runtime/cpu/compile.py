"""Kernels to object code: Numba types and lowers the source, LLVM optimises it for this very processor.

Numba is imported when the first kernel is compiled, never before: a warm start does without it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from engine.errors import CompileError, TenonError
from engine.program import Kernel
from runtime import helpers
from runtime.cpu.objects import externals, link, symbol
from runtime.cpu.parts import parts_of
from runtime.cpu.threads import thread_count
from runtime.side_by_side import side_by_side
from runtime.sources import load_source

if TYPE_CHECKING:
    from llvmlite.binding import ModulePassManager, ModuleRef, TargetMachine

WORKER = "runtime.cpu.worker"
_WORTH_A_HELPER = 3
"""Kernels for each helping process that must be started, at least: that takes about as long."""

_NODES_OF_A_HELPER = 16
"""Nodes of a traced graph for each helping process that is started before its kernels are known, at least."""

FASTMATH = frozenset({"contract", "reassoc", "nsz"})
"""Never nnan or ninf: NaN and infinity propagate as in NumPy."""


def compile_kernel(kernel: Kernel) -> bytes:
    """The object code of ``kernel``: it exports ``symbol(kernel.name)`` and refers only to what ``externals`` allows.

    Raises CompileError with the kernel's name, what went wrong and its source.
    """
    module = _optimised(kernel)
    with _addresses_of(kernel):
        code = _machine(_level(kernel)).emit_object(module)
    try:
        link(code, symbol(kernel.name), kernel.libm)
    except CompileError as error:
        allowed = externals(kernel.libm)
        called = sorted(
            f.name
            for f in module.functions
            if f.is_declaration and f.name not in allowed and not f.name.startswith("llvm.")
        )
        raise _failure(kernel, f"{error.message}; it calls {', '.join(called) or 'nothing outside'}") from None
    return code


def inspect_kernel(kernel: Kernel) -> tuple[str, str]:
    """The optimised LLVM IR of ``kernel`` and its assembly. Raises CompileError."""
    module = _optimised(kernel)
    with _addresses_of(kernel):
        return str(module), _machine(_level(kernel)).emit_assembly(module)


def _optimised(kernel: Kernel) -> ModuleRef:
    try:
        made = load_source(kernel)
        return _translated(kernel, made) or _lower(getattr(made, kernel.name), symbol(kernel.name))
    except Exception as error:
        trace = "" if isinstance(error, TenonError) else "".join(traceback.format_exception(error)[-3:])
        raise _failure(kernel, f"{type(error).__name__}: {error}\n{trace}") from error


def _failure(kernel: Kernel, why: str) -> CompileError:
    numbered = "\n".join(f"{i:5} {line}" for i, line in enumerate(kernel.source.splitlines(), 1))
    return CompileError(f"the kernel {kernel.name!r} does not compile: {why}\nIts source:\n{numbered}")


def _translated(kernel: Kernel, made: ModuleType) -> ModuleRef | None:
    """The optimised LLVM module of a kernel by the short way, or None where its source needs all of Numba."""
    from llvmlite import binding
    from numba.core.compiler_lock import global_compiler_lock

    from runtime.cpu.translate import Unknown

    _machine(1)
    with global_compiler_lock:
        parts = parts_of(kernel)
        try:
            text = _text(kernel, made, parts)
        except Unknown:
            return None
        module = binding.parse_assembly(text)
        module.name = symbol(kernel.name)
        module.verify()
        _optimise(module, _level(kernel))
        _put_in_place(parts, module)
        return module


def _text(kernel: Kernel, made: ModuleType, parts: Sequence[Kernel] = ()) -> str:
    """The LLVM IR of a kernel that calls its ``parts``. Raises Unknown."""
    from runtime.cpu.translate import translate

    symbols = {part.name: symbol(part.name) for part in parts}
    return translate(kernel.source, kernel.name, vars(made), symbol(kernel.name), FASTMATH, symbols)


@cache
def _part(part: Kernel) -> str:
    """The LLVM IR of a part of kernels, as it is put in place of calls."""
    from llvmlite import binding

    module = binding.parse_assembly(_text(part, load_source(part)))
    module.get_function(symbol(part.name)).add_function_attribute("alwaysinline")
    _tidy(module, binding.create_new_module_pass_manager())
    return str(module)


def _put_in_place(parts: Sequence[Kernel], module: ModuleRef) -> None:
    """The code of ``parts`` instead of their calls."""
    from llvmlite import binding

    if not parts:
        return
    for part in parts:
        module.link_in(binding.parse_assembly(_part(part)))
        module.get_function(symbol(part.name)).linkage = "internal"
    passes = binding.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    _tidy(module, passes)


def _tidy(module: ModuleRef, passes: ModulePassManager) -> None:
    """Run ``passes``, and few others: they find what has become constant, or is not needed any more."""
    from llvmlite import binding

    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, binding.create_pass_builder(_machine(1), binding.create_pipeline_tuning_options(speed_level=1)))


def _lower(function: Any, name: str) -> ModuleRef:
    """The optimised LLVM module of ``function``, in which ``name`` is the one symbol seen from outside.

    A cfunc would compile itself into Numba's own engine under a name that counts up; here the module is taken
    before that, so that object code depends on nothing but the source, and is optimised and emitted once.
    """
    from numba import types
    from numba.core.ccallback import CFunc
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target

    options = {"nopython": True, "error_model": "numpy", "fastmath": set(FASTMATH), "_nrt": False}
    _machine(3)  # Numba's own engine emits what the kernel calls, and needs the assembler that this sets up
    with global_compiler_lock:
        cpu_target.typing_context.refresh()  # loads all that Numba knows of
        cpu_target.target_context.refresh()
        callback: Any = CFunc(function, ((types.int64,) * 4, types.void), {}, options)
        result = callback._compile_uncached()
        library = result.library
        module = library._final_module
        for other in library._linking_libraries:
            module.link_in(other._get_module_for_linking(), preserve=True)
        _keep_only(module, result.fndesc.llvm_cfunc_wrapper_name, name)
        _optimise(module, level=3)
        module.verify()
        return module


def _keep_only(module: ModuleRef, entry: str, name: str) -> None:
    """Export the function ``entry`` alone, as ``name``; Numba's names, which count up, give way to plain ones."""
    module.name = name
    defined = [f for f in module.functions if not f.is_declaration]
    for number, function in enumerate(f for f in defined if f.name != entry):
        function.name = f"{name}.{number}"
        function.linkage = "internal"
    module.get_function(entry).name = name
    for number, data in enumerate(module.global_variables):
        if not data.is_declaration:
            data.name = f"{name}.data{number}"
            data.linkage = "internal"


@cache
def _machine(level: int) -> TargetMachine:
    """This processor, with position-independent code: constants sit beside the code that reads them."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()  # for inline assembly
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=level,
        reloc="pic",
        codemodel="small",
    )


def _level(kernel: Kernel) -> int:
    """How hard LLVM tries, up to 3. Generated kernels are written as they are to be; others are what users write, and
    loops that read at more places than there are registers for, as at the taps of depthwise windows."""
    return 3 if kernel.libm or "depthwise" in kernel.name else 1


def _optimise(module: ModuleRef, level: int) -> None:
    from llvmlite import binding

    options = binding.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = True
    options.loop_interleaving = True
    # Vectorised loops are interleaved by now. Unrolling what else there is (strided loops, remainders of a few steps)
    # costs compile time and made the slowest kernels slower: weight gradients of convolutions by 40 %.
    options.loop_unrolling = False
    options.slp_vectorization = False
    builder = binding.create_pass_builder(_machine(level), options)
    builder.getModulePassManager().run(module, builder)


@contextmanager
def _addresses_of(kernel: Kernel) -> Iterator[None]:
    """Below level 3 the code generator takes addresses as they are written: to look for other induction variables
    takes it a third of its time. An option of LLVM holds for the whole process, so nobody else compiles meanwhile."""
    from llvmlite import binding
    from numba.core.compiler_lock import global_compiler_lock

    with global_compiler_lock:
        binding.set_option("tenon", f"-disable-lsr={'true' if _level(kernel) < 3 else 'false'}")
        try:
            yield
        finally:
            binding.set_option("tenon", "-disable-lsr=false")


def expect(nodes: int) -> None:
    """A graph of so many nodes is about to be compiled: helpers may start while passes run."""
    helpers.call(WORKER, min(thread_count() - 1, nodes // _NODES_OF_A_HELPER))


def get_ready() -> None:
    """Import and set up now what the first kernel would have to wait for."""
    from runtime.cpu import translate

    translate.get_ready(FASTMATH)
    _machine(1)


def compile_kernels(
    kernels: Sequence[Kernel], workers: int | None = None, seconds: dict[str, float] | None = None
) -> dict[str, bytes]:
    """The object code of each kernel, by key; see :func:`runtime.side_by_side.side_by_side`."""
    return side_by_side(kernels, compile_kernel, WORKER, _WORTH_A_HELPER, workers=workers, seconds=seconds)
