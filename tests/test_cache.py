"""The compile cache: what it keeps, what it refuses, and what a second process gains from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_kernels import ADD, accumulate, chain, variants

from engine import dims, settings
from engine.buffers import Buffer
from engine.dtypes import f32
from engine.errors import CacheError, CompileError
from engine.program import Block, Call, Kernel, Pointer, Program
from engine.program_json import from_json, to_json
from runtime import cache as caching
from runtime import helpers
from runtime.cache import OBJECT, PROGRAM, Cache, digest
from runtime.cpu import loading
from runtime.cpu.compile import WORKER, compile_kernel, compile_kernels, inspect_kernel
from runtime.cpu.loading import build
from runtime.cpu.objects import link, symbol
from runtime.fingerprint import code_version, numba_version

ROOT = Path(__file__).parent.parent
HERE = {"CPU": "znver5", "numba": "1.0"}
KEY = digest("a kernel")


@pytest.fixture
def forget(monkeypatch):
    """As in a fresh process: no machine code is in memory."""
    monkeypatch.setattr(loading, "_in_memory", {})
    return lambda: loading._in_memory.clear()


def entry(folder, kind=OBJECT):
    (path,) = (folder / kind).iterdir()
    return path


def run(executor):
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    (y,) = executor.run([x])
    assert np.array_equal(y, 3 * x)


# --- entries -----------------------------------------------------------------------------------------------


def test_an_entry_comes_back_as_it_was_stored(tmp_path):
    cache = Cache(tmp_path / "new" / "folder")
    assert cache.load(OBJECT, KEY, HERE, "k") is None
    cache.store(OBJECT, KEY, HERE, b"code")
    assert cache.load(OBJECT, KEY, HERE, "k") == b"code"
    assert cache.load(PROGRAM, KEY, HERE, "k") is None
    assert [x.outcome for x in cache.lookups] == ["absent", "hit", "absent"]
    info = cache.info()
    assert (info["objects"], info["programs"]) == (1, 0)
    assert cache.clear() == 1 and cache.load(OBJECT, KEY, HERE, "k") is None


def test_no_flipped_bit_and_no_cut_goes_unnoticed(tmp_path):
    cache = Cache(tmp_path)
    cache.store(OBJECT, KEY, HERE, b"payload")
    path = entry(tmp_path)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        assert cache.load(OBJECT, KEY, HERE, "k") is None, f"byte {at}"
        path.write_bytes(good[:at])
        assert cache.load(OBJECT, KEY, HERE, "k") is None, f"cut at {at}"
    path.write_bytes(good + b"\0")
    assert cache.load(OBJECT, KEY, HERE, "k") is None
    path.write_bytes(good)
    assert cache.load(OBJECT, KEY, HERE, "k") == b"payload"
    reasons = {x.outcome for x in cache.lookups}
    assert "damaged: its checksum does not match" in reasons and "damaged: it is cut short" in reasons


def test_the_entry_of_another_key_is_foreign(tmp_path):
    cache = Cache(tmp_path)
    cache.store(OBJECT, digest("other"), HERE, b"other")
    os.rename(entry(tmp_path), cache._path(OBJECT, KEY, HERE))
    assert cache.load(OBJECT, KEY, HERE, "k") is None
    assert cache.lookups[-1].outcome == "damaged: it holds the entry of another key"


def test_keys_do_not_run_together():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")


def test_explain_tells_what_the_other_entry_is_for(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    cache.store(OBJECT, KEY, HERE | {"CPU": "skylake", "features": "x" * 99}, b"")
    monkeypatch.setattr(caching, "cpu_environment", lambda: HERE)
    cache.load(OBJECT, KEY, HERE, "add")
    text = cache.explain()
    assert "object add: absent" in text
    assert "there is one for CPU skylake (here znver5), other features" in text
    assert "1 lookups, 0 hits, 1 misses" in text


def test_there_may_be_no_cache(monkeypatch):
    monkeypatch.setenv("TENON_CACHE", "0")
    cache = caching.asked_for(settings.get("cache"))
    cache.store(OBJECT, KEY, HERE, b"x")
    assert cache.load(OBJECT, KEY, HERE, "k") is None
    assert cache.info()["folder"] is None and cache.clear() == 0
    assert "none, TENON_CACHE=0" in cache.explain() and "disabled: TENON_CACHE=0" in cache.explain()


def test_the_environment_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("TENON_CACHE", raising=False)
    monkeypatch.setenv("TENON_CACHE", str(tmp_path / "mine"))
    assert caching.asked_for(settings.get("cache")).folder == tmp_path / "mine"
    monkeypatch.delenv("TENON_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert caching.asked_for(settings.get("cache")).folder == tmp_path / "xdg" / "tenon"
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.warns(RuntimeWarning, match="tenon cannot be created .*; set TENON_CACHE"):
            cache = caching.asked_for(settings.get("cache"))
        assert cache.folder is None and "set TENON_CACHE" in cache.reason


def test_a_folder_that_cannot_be_made_is_told_once_and_done_without(python, tmp_path):
    (tmp_path / "file").write_text("")
    line = "print(tn.compile(lambda x: x + 1, tn.spec(1))(np.ones(1, 'f')))\n"
    script = f"import numpy as np, tenon as tn\n{line}{line}"
    found = python("-c", script, TENON_CACHE=str(tmp_path / "file" / "cache"))
    assert found.stdout == "[2.]\n[2.]\n"
    assert found.stderr.count("Tenon has no compile cache") == 1 and "Traceback" not in found.stderr


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes are POSIX")


@posix
def test_the_folder_is_private(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    Cache(tmp_path / "open")
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "open" / "object").stat().st_mode & 0o777 == 0o700


@posix
def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(CacheError, match="its mode 0777 lets others write to it"):
        Cache(tmp_path)


@posix
def test_another_users_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(CacheError, match="it belongs to user"):
        Cache(tmp_path)


def test_a_disk_that_cannot_be_written_does_no_harm(tmp_path):
    cache = Cache(tmp_path)
    (tmp_path / "object").rmdir()
    cache.store(OBJECT, KEY, HERE, b"x")
    assert cache.load(OBJECT, KEY, HERE, "k") is None
    assert "could not write" in cache.explain() and cache.info()["objects"] == 0


def test_what_has_gone_unused_longest_makes_room(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    for number in range(8):
        cache.store(OBJECT, digest(str(number)), HERE, b"")
        os.utime(cache._path(OBJECT, digest(str(number)), HERE), (number, number))
    assert cache.load(OBJECT, digest("0"), HERE, "used again") == b""
    monkeypatch.setattr(caching, "_MOST_ENTRIES", 8)
    Cache(tmp_path).store(OBJECT, digest("8"), HERE, b"")
    kept = [n for n in range(9) if cache.load(OBJECT, digest(str(n)), HERE, "") is not None]
    assert kept == [0, 3, 4, 5, 6, 7, 8]


# --- programs ----------------------------------------------------------------------------------------------


def test_a_program_survives_json(tmp_path):
    b = dims.dim("B")
    assumption = dims.Assumption(b % 4, "== 0", "B is a multiple of 4")  # type: ignore[arg-type]
    call = Call("k", "label", (Block((Pointer("x", 4 * b), Block(()), b // 2 + 1)), Block((7,))), b, ("x",), ("y",), 64)
    const = Buffer("c", "const", f32, 2)
    program = Program(
        "p", (), (), (), (), (const,), (call,), (call,), assumptions=(assumption,), constants={"c": b"\0\xff" * 4}
    )
    for p in (program, accumulate(), chain(3)):
        assert from_json(to_json(p)) == p
    cache = Cache(tmp_path)
    cache.store_program("key", program)
    assert cache.load_program("key") == program
    assert cache.load_program("other key") is None
    assert cache.load_program("key", environment=HERE) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', to_json(chain(1))[:-5], '{"format": 1, "name": 3}'])
def test_what_is_not_a_program_is_a_miss(tmp_path, text):
    cache = Cache(tmp_path)
    cache.store(PROGRAM, digest("key"), HERE, text.encode())
    assert cache.load_program("key", environment=HERE) is None
    assert cache.lookups[-1].outcome.startswith("damaged: ")
    assert cache.info()["programs"] == 0


# --- object code -------------------------------------------------------------------------------------------


def test_compiling_twice_gives_the_same_object():
    assert compile_kernel(ADD) == compile_kernel(ADD)
    llvm, assembly = inspect_kernel(ADD)
    assert "define" in llvm and symbol("add") in assembly


def test_a_second_executor_shares_the_code_and_a_second_process_loads_it(tmp_path, forget):
    executor, report = build(chain(2), {}, Cache(tmp_path))
    run(executor)
    assert (report.compiled, report.loaded, report.shared) == (2, 0, 0)
    executor, report = build(chain(2), {}, Cache(tmp_path))
    assert (report.compiled, report.loaded, report.shared) == (0, 0, 2)
    forget()
    executor, report = build(chain(2), {}, Cache(tmp_path))
    run(executor)
    assert (report.compiled, report.loaded, report.shared) == (0, 2, 0)


def cut(path, others):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path, others):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def swap(path, others):
    path.write_bytes(others[0].read_bytes())


def well_formed_garbage(path, others):
    header, _ = caching._unpack(path.read_bytes())
    path.write_bytes(caching._pack(header, b"no object code"))


@pytest.mark.parametrize("spoil", [cut, flip, swap, well_formed_garbage])
def test_a_spoiled_entry_is_compiled_anew(tmp_path, forget, spoil):
    cache = Cache(tmp_path)
    build(chain(2), {}, cache)
    first, second = sorted((tmp_path / OBJECT).iterdir())
    spoil(first, [second])
    forget()
    executor, report = build(chain(2), {}, cache)
    run(executor)
    assert (report.compiled, report.loaded) == (1, 1)
    assert "damaged" in cache.explain()
    forget()
    assert build(chain(2), {}, cache)[1].loaded == 2


def test_object_code_that_calls_anything_else_is_refused(tmp_path):
    with pytest.raises(CompileError) as raised:
        compile_kernel(Kernel("h", "0" * 64, CALLS_OUT))
    text = str(raised.value)
    assert "the kernel 'h' does not compile: the object code does not link" in text
    assert "it calls no_such_function" in text and "    9 def h(args, lo, hi, scratch):" in text
    with pytest.raises(CompileError, match="does not link"):
        link(b"not an object", "entry")
    with pytest.raises(CompileError, match="does not link"):
        link(compile_kernel(ADD), "another_entry")


CALLS_OUT = """
from numba import types

