"""Loader: batches in an order that follows from a seed, made in the background while the last step still runs."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import TenonError
from tenon.data.augment import Transform
from tenon.data.datasets import ArrayDataset, Dataset
from tenon.specs import TensorSpec, spec

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

Batch = tuple[np.ndarray, ...]


@dataclass
class LoaderStats:
    """Seconds that whoever took the batches waited for them, of all seconds between the first batch and the last."""

    batches: int = 0
    waited: float = 0.0
    total: float = 0.0

    @property
    def share(self) -> float:
        """The part of the time that went into waiting."""
        return self.waited / self.total if self.total else 0.0


class Loader:
    """Batches of ``batch_size`` samples, tuples of C-contiguous arrays.

    ``source`` is an array, a tuple or dict of arrays, a data set (``__len__`` and ``__getitem__``), or an iterable of
    samples that can be walked again (or a function that gives one). The order follows from ``seed`` and the number of
    the epoch alone, whatever the workers: with ``shuffle`` a permutation, of an iterable a draw from a buffer of
    ``buffer`` samples. ``last`` says what becomes of a last batch that is not full: ``"keep"`` or ``"drop"``.

    ``transform(sample, generator)`` changes a sample; a :class:`Transform` changes its first array. The generator
    follows from seed, epoch and the sample's number.

    With ``workers`` batches are made in so many threads, or with ``processes`` in processes (started anew, so data set
    and transform must be picklable), up to ``prefetch`` batches a worker ahead.
    """

    def __init__(
        self,
        source: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        last: str = "keep",
        transform: Callable[..., Any] | None = None,
        workers: int = 0,
        prefetch: int = 2,
        processes: bool = False,
        buffer: int = 1024,
    ):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise TenonError(f"batch_size is {batch_size!r}; a whole number of at least 1 was expected")
        if last not in ("keep", "drop"):
            raise TenonError(f'last must be "keep" or "drop", not {last!r}')
        if workers < 0 or prefetch < 1 or buffer < 1:
            raise TenonError(f"workers {workers}, prefetch {prefetch} and buffer {buffer} must be 0, 1 and 1 at least")
        self.dataset, self.stream = _opened(source)
        self.batch_size, self.shuffle, self.seed, self.last = batch_size, shuffle, seed, last
        self.transform, self.workers, self.prefetch, self.buffer = transform, workers, prefetch, buffer
        self.processes = processes
        self.epoch = 0
        self.stats = LoaderStats()
        self._batch = 0
        if self.dataset is not None and not len(self.dataset):
            raise TenonError("a loader needs at least one sample, and its source is empty")
        if self.stream is not None and processes:
            raise TenonError("an iterable is read in one thread; processes need a data set with __getitem__")

    # --- what it gives -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """The number of batches of an epoch. Raises TypeError for an iterable, whose length is not known."""
        if self.dataset is None:
            raise TypeError("a loader of an iterable has no length")
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and self.last == "keep")

    @property
    def samples(self) -> int | None:
        """The number of samples of an epoch, None where it is not known."""
        if self.dataset is None:
            return None
        return len(self.dataset) if self.last == "keep" else len(self) * self.batch_size

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """What a program takes that is called with these batches: axis 0 is the dim ``B``."""
        if self.dataset is not None:
            first = _assembled([self._sample(0, 0)])
        else:
            first = _assembled(list(itertools.islice(self._streamed(0), 1)))
        return tuple(spec("B", *a.shape[1:], dtype=a.dtype) for a in first)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Make the next walk that of ``epoch``, beginning at ``batch``; samples before it are not read."""
        self.epoch, self._batch = epoch, batch

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: pass it to :meth:`load_state_dict` to go on with the next batch."""
        return {"epoch": self.epoch, "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.seek(state["epoch"], state["batch"])

    def __iter__(self) -> Iterator[Batch]:
        epoch, skip = self.epoch, self._batch
        batches = self._batches(epoch, skip)
        self.stats = LoaderStats()
        begin = time.perf_counter()
        try:
            while True:
                asked = time.perf_counter()
                batch = next(batches, None)
                now = time.perf_counter()
                if batch is None:
                    break
                self.stats.batches += 1
                self.stats.waited += now - asked
                self.stats.total = now - begin
                self._batch += 1
                yield batch
        finally:
            batches.close()
        self.epoch, self._batch = epoch + 1, 0

    # --- making batches ------------------------------------------------------------------------------------

    def _batches(self, epoch: int, skip: int) -> Generator[Batch, None, None]:
        from concurrent import futures  # here: it brings multiprocessing and logging

        if self.stream is not None:
            whole = _grouped(self._streamed(epoch), self.batch_size, self.last == "drop")
            made = map(_assembled, itertools.islice(whole, skip, None))
            if not self.workers:
                yield from made
                return
            with futures.ThreadPoolExecutor(1, "tenon-loader") as one:  # an iterable has one reader
                yield from _ahead(one, itertools.repeat(lambda: next(made, None)), self.prefetch)
            return
        tasks = ((self, epoch, rows) for rows in self._rows(epoch)[skip:])
        if not self.workers:
            yield from itertools.starmap(_make, tasks)
            return
        ahead = self.workers * self.prefetch
        if self.processes:
            import multiprocessing

            context = multiprocessing.get_context("spawn")
            pool: Executor = futures.ProcessPoolExecutor(self.workers, context, _begin_worker, (self,))
            calls: Iterable[Callable[[], Any]] = (_Remote(epoch, rows) for _, epoch, rows in tasks)
        else:
            pool = futures.ThreadPoolExecutor(self.workers, "tenon-loader")
            calls = (_Local(*task) for task in tasks)
        try:
            yield from _ahead(pool, calls, ahead)
        except futures.BrokenExecutor:
            raise TenonError("a process of the loader died; its own output may say why") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _rows(self, epoch: int) -> list[np.ndarray]:
        """The numbers of the samples of each batch."""
        assert self.dataset is not None
        count = len(self.dataset)
        order = np.random.default_rng([self.seed, epoch]).permutation(count) if self.shuffle else np.arange(count)
        return [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]

    def _sample(self, epoch: int, index: int) -> tuple[Any, ...]:
        assert self.dataset is not None
        try:
            return self._transformed(_as_tuple(self.dataset[index]), epoch, index)
        except Exception as error:
            error.add_note(f"while sample {index} was made")
            raise

    def _transformed(self, sample: tuple[Any, ...], epoch: int, index: int) -> tuple[Any, ...]:
        if self.transform is None:
            return sample
        generator = np.random.default_rng([self.seed, epoch, index])
        if isinstance(self.transform, Transform):
            return (self.transform(np.asarray(sample[0]), generator), *sample[1:])
        return _as_tuple(self.transform(sample, generator))

    def _streamed(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        """The samples of an iterable; with shuffle each is drawn from a buffer that the next one then fills."""
        assert self.stream is not None
        found = self.stream() if callable(self.stream) else self.stream
        samples = (self._transformed(_as_tuple(s), epoch, i) for i, s in enumerate(found))
        if not self.shuffle:
            yield from samples
            return
        generator = np.random.default_rng([self.seed, epoch])
        waiting = list(itertools.islice(samples, self.buffer))
        for sample in samples:
            i = int(generator.integers(len(waiting)))
            yield waiting[i]
            waiting[i] = sample
        yield from (waiting[i] for i in generator.permutation(len(waiting)))


def _opened(source: Any) -> tuple[Dataset | None, Any]:
    """``source`` as a data set, or as an iterable (or a function that gives one)."""
    if isinstance(source, np.ndarray):
        return ArrayDataset(source), None
    if isinstance(source, Mapping):
        return ArrayDataset(*source.values()), None
    if isinstance(source, tuple):
        return ArrayDataset(*source), None
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return source, None
    if isinstance(source, Iterator):
        raise TenonError(
            "a loader walks its source once an epoch, and a generator is over after one; give the function that makes "
            "the generator"
        )
    if callable(source) or hasattr(source, "__iter__"):
        return None, source
    raise TenonError(f"a loader takes arrays, a data set or an iterable, not {type(source).__name__}")


def _as_tuple(sample: Any) -> tuple[Any, ...]:
    return sample if isinstance(sample, tuple) else (sample,)


def _grouped(samples: Iterator[Any], size: int, drop: bool) -> Iterator[list[Any]]:
    while group := list(itertools.islice(samples, size)):
        if not drop or len(group) == size:
            yield group


def _assembled(samples: list[tuple[Any, ...]]) -> Batch:
    """Samples stacked. Raises TenonError where their shapes differ."""
    try:
        return tuple(np.stack([np.asarray(part) for part in parts]) for parts in zip(*samples, strict=True))
    except ValueError:
        shapes = {tuple(np.shape(part) for part in sample) for sample in samples}
        raise TenonError(f"the samples of a batch differ in shape: {sorted(shapes)}") from None


def _make(loader: Loader, epoch: int, rows: np.ndarray) -> Batch:
    """The batch of the samples ``rows``."""
    if isinstance(loader.dataset, ArrayDataset) and loader.transform is None:
        return tuple(np.ascontiguousarray(a) for a in loader.dataset.rows(rows))
    return _assembled([loader._sample(epoch, int(i)) for i in rows])


def _ahead(pool: Executor, calls: Iterable[Callable[[], Any]], count: int) -> Iterator[Batch]:
    """The results of ``calls`` in order, up to ``count`` of them under way. A result of None ends it."""
    waiting: deque[Future[Any]] = deque()
    rest = iter(calls)
    try:
        waiting.extend(pool.submit(call) for call in itertools.islice(rest, count))
        while waiting:
            batch = waiting.popleft().result()
            if batch is None:
                return
            waiting.extend(pool.submit(call) for call in itertools.islice(rest, 1))
            yield batch
    finally:
        for future in waiting:
            future.cancel()


class _Local:
    """One batch, made in a thread."""

    def __init__(self, loader: Loader, epoch: int, rows: np.ndarray):
        self.task = (loader, epoch, rows)

    def __call__(self) -> Batch:
        return _make(*self.task)


_loader: Loader | None = None


def _begin_worker(loader: Loader) -> None:
    global _loader
    _loader = loader


class _Remote:
    """One batch, made in a process that was given the loader when it began."""

    def __init__(self, epoch: int, rows: np.ndarray):
        self.task = (epoch, rows)

    def __call__(self) -> Batch:
        assert _loader is not None
        return _make(_loader, *self.task)
