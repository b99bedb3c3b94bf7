"""Data sets, files, augmentation and loaders."""

from __future__ import annotations

import gzip
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenon as tn
from tenon import data, nn, optim

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20)


def walked(loader: data.Loader) -> list[tuple[np.ndarray, ...]]:
    return list(loader)


def same(a: list[tuple[np.ndarray, ...]], b: list[tuple[np.ndarray, ...]]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(p, q) for s, t in zip(a, b, strict=True) for p, q in zip(s, t, strict=True)
    )


# --- loaders -------------------------------------------------------------------------------------------------------


def test_batches_in_order() -> None:
    loader = data.Loader((X, Y), 8)
    found = walked(loader)
    assert [len(y) for _, y in found] == [8, 8, 4] and len(loader) == 3 and loader.samples == 20
    np.testing.assert_array_equal(np.concatenate([y for _, y in found]), Y)
    dropped = data.Loader({"x": X, "y": Y}, 8, last="drop")
    assert [len(y) for _, y in dropped] == [8, 8] and len(dropped) == 2 and dropped.samples == 16
    assert [str(s) for s in loader.specs] == ["spec('B', 3, dtype='f32')", "spec('B', dtype='i64')"]


class Squares:
    """A data set of Python's own kind."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if index == 99:
            raise ValueError("broken")
        return np.full((1, 4, 4), index, np.float32), index


def jitter(sample: tuple[Any, ...], generator: np.random.Generator) -> tuple[Any, ...]:
    return sample[0] + generator.normal(size=sample[0].shape), sample[1]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(workers: int) -> None:
    plain, threaded = (
        data.Loader(Squares(), 4, shuffle=True, seed=5, transform=jitter, workers=w) for w in (0, workers)
    )
    for _ in range(2):
        assert same(walked(plain), walked(threaded))
    first = walked(data.Loader((X, Y), 4, shuffle=True, seed=5))
    assert not same(first, walked(data.Loader((X, Y), 4, shuffle=True, seed=6)))
    assert sorted(np.concatenate([y for _, y in first])) == list(Y)


@pytest.mark.slow
def test_processes_change_nothing() -> None:
    plain, apart = (
        data.Loader(Squares(), 4, shuffle=True, transform=jitter, workers=w, processes=w > 0) for w in (0, 2)
    )
    assert same(walked(plain), walked(apart))


def test_going_on_in_the_middle_of_an_epoch() -> None:
    read: list[int] = []

    class Noted(Squares):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            read.append(index)
            return super().__getitem__(index)

    loader = data.Loader(Noted(), 4, shuffle=True, seed=1)
    whole = [walked(loader), walked(loader)]
    begun = data.Loader(Noted(), 4, shuffle=True, seed=1)
    walked(begun)
    batches = iter(begun)
    for _ in range(3):
        next(batches)
    state = begun.state_dict()
    assert state == {"epoch": 1, "batch": 3}
    resumed = data.Loader(Noted(), 4, shuffle=True, seed=1)
    resumed.load_state_dict(state)
    read.clear()
    assert same(walked(resumed), whole[1][3:]) and len(read) == 23 - 12
    assert resumed.state_dict() == {"epoch": 2, "batch": 0}


def test_leaving_early_leaves_no_thread() -> None:
    before = threading.active_count()
    for _ in data.Loader(Squares(), 2, workers=3):
        break
    batches = iter(data.Loader(Squares(), 2, workers=3))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_its_sample(workers: int) -> None:
    class Broken(Squares):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return super().__getitem__(99 if index == 7 else index)

    with pytest.raises(ValueError, match="broken") as caught:
        walked(data.Loader(Broken(), 4, workers=workers))
    assert caught.value.__notes__ == ["while sample 7 was made"]


@pytest.mark.parametrize("workers", [0, 1])
def test_iterables(workers: int) -> None:
    def numbers() -> Any:
        yield from ((np.float32(i), i) for i in range(21))

    plain = walked(data.Loader(numbers, 8, workers=workers))
    assert [len(y) for _, y in plain] == [8, 8, 5]
    mixed = data.Loader(numbers, 8, shuffle=True, buffer=6, workers=workers)
    first, second = walked(mixed), walked(mixed)
    assert sorted(np.concatenate([y for _, y in first])) == list(range(21)) and not same(first, second)
    with pytest.raises(TypeError, match="no length"):
        len(mixed)


def test_stats_say_how_long_was_waited() -> None:
    import time

    def slow(sample: tuple[Any, ...], generator: np.random.Generator) -> tuple[Any, ...]:
        time.sleep(0.001)
        return sample

    loader = data.Loader(Squares(), 4, transform=slow)
    walked(loader)
    assert loader.stats.batches == 6 and loader.stats.share > 0.5


def test_the_trainer_takes_a_loader() -> None:
    tn.seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    model = nn.Linear(4, 2)
    trainer = tn.Trainer(
        model, optim.Adam(model.parameters(), lr=0.1), nn.CrossEntropyLoss(), ["accuracy"], target="reference"
    )
    history = trainer.fit(
        data.Loader((x, y), 16, shuffle=True, workers=1), epochs=6, validation_data=data.Loader((x, y), 50)
    )
    assert history.history["val_accuracy"][-1] > 0.9
    assert np.isclose(trainer.evaluate(data.Loader((x, y), 16))["loss"], trainer.evaluate(x, y)["loss"], rtol=1e-5)
    assert trainer.predict(data.Loader(x, 16)).shape == (90, 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: data.Loader((X, Y), 0), "batch_size is 0"),
        (lambda: data.Loader((X, Y), last="pad"), 'must be "keep" or "drop"'),
        (lambda: data.Loader((X, Y[:3])), "as many rows each"),
        (lambda: data.Loader((X[:0], Y[:0])), "at least one sample"),
        (lambda: data.Loader(iter([1])), "give the function that makes the generator"),
        (lambda: data.Loader(3), "not int"),
        (lambda: walked(data.Loader([np.zeros(2), np.zeros(3)], 2)), r"differ in shape: \[\(\(2,\),\), \(\(3,\),\)\]"),
    ],
)
def test_messages(make: Any, words: str) -> None:
    with pytest.raises(tn.TenonError, match=words):
        make()


# --- data sets and files ---------------------------------------------------------------------------------------------


def test_parts_of_data_sets() -> None:
    parts = data.random_split(data.ArrayDataset(X, Y), [0.5, 0.25, 0.25], seed=1)
    assert [len(p) for p in parts] == [10, 5, 5]
    assert sorted(int(p[i][1]) for p in parts for i in range(len(p))) == list(range(20))
    both = data.ConcatDataset(parts)
    assert len(both) == 20 and both[10][1] == parts[1][0][1] and both[-1][1] == parts[2][-1][1]
    x, xt, y, yt = data.train_test_split(X, Y, test_size=0.2)
    assert (len(x), len(xt)) == (16, 4) and np.array_equal(x[:, 0] / 3, y) and np.array_equal(xt[:, 0] / 3, yt)
    with pytest.raises(tn.TenonError, match="do not add up to 20 samples"):
        data.random_split(data.ArrayDataset(X), [3, 4])


@pytest.mark.parametrize("packed", [False, True])
def test_idx(packed: bool, tmp_path: Path) -> None:
    array = np.arange(24, dtype=">i4").reshape(2, 3, 4)
    content = b"\0\0\x0c\x03" + struct.pack(">3I", 2, 3, 4) + array.tobytes()
    file = tmp_path / "a.idx"
    file.write_bytes(gzip.compress(content) if packed else content)
    found = data.read_idx(file)
    assert found.dtype == np.int32 and np.array_equal(found, array)
    for damaged, words in (
        (content[:-1], "95 bytes where 96"),
        (content[:9], "cut short in its header"),
        (b"PK", "no IDX"),
    ):
        file.write_bytes(gzip.compress(damaged) if packed else damaged)
        with pytest.raises(tn.TenonError, match=words):
            data.read_idx(file)
    file.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(tn.TenonError, match="damaged gzip"):
        data.read_idx(file)


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a,b,kind\n1,2.5,cat\n-3,4e1,dog\n\n0,0,cat\n")
    x, y, names = data.read_csv(file, "kind")
    assert names == ["a", "b"] and x.dtype == np.float32 and y is not None
    np.testing.assert_array_equal(x, [[1, 2.5], [-3, 40], [0, 0]])
    np.testing.assert_array_equal(y, [0, 1, 0])
    plain = tmp_path / "b.csv"
    plain.write_text("1;2\n3;4\n")
    found = data.read_csv(plain, -1, header=False, separator=";")
    np.testing.assert_array_equal(found[1], [2, 4])
    for text, words in (
        ("a,b\n1,2\n3,\n", "line 3, column 'b': a value is missing"),
        ("a,b\n1,x\n", "line 2, column 'b': 'x' is no number"),
        ("a,b\n1,2,3\n", "line 2: 3 values where 2 were expected"),
        ("a,b\n", "has no rows"),
    ):
        file.write_text(text)
        with pytest.raises(tn.TenonError, match=words):
            data.read_csv(file)
    with pytest.raises(tn.TenonError, match="no column 'c'; it has a, b"):
        file.write_text("a,b\n1,2\n")
        data.read_csv(file, "c")


def test_npz_without_pickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    np.testing.assert_array_equal(data.read_npz(tmp_path / "a.npz")["x"], X)
    np.savez(tmp_path / "b.npz", x=np.array([{}], object))
    with pytest.raises(tn.TenonError, match="no npz file of plain arrays"):
        data.read_npz(tmp_path / "b.npz")


def test_folders_of_images_and_lines_of_text(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        (tmp_path / name).mkdir()
        image.new("RGB", (6, 4), colour).save(tmp_path / name / "a.png")
    folder = data.ImageFolder(tmp_path, size=(2, 3))
    assert folder.classes == ["blue", "red"] and len(folder) == 2
    pixels, label = folder[1]
    assert label == 1 and pixels.shape == (3, 2, 3) and pixels[:, 0, 0].tolist() == [1, 0, 0]
    assert next(iter(data.Loader(folder, 2)))[0].shape == (2, 3, 2, 3)
    with pytest.raises(tn.TenonError, match="no images in folders"):
        data.ImageFolder(tmp_path / "red")
    (tmp_path / "t.txt").write_text("one\ntwo\n", encoding="utf-8")
    lines = data.TextLines(tmp_path / "t.txt", len)
    assert [lines[i] for i in range(len(lines))] == [3, 3]


def test_augmentation() -> None:
    generator = np.random.default_rng(0)
    image = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    np.testing.assert_array_equal(data.RandomFlip(1.0)(image, generator), image[..., ::-1])
    np.testing.assert_array_equal(data.RandomFlip(1.0, vertical=True)(image, generator), image[..., ::-1, :])
    assert data.RandomFlip(0.0)(image, generator) is image
    crops = {data.RandomCrop(4, padding=2)(image, generator).tobytes() for _ in range(50)}
    assert len(crops) > 10
    np.testing.assert_allclose(data.augment.rotate(image, 90), np.rot90(image, 1, (1, 2)), atol=1e-4)
    np.testing.assert_allclose(data.augment.rotate(image, 0), image)
    normal = data.Normalize([1, 2], [2, 4])(image)
    np.testing.assert_allclose(normal[1], (image[1] - 2) / 4)
    both = data.Compose(data.RandomRotation(30), data.Normalize(0.0, 2.0))
    assert both(image, generator).shape == image.shape
    with pytest.raises(tn.TenonError, match="does not fit"):
        data.RandomCrop(5)(image, generator)