from runtime.cpu.intrinsics import slot

outside = types.ExternalFunction("no_such_function", types.int64(types.int64))


def h(args, lo, hi, scratch):
    outside(slot(args, 0))
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_names_the_kernel_and_shows_its_source(workers):
    broken = Kernel("broken", "1" * 64, "def broken(args, lo, hi, scratch):\n    return args.nothing\n")
    with pytest.raises(CompileError) as raised:
        compile_kernels([*variants(4), broken] if workers else [broken], workers)
    assert "the kernel 'broken' does not compile: TypingError" in str(raised.value)
    assert "    2     return args.nothing" in str(raised.value)


# --- processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [None, "import sys; sys.exit(3)", "input(); import os; os._exit(3)", "print('?')"])
def test_workers_share_the_compiling_and_may_die(monkeypatch, command):
    kernels = variants(5)
    if command:

        def dying(worker):
            return subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        helpers._dismiss_all()
        monkeypatch.setattr(helpers, "_start", dying)
    code = compile_kernels(kernels, workers=2)
    assert code.keys() == {k.key for k in kernels}
    assert code[kernels[3].key] == compile_kernel(kernels[3])


def test_helpers_are_kept_for_the_next_program():
    helpers._dismiss_all()
    first, second = variants(10)[:5], variants(10)[5:]
    compile_kernels(first, workers=1)
    assert helpers.idle(WORKER) == 1
    (kept,) = helpers._idle
    compile_kernels(second, workers=1)
    assert helpers._idle == [kept] and kept.alive
    kept._process.kill()
    kept._process.wait()
    assert compile_kernels(first, workers=1).keys() == {k.key for k in first}
    assert helpers._idle != [kept]


