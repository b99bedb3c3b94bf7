"""Files of training: whole or not there, and training that goes on from them as if it had never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenon as tn
from engine.errors import StateError
from frontend import random
from tenon import checkpoints, nn, optim
from tenon.callbacks import Callback, EarlyStopping, ModelCheckpoint

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(1)
X = RNG.normal(size=(50, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 50)


def trainer(target: str = "reference") -> tn.Trainer:
    tn.seed(7)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = optim.AdamW(model.parameters(), lr=0.01, clip_norm=1.0, accumulate=2, ema=0.9)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    metrics = ["accuracy", tn.metrics.F1(class_id=1)]
    return tn.Trainer(
        model, optimizer, nn.CrossEntropyLoss(), metrics, scheduler=scheduler, schedule_every="batch", target=target
    )


def everything(t: tn.Trainer) -> dict[str, np.ndarray]:
    assert t.optimizer is not None
    state = {**t.model.state_dict(), **{f"o.{k}": v for k, v in t.optimizer.state_dict().items()}}
    return state | {"step": np.array(random.default.step.array), "next": random.default.generator.random(3)}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        np.testing.assert_array_equal(value, b[key], err_msg=key)


class StopAfter(Callback):
    """Breaks training off after so many batches, as a crash would."""

    def __init__(self, batches: int):
        self.left = batches

    def on_batch_end(self, batch: int, logs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("crashed")


@pytest.mark.parametrize("batches", [2, 5, 6, 7, 10, 14])
def test_resuming_is_as_if_training_had_never_stopped(batches: int, tmp_path: Path) -> None:
    """There are five batches an epoch."""
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "validation_split": 0.2}

    def callbacks(crash_after: int) -> list[Callback]:
        stopping = EarlyStopping("loss", patience=9, restore_best_weights=True)
        return [stopping, StopAfter(crash_after), ModelCheckpoint(tmp_path / "run", save_freq=1)]

    straight = trainer()
    history = straight.fit(X, Y, callbacks=callbacks(999), **options)
    expected = everything(straight)
    with pytest.raises(RuntimeError, match="crashed"):
        trainer().fit(X, Y, callbacks=callbacks(batches), **options)
    again = trainer()
    random.default.generator.random(99)  # whatever happened in between
    resumed = again.fit(X, Y, callbacks=callbacks(999), resume=tmp_path / "run", **options)
    assert resumed.history == history.history
    assert_same(everything(again), expected)


def test_saving_and_loading_everything(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    first = trainer()
    first.fit(X, Y, epochs=2, batch_size=16)
    first.save(path)
    state = everything(first)
    other = trainer()
    other.load(path)
    assert_same(everything(other), state)
    first.save_weights(tmp_path / "weights.safetensors")
    third = trainer()
    third.load_weights(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(third.predict(X), first.predict(X))
    tn.save(first.model.state_dict(), tmp_path / "plain.safetensors")
    third.model.load_state_dict(tn.load(tmp_path / "plain.safetensors"))
    with pytest.raises(StateError, match="no state of training"):
        third.load(tmp_path / "plain.safetensors")


def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    first = trainer()
    first.fit(X, Y, batch_size=25)
    first.save(path)
    data = path.read_bytes()
    other = trainer()
    before = other.model.state_dict()
    for damaged in (data[:-9], data[: len(data) // 2], b"", b"nonsense" * 9, data[:8] + b"x" + data[9:]):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match="all.safetensors is no whole safetensors file"):
            other.load(path)
    path.write_bytes(data)
    sgd = tn.Trainer(other.model, optim.SGD(other.model.parameters(), lr=0.1, momentum=0.9), nn.CrossEntropyLoss())
    with pytest.raises(StateError, match="does not fit this SGD"):
        sgd.load(path)
    small = tn.Trainer(nn.Linear(6, 3), optim.SGD(nn.Linear(6, 3).parameters()), nn.CrossEntropyLoss())
    with pytest.raises(StateError, match="does not fit Linear, and nothing was loaded"):
        small.load(path)
    for key, value in other.model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    with pytest.raises(StateError, match=r"written with the callbacks \['History'\]"):
        other.fit(X, Y, resume=path, callbacks=[ModelCheckpoint(path)])


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    checkpoints.save({"x": np.arange(3)}, path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save({"x": np.zeros(3)}, path)
    np.testing.assert_array_equal(checkpoints.load(path)["x"], np.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_checkpoints_by_name_and_number(tmp_path: Path) -> None:
    t = trainer()
    name = str(tmp_path / "{epoch:02d}-{loss:.1f}.safetensors")
    t.fit(X, Y, epochs=4, batch_size=25, callbacks=[ModelCheckpoint(name, keep=2)])
    assert sorted(p.name[:2] for p in tmp_path.iterdir()) == ["03", "04"]
    best = ModelCheckpoint(tmp_path / "best", "loss", save_best_only=True, save_weights_only=True)
    t.fit(X, Y, epochs=1, batch_size=25, callbacks=[best])
    assert set(checkpoints.load(tmp_path / "best")) == set(t.model.state_dict())
    with pytest.raises(tn.TenonError, match="names 'val_loss'"):
        t.fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "{val_loss}")])


# --- processes that are killed -------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
import numpy as np
sys.path.insert(0, {tests!r})
import test_checkpoints as this
from pathlib import Path
from tenon.callbacks import Callback, ModelCheckpoint

path, done = Path(sys.argv[1]), Path(sys.argv[2])

class Slow(Callback):
    def on_batch_end(self, batch, logs):
        import time
        time.sleep(0.004)

t = this.trainer("cpu")
history = t.fit(this.X, this.Y, epochs=24, batch_size=8, validation_split=0.2,
                callbacks=[Slow(), ModelCheckpoint(path, save_freq=2)], resume=path if path.exists() else None)
np.savez(done, history=json.dumps(history.history), **this.everything(t))
"""


