"""Machine code is compiled once: a process has it in memory, the next one from the cache."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from runtime.cache import CUBIN, Cache
from runtime.cuda import loading
from runtime.cuda.compile import Processor
from runtime.cuda.device import Properties
from runtime.cuda.guards import joined_guards


@dataclass
class Loader:
    """A device that keeps the code which it is given."""

    properties: Properties
    lock: threading.RLock = field(default_factory=threading.RLock)
    loaded: list[bytes] = field(default_factory=list)

    def activate(self) -> None:
        pass

    def load(self, kernel, code):
        self.loaded.append(code)
        return kernel.name


def test_code_is_compiled_loaded_or_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_loaded", {})
    device = Loader(Properties(0, "GPU", (8, 6), 1 << 30, 1, 99 << 10))
    cache, kernel = Cache(tmp_path), joined_guards()

    def counts():
        functions, report = loading.load_functions([kernel], device, cache)
        assert functions == {kernel.key: kernel.name}
        return report.compiled, report.loaded, report.shared

    assert counts() == (1, 0, 0)
    assert counts() == (0, 0, 1)
    loading._loaded.clear()
    assert counts() == (0, 1, 0)
    first, again = device.loaded
    assert first == again and first[:4] == b"\x7fELF"
    here = loading.identity_of(kernel, Processor("sm_80", "sm_86"))
    assert here != loading.identity_of(kernel, Processor("sm_80", "sm_80"))
    assert cache.why(CUBIN, here) == "hit"
