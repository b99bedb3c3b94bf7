"""TensorBoard's event files: numbers by name and step, as records that need no library to be written.

A record is its length, a checksum of that, the message and a checksum of it: TFRecord's framing, as TensorFlow's
``record_writer.h`` describes it. The messages are protocol buffers (``event.proto``, ``summary.proto``), of which a
scalar takes six fields.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

_POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), its bits reversed


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ _POLYNOMIAL * (byte & 1)
        table.append(byte)
    return table


_CRC = _table()


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked so that the checksum of data that holds checksums stays meaningful."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


class EventFile:
    """A new file in ``folder``, which is made where it is missing."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        host = os.uname().nodename if hasattr(os, "uname") else "host"
        self.path = folder / f"events.out.tfevents.{now:.6f}.{host}.{os.getpid()}"
        self._file: IO[bytes] = self.path.open("xb")
        self._write(struct.pack("<Bd", 1 << 3 | 1, now) + _message(3, b"brain.Event:2"))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """The values of ``scalars`` at ``step``; they are in the file when this returns."""
        values = b"".join(
            _message(1, _message(1, name.encode()) + struct.pack("<Bf", 2 << 3 | 5, value))
            for name, value in scalars.items()
        )
        moment = struct.pack("<Bd", 1 << 3 | 1, time.time())
        self._write(moment + bytes([2 << 3]) + _varint(step) + _message(5, values))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))
        self._file.flush()