def start(script: Path, *arguments: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, str(script), *map(str, arguments)], env=environment)


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(ROOT / "tests")))
    straight, killed = tmp_path / "straight.npz", tmp_path / "killed.npz"
    assert start(script, tmp_path / "s.safetensors", straight).wait(timeout=300) == 0
    moments = np.random.default_rng(0)
    path = tmp_path / "k.safetensors"
    kills = 0
    while not killed.exists():
        process = start(script, path, killed)
        if kills < 20:
            seen = path.stat().st_mtime_ns if path.exists() else 0
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:  # some progress, then any moment
                if path.exists() and path.stat().st_mtime_ns != seen:
                    break
                time.sleep(0.001)
            time.sleep(float(moments.uniform(0, 0.03)))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        assert process.wait(timeout=300) in (0, -signal.SIGKILL)
    assert kills >= 20
    with np.load(straight) as a, np.load(killed) as b:
        assert json.loads(str(a["history"])) == json.loads(str(b["history"]))
        assert_same({k: a[k] for k in a.files if k != "history"}, {k: b[k] for k in b.files if k != "history"})


@pytest.mark.slow
def test_ctrl_c_leaves_a_usable_model_and_history(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import test_checkpoints as this
from tenon.callbacks import LambdaCallback
t = this.trainer()
ready = LambdaCallback(on_batch_end=lambda batch, logs: print("batch", flush=True))
history = t.fit(this.X, this.Y, epochs=10**6, batch_size=8, callbacks=[ready])
t.predict(this.X)
print("interrupted", history.interrupted, len(history.epoch) > 0, flush=True)
""")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):
        assert process.stdout.readline() == "batch\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out.endswith("interrupted True True\n"), err


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(tmp_path: Path) -> None:
    found = []
    for threads in (1, 2, 2):
        tn.set_num_threads(threads)
        try:
            t = trainer("cpu")
            history = t.fit(X, Y, epochs=3, batch_size=8, validation_split=0.2)
            found.append({**everything(t), "losses": np.array(history.history["val_loss"])})
        finally:
            tn.set_num_threads(2)
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])
