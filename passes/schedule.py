"""From a fused graph to a schedule: every value that must exist gets a buffer, every group its kernels, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine import dims
from engine.buffers import Buffer
from engine.dims import Size
from engine.dtypes import DType
from engine.graph import Graph, Group, Node, Value
from engine.loops import has_check, nested_nodes
from engine.ops import attention, recurrent
from engine.schedule import (
    Access,
    Along,
    Attention,
    Custom,
    KernelSpec,
    Loop,
    Recurrence,
    RunningExtremum,
    Scan,
    Scatter,
    Schedule,
    Sort,
    Stmt,
)
from passes.bundles import bundle_updates, core_buffers
from passes.kernels import KernelWriter
from passes.loop_plan import LoopPlan
from passes.parts import places_of_parts
from passes.places import Places, input_buffer, output_buffer, state_buffer
from passes.splitting import Partial
from passes.views import View, dense, is_free, look_through, same_places


def schedule(graph: Graph, cuts: bool = True) -> Schedule:
    """Kernels in order over buffers. New state is written into its own buffer wherever nothing still reads the old.
    ``cuts`` has long reductions cut into chunks."""
    return _Scheduler(graph, cuts=cuts).run()


class _Scheduler(Places):
    """Schedules one graph. The body of a loop has one of its own, with ``prefix`` before the names of its buffers."""

    def __init__(
        self,
        graph: Graph,
        codes: Mapping[Node, int] | None = None,
        prefix: str = "",
        buffers: dict[str, Buffer] | None = None,
        cuts: bool = True,
    ):
        super().__init__(graph, prefix, {} if buffers is None else buffers)
        self.cuts = cuts
        self.group_of = {n: g for g in graph.groups for n in g.nodes}
        self.position = {id(g): i for i, g in enumerate(graph.groups)}
        self.users = graph.users()
        self.results = {*graph.results, *(g.guard for g in graph.groups if g.guard is not None)}
        self.readers = self._readers()
        self.codes = {n: i + 1 for i, n in enumerate(check_nodes(graph))} if codes is None else codes
        self.failing = [self.position[id(g)] for g in graph.groups if any(map(has_check, g.nodes))]

    def run(self) -> Schedule:
        graph = self.graph
        for v in graph.inputs:
            self.place(v, input_buffer(v.node.attrs["name"]), "input")
        for v in graph.state:
            self.place(v, state_buffer(v.node.attrs["name"]), "state", graph.layouts.get(v))
        self.outputs = [
            dense(self.buffer(output_buffer(i), "output", v.dtype, v.type.size), v.shape)
            for i, v in enumerate(graph.outputs)
        ]
        self._emit_all()
        state = {b.name for b in self.buffers.values() if b.kind == "state"}
        return Schedule(tuple(self.buffers.values()), tuple(bundle_updates(self.kernels, state)))

    def run_body(self, inputs: Mapping[Value, View], outputs: Sequence[View]) -> list[KernelSpec | Loop]:
        """The kernels of a loop's body, which finds its inputs and leaves its results where told."""
        self.views.update(inputs)
        self.outputs = list(outputs)
        self._emit_all()
        return self.kernels

    def _emit_all(self) -> None:
        graph = self.graph
        self._choose_homes()
        late, saved = self._save_old_state()
        started: set[int] = set()
        for node in graph.nodes:
            group = self.group_of.get(node)
            if group is not None and id(group) not in started:
                started.add(id(group))
                guard = None if group.guard is None else self.access(group.guard, ())
                with self.under(guard):
                    self._emit(group)
        self._finish(late, saved)

    # -- buffers

    # -- where results go

    def _readers(self) -> dict[Value, list[int]]:
        """For each state the positions of the groups that read it, through views too."""
        roots: dict[Value, Value] = {v: v for v in self.graph.state}
        found: dict[Value, list[int]] = {v: [] for v in self.graph.state}
        for node in self.graph.nodes:
            for v in node.inputs:
                if v not in roots:
                    continue
                if node.op.kind in ("view", "check"):
                    roots[node.output] = roots[v]
                group = self.group_of.get(node)
                if group is not None:
                    found[roots[v]].append(self.position[id(group)])
        self.aliases = roots
        return found

    def _choose_homes(self) -> None:
        """Let kernels write new state and outputs straight into their buffers where nothing forbids it."""
        states = {v.node.attrs["name"]: v for v in self.graph.state}
        for name, value in self.graph.updates.items():
            made = _made_as(value)
            old = states.get(name)
            order = None if old is None else self.graph.layouts.get(old)
            fits = order is None or made.shape == value.shape
            if fits and self._homeless(made, order) and self._may_overwrite(old, made):
                self.homes[made] = dense(state_buffer(name), made.shape, order)
        for i, value in enumerate(self.graph.outputs):
            made = _made_as(value)
            if self._homeless(made):
                self.homes[made] = dense(self.outputs[i].buffer, made.shape)
        for group in reversed(self.graph.groups):
            if group.nodes[0].op.name == "concat":
                self._choose_parts(group)

    def _choose_parts(self, group: Group) -> None:
        """Let what makes the parts of a joined tensor write them side by side."""
        whole = group.nodes[0].output
        home = self.homes.setdefault(whole, self.home(whole))
        if self.buffers[home.buffer].kind == "state":
            return  # which others may still read
        for made, place in places_of_parts(group.nodes[0], home, self.graph.layouts):
            maker = self.group_of.get(made.node)
            if maker is not None and maker.guard is group.guard and made not in self.homes:
                self.homes[made] = place

    def _homeless(self, value: Value, order: tuple[int, ...] | None = None) -> bool:
        """Whether a kernel makes the value, in this order (row-major where None), and nobody has said where."""
        computed = value.node in self.group_of and value.node.op.kind not in ("view", "check")
        return computed and value not in self.homes and self.graph.layouts.get(value, order) == order

    def _at_home(self, value: Value, buffer: str) -> bool:
        """Whether the kernel that makes ``value`` writes it into ``buffer``."""
        made = _made_as(value)
        return made in self.homes and self.homes[made].buffer == buffer

    def _may_overwrite(self, old: Value | None, new: Value) -> bool:
        """Whether the kernel of ``new`` may write over ``old``: no other reads it later, nor does a part of the same
        one (a ``move`` writes in several), and no check can fail any more."""
        here = self.position[id(self.group_of[new.node])]
        last = here - (new.node.op.kind == "move" and not self._scatters_into(old, new.node))
        readers = self.readers.get(old, []) if old is not None else []
        return all(i <= last for i in readers) and all(i < here for i in self.failing)

    def _scatters_into(self, old: Value | None, node: Node) -> bool:
        """Whether ``node`` puts elements into ``old``, where the others may stay, and reads it for nothing else."""
        if node.op.name != "scatter" or old is None:
            return False
        x, *others = node.inputs
        return _made_as(x) is old and all(self.aliases.get(v) is not old for v in others)

    def _save_old_state(self) -> tuple[set[int], dict[str, View]]:
        """Copy old state that is an output, or another state's new value, before anything overwrites it. Gives the
        outputs that are still to be written, and where the new values now lie, by name of the state."""
        written = {v for v in self.graph.state if v.node.attrs["name"] in self.graph.updates}
        late = set()
        for i, value in enumerate(self.graph.outputs):
            if self.aliases.get(value) in written:
                self._write_output(i, value)
            elif not self._at_home(value, self.outputs[i].buffer):
                late.add(i)
        saved: dict[str, View] = {}
        for name, value in self.graph.updates.items():
            if self.aliases.get(value) in written:
                saved[name] = self.temporary(value, f"_for_{len(saved)}")
                self.copy(value, saved[name])
        return late, saved

    def _finish(self, late: set[int], saved: dict[str, View]) -> None:
        """Write the ``late`` outputs, and the new state that no kernel has put in its place."""
        for i in sorted(late):
            self._write_output(i, self.graph.outputs[i])
        layouts = {v.node.attrs["name"]: self.graph.layouts.get(v) for v in self.graph.state}
        for name, value in self.graph.updates.items():
            if not self._at_home(value, state_buffer(name)):
                self.copy(value, dense(state_buffer(name), value.shape, layouts.get(name)), source=saved.get(name))

    def _write_output(self, i: int, value: Value) -> None:
        """Copy ``value`` into an output, unless finding out where it lies has put it there."""
        home = self.outputs[i]
        if is_free(look_through(value)[0].node) or self.view(value).buffer != home.buffer:
            self.copy(value, home)

    # -- kernels

    def _emit(self, group: Group) -> None:
        first = next(n for n in group.nodes if n.op.kind not in ("view", "source"))
        if first.op.kind == "check":
            self._check(first)
        elif first.op.name == "pad":
            self._pad(first)
        elif first.op.name == "concat":
            self._concat(first)
        elif first.op.name == "scatter":
            self._scatter(first)
        elif first.op.kind in ("sort", "scan"):
            self._along_an_axis(first)
        elif first.op.kind == "recurrence":
            self._recurrence(first)
        elif first.op.name in ("attention", "attention_backward"):
            self._attention(first)
        elif first.op.kind == "custom":
            self._custom(first)
        elif first.op.kind == "loop":
            self._loop(first)
        else:
            self._compute(group)

    def _compute(self, group: Group) -> None:
        stores = {v: self.home(v) for v in self._stored(group)}
        partials: list[str] = []
        specs = KernelWriter(group, self.view, stores, self._partials_in(partials)).write()
        if self._overwrites_what_it_reads(specs):
            for name in partials:
                del self.buffers[name]
            for v, home in stores.items():
                if self.buffers[home.buffer].kind == "state":
                    del self.homes[v]
                    stores[v] = self.temporary(v)
            specs = KernelWriter(group, self.view, stores, self._partials_in([])).write()
        self.views.update(stores)
        for spec in specs:
            self.add(spec)

    def _stored(self, group: Group) -> list[Value]:
        """The values of a group that something outside of it reads, directly or through a view inside."""
        inside = set(group.nodes)
        seen = {
            look_through(v)[0]
            for n in group.nodes
            for v in n.outputs
            if v in self.results or any(user not in inside for user in self.users[v])
        }
        makers = [n for n in group.nodes if n.op.kind != "view" and not is_free(n)]
        return [v for n in makers for v in n.outputs if v in seen]

    def _partials_in(self, names: list[str]) -> Partial | None:
        """A maker of buffers for partial results, which adds their names to ``names``; None where nothing is cut."""
        if not self.cuts:
            return None

        def make(name: str, dtype: DType, size: Size) -> str:
            names.append(self.buffer(f"{name}_{len(self.buffers)}", "temp", dtype, size))
            return names[-1]

        return make

    def _overwrites_what_it_reads(self, specs: list[KernelSpec]) -> bool:
        """Whether a write into state would change what the same kernel reads elsewhere."""
        for spec in specs:
            operands = core_buffers(spec)
            for write in spec.writes:
                if self.buffers[write.buffer].kind != "state":
                    continue
                same = all(r == write for r in spec.reads if r.buffer == write.buffer)
                if not same or write.buffer in operands or (spec.reduced and spec.split):
                    return True
        return False

    def _check(self, node: Node) -> None:
        value = node.inputs[0]
        view = self.view(value)
        axes = [i for i in view.order if value.shape[i] != 1]
        read = Access(view.buffer, value.dtype, tuple(view.strides[i] for i in axes), view.offset)
        bounds = (node.attrs["limit"], node.attrs["first"])
        body = (
            Stmt("v0", "load", (0,), value.dtype),
            Stmt("v1", "check_index", ("v0", self.codes[node]), value.dtype, bounds),
        )
        sizes = tuple(value.shape[i] for i in axes)
        nodes = (node.name,)
        self.add(KernelSpec("check_index", sizes, (read,), (), body, nodes=nodes, location=node.location))

    def _pad(self, node: Node) -> None:
        x, out = node.inputs[0], node.output
        home = self.home(out)
        self.views[out] = home
        value = node.attrs["value"]
        axes = [i for i in home.order if out.shape[i] != 1]
        constant = Stmt("v0", "const", (float(value) if out.dtype.is_float else int(value),), out.dtype)
        body = (constant, Stmt("v1", "store", (0, "v0"), out.dtype))
        write = Access(home.buffer, out.dtype, tuple(home.strides[i] for i in axes), home.offset)
        sizes = tuple(out.shape[i] for i in axes)
        self.add(KernelSpec("fill", sizes, (), (write,), body, nodes=(node.name,), location=node.location))
        offset = home.offset
        for a, s in zip(node.attrs["low"], home.strides, strict=True):
            offset = offset + a * s
        strides = tuple(s * k for s, k in zip(home.strides, node.attrs["step"], strict=True))
        self.copy(x, View(home.buffer, strides, home.order, offset))

    def _concat(self, node: Node) -> None:
        axis, out = node.attrs["axis"], node.output
        home = self.home(out)
        self.views[out] = home
        start: Size = 0
        for x in node.inputs:
            part = replace(home, offset=home.offset + start * home.strides[axis])
            if is_free(look_through(x)[0].node) or not same_places(self.view(x), part, x.shape):
                self.copy(x, part, out.dtype)
            start = start + x.shape[axis]

    def _scatter(self, node: Node) -> None:
        """Copy what is there, unless it is there already, then write what comes."""
        x, index, src = node.inputs
        axis = node.attrs["axis"]
        home = self.home(node.output)
        self.views[node.output] = home
        if self.view(x) != home:
            self.copy(x, home)
        space = dims.broadcast(index.shape, src.shape)
        reads = tuple(self.access(v, space) for v in (index, src))
        strides = tuple(0 if i == axis or x.shape[i] == 1 else s for i, s in enumerate(home.strides))
        write = Access(home.buffer, x.dtype, strides, home.offset)
        core = Scatter(node.attrs["mode"], home.strides[axis], x.shape[axis])
        self.add(self.plain_kernel(node, f"scatter_{core.mode}", space, reads, (write,), core))

    def _along_an_axis(self, node: Node) -> None:
        shape, axis = node.inputs[-1].shape, node.attrs["axis"]
        reads = tuple(self.access(v, shape) for v in node.inputs)
        homes = {v: self.home(v) for v in node.outputs}
        writes = tuple(Access(h.buffer, v.dtype, h.strides, h.offset) for v, h in homes.items())
        core: Along
        match node.op.name:
            case "sort":
                core = Sort(axis, node.attrs["descending"])
            case "linear_scan":
                core = Scan(axis, node.attrs["reverse"])
            case name:
                core = RunningExtremum(axis, name == "cummax")
        spec = self.plain_kernel(node, node.op.name, shape, reads, writes, core)
        if self._overwrites_what_it_reads([spec]):
            for v, home in homes.items():
                if self.buffers[home.buffer].kind == "state":
                    del self.homes[v]
            self._along_an_axis(node)
            return
        self.views.update(homes)
        self.add(spec)

    def _recurrence(self, node: Node) -> None:
        """A recurrence, or its gradient. What nobody reads it does not write."""
        cell, backward = recurrent.cell_of(node.op)
        given = node.attrs["given"]
        names = recurrent.input_names(node.op, given), recurrent.output_names(node.op, given)
        known = dict(zip(names[0], node.inputs, strict=True))
        reads = tuple(self.rows(v, f"{v.name}_for_{node.name}") for v in node.inputs)
        wanted = self._wanted(node, names[1])
        writes = [self.fresh(v) for v in wanted.values()]
        rows, width = known["weight"].shape
        assert isinstance(rows, int) and isinstance(width, int)
        steps, batch = known["hs" if backward else "x"].shape[:2]
        core = Recurrence(
            cell, backward, node.attrs["reverse"], names[0], tuple(wanted), steps, batch, rows // cell.gates, width
        )
        self.add(self.plain_kernel(node, node.op.name, (batch,), reads, tuple(writes), core))

    def _attention(self, node: Node) -> None:
        """Attention, or its gradient. What nobody reads it does not write."""
        backward = node.op.name == "attention_backward"
        known = attention.known_inputs(node)
        (batch, heads, queries, features), keys = known["q"].shape, known["k"].shape[2]
        width = known["v"].shape[3]
        assert isinstance(features, int) and isinstance(width, int)
        spaces = {"mask": (batch, heads, queries, keys), "offset": (batch,)}
        reads = tuple(
            self.rows(v, f"{v.name}_for_{node.name}")
            if n in ("q", "k", "v", "g")
            else self.access(v, spaces.get(n, v.shape))
            for n, v in known.items()
        )
        wanted = self._wanted(node, ("dq", "dk", "dv") if backward else ("out", "lse"))
        writes = tuple(self.fresh(v) for v in wanted.values())
        core = Attention(
            backward=backward,
            **{k: node.attrs[k] for k in ("causal", "scale", "dropout", "stream", "empty")},
            reads=tuple(known),
            writes=tuple(wanted),
            batch=batch,
            heads=heads,
            ratio=attention.sharing(node.op.name, known["q"], known["k"]),
            queries=queries,
            keys=keys,
            features=features,
            width=width,
        )
        self.add(self.plain_kernel(node, node.op.name, (batch, heads, queries), reads, writes, core))

    def _wanted(self, node: Node, names: Sequence[str]) -> dict[str, Value]:
        """The outputs that anybody reads, by these names."""
        return {n: v for n, v in zip(names, node.outputs, strict=True) if v in self.results or self.users[v]}

    def _custom(self, node: Node) -> None:
        """A user's kernel. What it reads is packed before where it must be, what it writes converted afterwards."""
        assert node.op.kernel is not None
        reads = tuple(self.packed(v, f"{v.name}_for_{node.name}") for v in node.inputs)
        for v in node.outputs:
            self.fresh(v)
        writes = []
        for v in node.outputs:
            wide, home = v.dtype.computed, self.views[v]
            name = home.buffer
            if wide != v.dtype:
                name = self.buffer(f"{v.name}_wide", "temp", wide, v.type.size)
            writes.append(Access(name, wide, dense("", v.shape).strides, home.offset if name == home.buffer else 0))
        shapes = tuple(v.shape for v in (*node.inputs, *node.outputs))
        core = Custom(node.op.kernel, shapes, tuple(node.attrs.items()))
        spec = self.plain_kernel(node, node.op.name, node.outputs[0].shape, reads, tuple(writes), core)
        self.add(spec)
        for v, made in zip(node.outputs, writes, strict=True):
            if made.dtype != v.dtype:
                self.convert(v, made, self.access(v, v.shape))

    def _loop(self, node: Node) -> None:
        """A loop: its body's kernels, over windows that move through what it reads and keeps."""
        self.keep_out_of_state(node)
        plan = LoopPlan(node, self.prefix, self.view)
        for v in node.outputs:
            if v not in plan.results:
                plan.keep(v, self.home(v))
        self.buffers.update((b.name, b) for b in plan.buffers)
        for value, place in plan.before:
            self.copy(value, place)
        body = _Scheduler(plan.body, self.codes, f"{self.prefix}{node.name}.", self.buffers, self.cuts)
        kernels = tuple(body.run_body(plan.inputs, plan.outputs))
        times, nodes = node.attrs["length"], (self.prefix + node.name,)
        self.kernels.append(Loop(node.op.name, times, plan.windows, kernels, self.guard, nodes, node.location))
        self.views.update(plan.results)
        for v in node.outputs:
            if v in self.homes and self.homes[v] != plan.results[v]:
                self.copy(v, self.homes[v])


def _made_as(value: Value) -> Value:
    """The value that, in row-major order, holds the same elements in the same places: what a reshape is made from."""
    while value.node.op.name in ("reshape", "identity", "detach"):
        value = value.node.inputs[0]
    return value


def check_nodes(graph: Graph) -> list[Node]:
    """The run-time checks, in the order of their codes."""
    return [n for n in nested_nodes(graph) if n.op.kind == "check"]
