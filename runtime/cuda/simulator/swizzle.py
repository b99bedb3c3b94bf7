"""Where TMA and wgmma have the chunks of 16 bytes of a row: exchanged by the bits of the address that count rows."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Address = TypeVar("Address", int, np.ndarray)


def swizzled(address: Address, span: int) -> Address:
    """Where a byte lies that would be at ``address`` if nothing were exchanged: bits 4.. are xor-ed with bits 7.., one
    of them for a ``span`` of 32 bytes, two for 64, three for 128, none for 0."""
    return address if span == 0 else address ^ (address >> 3 & (span - 16))
