"""What building an executable took, for people."""

from __future__ import annotations

from dataclasses import dataclass

from engine.graph import Graph
from tenon.backends import Built
from tenon.text_format import bytes_text, plural


@dataclass(frozen=True)
class Report:
    """How an executable was built.

    ``nodes`` were traced and became ``kernels`` fused kernels. Of the generated functions behind them (and the native
    driver) ``compiled`` were compiled now, ``loaded`` came from the cache on disk, ``shared`` were in this process.
    ``from_cache`` says that the program itself was in the cache, so no pass ran. ``arena_bytes`` is what the arena
    has grown to so far. ``seconds`` is the time from the traced graph until it could run.
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

    @classmethod
    def of(cls, target: str, graph: Graph, built: Built, seconds: float) -> Report:
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
        )

    def __str__(self) -> str:
        if self.target == "reference":
            return f"{self.name}: {plural(self.nodes, 'node')}, interpreted by the reference"
        source = "program from the cache" if self.from_cache else "all passes ran"
        return (
            f"{self.name}: {plural(self.nodes, 'node')} in {plural(self.kernels, 'fused kernel')} ({self.compiled} "
            f"compiled, {self.loaded} loaded from the cache, {self.shared} shared; {source}), "
            f"arena {bytes_text(self.arena_bytes)}, ready in {self.seconds:.2f} s"
        )
