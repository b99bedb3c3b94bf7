"""The compile cache as a user meets it: a second process, damaged entries, two processes at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tenon as tn
from runtime import cache as caching
from runtime.cache import OBJECT, PROGRAM, Cache
from runtime.cpu import loading
from tenon import F, nn, optim

# --- the seed's CNN in processes of its own -------------------------------------------------------------------

CNN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from oracle_cases import BATCH, batches, cnn, weights
import tenon as tn
from tenon import F, nn, optim

model = cnn(nn)
model.load_state_dict(weights("cnn"))
specs = [tn.spec("B", 1, 28, 28), tn.spec("B", dtype="i64")]
step = tn.train_step(model, F.cross_entropy, optim.Adam(model.parameters(), lr=1e-3), specs)
x, y = batches("cnn")
losses = [step(x[i], y[i]).tobytes().hex() for i in range(2)]
report = step.executable.report
loaded = [name for name in ("numba", "networkx") if name in sys.modules]
print(json.dumps({"losses": losses, "program": report.from_cache, "compiled": report.compiled, "loaded": loaded}))
"""


@pytest.mark.slow
def test_a_second_process_starts_the_cnn_without_numba(python):
    """The first fills the session's cache, unless an earlier test has; the second finds all of it there."""
    first, second = (json.loads(python("-c", CNN, Path(__file__).parent).stdout) for _ in range(2))
    assert second == {"losses": first["losses"], "program": True, "compiled": 0, "loaded": []}


# --- a small model in this process and others ----------------------------------------------------------------


def train() -> tuple[list[float], tn.Executable]:
    """Two steps of a linear classifier."""
    tn.seed(0)
    model = nn.Linear(3, 2)
    specs = [tn.spec("B", 3), tn.spec("B", dtype="i64")]
    step = tn.train_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1), specs)
    x, y = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 1, 0])
    return [float(step(x, y)) for _ in range(2)], step.executable


Fresh = Callable[[], tuple[list[float], tn.Executable, Cache]]


def as_in_a_fresh_process(folder: Path, patch: pytest.MonkeyPatch) -> tuple[list[float], tn.Executable, Cache]:
    """Trains with the cache in ``folder``, and no machine code in memory yet."""
    cache = Cache(folder)
    patch.setattr(caching, "default", lambda: cache)
    patch.setattr(loading, "_in_memory", {})
    return *train(), cache


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> tuple[Path, list[float], int]:
    """A cache that holds the small model's training step alone, its losses, and how many kernels it took."""
    folder = tmp_path_factory.mktemp("filled") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        losses, executable, _ = as_in_a_fresh_process(folder, patch)
    return folder, losses, executable.report.compiled


@pytest.fixture
def fresh(filled, tmp_path, monkeypatch) -> Fresh:
    """Trains as a second process would, on a copy of the filled cache."""
    shutil.copytree(filled[0], tmp_path / "cache")
    return lambda: as_in_a_fresh_process(tmp_path / "cache", monkeypatch)


def entries(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / kind).iterdir())


def flip(data: bytes, index: int) -> bytes:
    """``data`` with one bit of the byte at ``index`` changed."""
    changed = bytearray(data)
    changed[index] ^= 1 << index % 8
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut in its head": lambda data: data[:20],
    "cut in half": lambda data: data[: len(data) // 2],
    "an ELF file": lambda data: b"\x7fELF" + data,
    "first byte flipped": lambda data: flip(data, 0),
    "checksum flipped": lambda data: flip(data, 30),
    "header flipped": lambda data: flip(data, 80),
    "middle flipped": lambda data: flip(data, len(data) // 2),
    "last byte flipped": lambda data: flip(data, -1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_entries_are_made_anew(filled, fresh, tmp_path, damage):
    """The program and one kernel of it are damaged; the rest of the cache serves."""
    _, expected, kernels = filled
    paths = [entries(tmp_path / "cache", kind)[0] for kind in (PROGRAM, OBJECT)]
    good = [path.read_bytes() for path in paths]
    for path, data in zip(paths, good, strict=True):
        path.write_bytes(DAMAGE[damage](data))
    losses, executable, cache = fresh()
    report = executable.report
    assert losses == expected
    assert (report.from_cache, report.compiled, report.loaded) == (False, 1, kernels - 1)
    assert cache.explain().count("damaged: ") == 2
    assert [path.read_bytes() for path in paths] == good, "they were stored anew"


def test_entries_of_other_things_are_made_anew(filled, fresh, tmp_path):
    """Every kernel's file holds another one's code, and the program's that of another program."""
    _, expected, kernels = filled
    losses, executable, _ = fresh()
    assert losses == expected and executable.report.from_cache and executable.report.loaded == kernels
    tn.compile(lambda x: x.exp(), tn.spec(3))
    for kind in (PROGRAM, OBJECT):
        paths = entries(tmp_path / "cache", kind)
        data = [path.read_bytes() for path in paths]
        for path, other in zip(paths, data[1:] + data[:1], strict=True):
            path.write_bytes(other)
    losses, executable, cache = fresh()
    assert losses == expected
    assert (executable.report.from_cache, executable.report.loaded) == (False, 0)
    assert executable.report.compiled == kernels
    assert "it holds the entry of another key" in cache.explain()


SMALL = """
import sys
sys.path.insert(0, sys.argv[1])
from test_warm_start import train
losses, executable = train()
print(losses, executable.report.compiled, executable.report.from_cache)
"""


@pytest.mark.slow
def test_two_processes_fill_one_cache(python, tmp_path):
    def run(_: object) -> str:
        return python("-c", SMALL, Path(__file__).parent, TENON_CACHE=str(tmp_path / "cache")).stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    third = run(None)
    losses = str(train()[0])
    assert first.startswith(losses) and second.startswith(losses)
    assert third == f"{losses} 0 True"
    assert not [path for path in (tmp_path / "cache").rglob(".*") if path.is_file()], "temporary files are left"
