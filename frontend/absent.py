"""What PyTorch has and Tenon does not: the error says what to use instead."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import UnsupportedError

FUNCTIONS = {
    "cuda": "programs run where tn.compile is told to",
    "enable_grad": "no tape is kept: gradients flow only where tn.grad or minimize ask for them",
    "manual_seed": "it is called tn.seed",
    "no_grad": "no tape is kept: gradients flow only where tn.grad or minimize ask for them; x.detach() stops them",
    "unique": "how many elements it gives only the running program knows; use tn.sort, or tn.bincount with minlength",
}
METHODS = {
    "copy_": "tensors never change; use the other tensor, and parameter.assign(value) for a parameter",
    "cuda": "tensors live on the cpu; choose where a program runs in tn.compile",
    "data": "a tensor never changes; x.detach() stops gradients, and x.numpy() is the array of a known one",
    "fill_": "tensors never change; use tn.full_like",
    "grad": "tensors keep no gradient; take gradients with tn.grad(f), or call optimizer.minimize(loss)",
    "register_hook": "there is no tape to hook into; take gradients with tn.grad(f) and change what it gives",
    "requires_grad_": "only parameters are trained; take gradients by any tensor with tn.grad(f)",
    "retain_grad": "tensors keep no gradient; take gradients with tn.grad(f)",
    "stride": "a tensor has no strides: the compiler chooses where elements lie",
    "unique": FUNCTIONS["unique"],
    "zero_": "tensors never change; use tn.zeros_like",
}


class AbsentError(UnsupportedError, AttributeError):
    """PyTorch has it and Tenon does not."""


def explain(name: str, owner: object, instead: Mapping[str, str]) -> AttributeError:
    """The error for ``owner.name``, which does not exist; ``instead`` says what stands in place of names."""
    if name in instead:
        return AbsentError(f"there is no {name}: {instead[name]}")
    plain = name.removesuffix("_")
    if plain != name and not name.startswith("_") and hasattr(owner, plain):
        return AbsentError(f"there is no {name}(): tensors never change; write x = x.{plain}(...)")
    return AttributeError(f"{getattr(owner, '__name__', owner)} has no attribute {name!r}", name=name)


class Absent:
    """Explains what is missing in those that inherit from it."""

    __slots__ = ()

    def __getattr__(self, name: str) -> object:
        raise explain(name, type(self), METHODS)
