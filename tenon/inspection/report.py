"""What building an executable took, for people."""

from __future__ import annotations

from engine.graph import Graph
from engine.records import dataclass
from tenon.backends import Built
from tenon.text_format import bytes_text, plural, seconds_text, table


@dataclass(frozen=True)
class Report:
    """How an executable was built.

    ``nodes`` were traced and became ``kernels`` fused kernels. Of the generated functions behind them (and the native
    driver) ``compiled`` were compiled now, ``loaded`` came from the cache on disk, ``shared`` were in this process.
    ``from_cache`` says that the program itself was in the cache, so no pass ran. ``arena_bytes`` is what the arena
    has grown to so far. ``seconds`` is the time from the traced graph until it could run: that of the ``passes``, by
    name, ``code_seconds`` for the kernels' code, and the rest for the cache, memory and threads. ``kernel_seconds`` is
    what each kernel took that was compiled; many are side by side. ``place`` is where
    the program runs.
    """

    name: str
    target: str
    nodes: int
    kernels: int
    compiled: int
    loaded: int
    shared: int
    from_cache: bool
    arena_bytes: int
    seconds: float
    passes: tuple[tuple[str, float], ...] = ()
    code_seconds: float = 0.0
    kernel_seconds: tuple[tuple[str, float], ...] = ()
    place: str = "cpu"

    @classmethod
    def of(cls, target: str, place: str, graph: Graph, built: Built, seconds: float) -> Report:
        names = {kernel.key: kernel.name for kernel in built.program.kernels} if built.program else {}
        return cls(
            name=graph.name,
            target=target,
            nodes=len(graph.nodes),
            kernels=built.program.statistics["kernels"] if built.program else 0,
            compiled=built.origin.compiled,
            loaded=built.origin.loaded,
            shared=built.origin.shared,
            from_cache=built.origin.from_cache,
            arena_bytes=built.counters().get("arena_bytes", 0),
            seconds=seconds,
            passes=built.origin.passes,
            code_seconds=built.origin.code_seconds,
            kernel_seconds=tuple((names.get(key, "driver"), took) for key, took in built.origin.took.items()),
            place=place,
        )

    @property
    def times(self) -> str:
        """A table of what took how long: each pass, each kernel that was compiled, the whole."""
        rest = self.seconds - sum(s for _, s in self.passes) - self.code_seconds
        slowest = sorted(self.kernel_seconds, key=lambda kernel: -kernel[1])
        rows: list[tuple[str, ...]] = [("building", "time", "share")]
        rows += [self._line(f"pass {name}", seconds) for name, seconds in self.passes]
        got = [f"{n} {what}" for n, what in ((self.compiled, "compiled"), (self.loaded, "loaded")) if n]
        rows.append(self._line(f"code of kernels{': ' if got else ''}{', '.join(got)}", self.code_seconds))
        rows += [(f"  {name}", seconds_text(seconds), "") for name, seconds in slowest]
        rows += [self._line("cache, memory and threads", rest), self._line("total", self.seconds)]
        return table(rows)

    def _line(self, name: str, seconds: float) -> tuple[str, ...]:
        return name, seconds_text(seconds), f"{seconds / self.seconds:.0%}"

    def __str__(self) -> str:
        if self.target == "reference":
            return f"{self.name}: {plural(self.nodes, 'node')}, interpreted by the reference"
        source = "program from the cache" if self.from_cache else "all passes ran"
        where = "" if self.place == "cpu" else f" on {self.place}"
        return (
            f"{self.name}{where}: {plural(self.nodes, 'node')} in {plural(self.kernels, 'fused kernel')} "
            f"({self.compiled} compiled, {self.loaded} loaded from the cache, {self.shared} shared; {source}), "
            f"arena {bytes_text(self.arena_bytes)}, ready in {self.seconds:.2f} s"
        )
