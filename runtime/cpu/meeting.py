"""Where threads meet: in the driver between steps, and inside kernels whose tasks depend on each other."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from runtime.cpu.driver import ARRIVED, GENERATION, GIVE_WAY, SPINS_BEFORE_YIELD

_WORD, _VOID = ir.IntType(64), ir.VoidType()
_ASK = ir.FunctionType(ir.IntType(32), [])
_SPIN_HINTS = {"x86_64": "pause", "aarch64": "isb", "arm64": "isb"}


@intrinsic
def meet(typingctx, meeting, count, total):
    """Wait until ``total`` have arrived, of which this thread is ``count``. ``meeting`` is the address of a block as
    :func:`runtime.cpu.driver.new_meeting` makes it, for these threads alone.

    A central barrier whose generation number takes the place of a sense flag: what a thread wrote before it, all read
    behind it.
    """

    def emit(context, builder, signature, args):
        meeting, count, total = args

        def slot(index: int) -> ir.Value:
            return builder.gep(builder.inttoptr(meeting, _WORD.as_pointer()), [_WORD(index)])

        arrived, generations = slot(ARRIVED), slot(GENERATION)
        generation = builder.load_atomic(generations, "acquire", 8)
        before = builder.atomic_rmw("add", arrived, count, "acq_rel")
        is_last = builder.icmp_signed("==", builder.add(before, count), total)
        with builder.if_else(is_last) as (then, otherwise):
            with then:
                builder.store_atomic(_WORD(0), arrived, "release", 8)
                builder.store_atomic(builder.add(generation, _WORD(1)), generations, "release", 8)
            with otherwise:
                _spin(builder, generations, generation, builder.load(slot(GIVE_WAY)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


def _spin(builder: ir.IRBuilder, generations: ir.Value, generation: ir.Value, give_way: ir.Value) -> None:
    """Wait for another generation, after some turns by giving up the processor, where there is a way to."""
    entry = builder.block
    spin, ask, check, met = (builder.append_basic_block(f"meet.{name}") for name in ("spin", "ask", "check", "met"))
    builder.branch(spin)
    builder.position_at_end(spin)
    spins = builder.phi(_WORD)
    hint = next((h for start, h in _SPIN_HINTS.items() if builder.module.triple.startswith(start)), None)
    if hint:  # the processor gives the core's resources to the sibling thread
        builder.asm(ir.FunctionType(_VOID, []), hint, "~{memory}", [], True)
    patient = builder.icmp_signed("<", spins, _WORD(SPINS_BEFORE_YIELD))
    builder.cbranch(builder.or_(patient, builder.icmp_signed("==", give_way, _WORD(0))), check, ask)
    builder.position_at_end(ask)
    builder.call(builder.inttoptr(give_way, _ASK.as_pointer()), [])
    builder.branch(check)
    builder.position_at_end(check)
    spins.add_incoming(_WORD(0), entry)
    spins.add_incoming(builder.add(spins, _WORD(1)), check)
    now = builder.load_atomic(generations, "acquire", 8)
    builder.cbranch(builder.icmp_signed("==", now, generation), spin, met)
    builder.position_at_end(met)