def test_a_forked_child_leaves_its_parents_helpers_alone():
    compile_kernels(variants(4), workers=1)
    child = os.fork()
    if not child:
        os._exit(helpers.idle(WORKER))
    assert os.waitpid(child, 0)[1] == 0 and helpers.idle(WORKER) == 1


PROCESS = """
import json, sys
from pathlib import Path
import numpy as np
from runtime.cache import Cache
from runtime.cpu.loading import build
from tiny_kernels import chain
executor, report = build(chain(3), {}, Cache(Path(sys.argv[1])))
x = np.ones((5, 4), np.float32)
assert (executor.run([x])[0] == 4).all()
print(json.dumps({"compiled": report.compiled, "numba": "numba" in sys.modules, "networkx": "networkx" in sys.modules}))
"""


def start(folder):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", PROCESS, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path})


def test_two_processes_may_fill_one_folder_and_a_third_needs_no_numba(tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    found = [json.loads(p.communicate(timeout=60)[0]) for p in both]
    assert any(f["compiled"] for f in found)
    assert Cache(tmp_path).info()["objects"] == 2
    assert not list(tmp_path.rglob(".*")), "temporary files are left"
    third = json.loads(start(tmp_path).communicate(timeout=60)[0])
    assert third == {"compiled": 0, "numba": False, "networkx": False}


def test_versions_are_known_without_importing():
    import numba

    assert numba_version() == numba.__version__
    assert len(code_version("runtime")) == 64 and code_version("runtime") != code_version("engine")
