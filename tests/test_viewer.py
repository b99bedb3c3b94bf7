"""The page of a dump: what it is told, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import Browser, find_browser

import tenon as tn
from engine.graph import Graph
from tenon import F, nn, optim
from tenon.inspection import viewer
from tenon.inspection.viewer.layered import layered
from tenon.inspection.viewer.phases import BACKWARD, FORWARD, UPDATE, phases

needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def step() -> tn.Executable:
    tn.seed(0)
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    specs = [tn.spec("B", 6), tn.spec("B", dtype="i64")]
    return tn.train_step(model, F.cross_entropy, optimizer, specs).executable


@pytest.fixture(scope="module")
def page(step, tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(4, 6)).astype(np.float32), np.array([0, 1, 2, 1])
    return step.dump(tmp_path_factory.mktemp("viewer") / "out", *inputs) / "index.html"


def data_of(page: Path, name: str = "record") -> dict:
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


# --- the record --------------------------------------------------------------------------------------------


def test_every_stage_is_in_the_record(step, page):
    record = data_of(page)
    graphs = {name: stage for name, stage in step.stages.items() if isinstance(stage, Graph)}
    assert [name for name, *_ in record["stages"]] == list(graphs)
    for name, number, _ in record["stages"]:
        described = record["graphs"][number]
        names = [record["nodes"][i][0] for i in described["nodes"]]
        assert set(names) <= {n.name for n in graphs[name].nodes}
        inlined = {n.name for n in graphs[name].nodes} - set(names)
        assert all(n.is_literal for n in graphs[name].nodes if n.name in inlined)
        assert described["updates"] == {state: v.name for state, v in graphs[name].updates.items()}


def test_a_node_that_a_pass_leaves_alone_stands_once(step, page):
    record = data_of(page)
    assert len(record["nodes"]) < sum(len(g["nodes"]) for g in record["graphs"])
    assert len({json.dumps(n) for n in record["nodes"]}) == len(record["nodes"])


def test_kernels_know_their_calls_lines_memory_and_time(step, page):
    record = data_of(page)
    assert [s["label"] for s in record["steps"]] == [c.label for c in step.stages["program"].main]
    assert {s["code"] for s in record["steps"]} <= data_of(page, "code").keys()
    assert all(s["seconds"] >= 0 and s["flops"] >= 0 for s in record["steps"])
    names = {b["name"] for b in record["buffers"]}
    assert all(set(k["reads"] + k["writes"]) <= names for k in record["kernels"])
    product = next(k for k in record["kernels"] if k["kind"] == "Contraction")
    file, line, *_, module = record["locations"][product["location"]]
    assert Path(file).name == "test_viewer.py" and str(line) in record["files"][file] and module.startswith("Net.")
    assert record["arena"] == step.memory(B=4).arena and record["sizes"] == {"B": 4}


def test_phases(step):
    graphs = [stage for stage in step.stages.values() if isinstance(stage, Graph)]
    found = phases(graphs)
    traced, last = graphs[0], graphs[-1]
    loss = traced.outputs[0].node
    assert found[loss.name] == FORWARD
    assert {found[n.name] for n in traced.nodes if n.op.kind == "grad"} == {BACKWARD}
    assert all(found[v.node.name] == UPDATE for name, v in last.updates.items() if name.endswith("weight"))
    assert {found[n.name] for n in last.nodes} == {FORWARD, BACKWARD, UPDATE}
    assert phases([tn.compile(lambda x: x + 1, tn.spec("N"), target="reference").graph]) == {}


def test_updates_belong_where_the_weight_is(step, page):
    last = [stage for stage in step.stages.values() if isinstance(stage, Graph)][-1]
    found = {**data_of(page)["homes"], **{n.name: n.location.module for n in last.nodes if n.location.module}}
    assert {state: found[v.node.name] for state, v in last.updates.items() if "weight" in state} == {
        "body.0.weight": "Net.body.0",
        "head.weight": "Net.head",
    }


def test_each_change_tells_its_rule(step, page):
    for name, number, rules in data_of(page)["stages"]:
        names = {data_of(page)["nodes"][i][0] for i in data_of(page)["graphs"][number]["nodes"]}
        made = {m: r.rule for r in step.stages[name].rewrites for m in r.made}
        assert rules["made"].items() <= made.items() and not rules["gone"].keys() & names
    assert any(rules["made"] for *_, rules in data_of(page)["stages"])


def test_text_in_the_data_cannot_leave_its_element(tmp_path):
    def total(x):
        return x.sum()  # </script><script>document.title = "left"</script>

    exe = tn.compile(total, tn.spec("N"), target="reference")
    html = viewer.page(viewer.record(exe, {"N": 4}), {"kernel": {".py": "</script>"}})
    assert html.count("</script>") == html.count("<script") == 3
    path = tmp_path / "index.html"
    path.write_text(html, encoding="utf-8")
    lines = next(iter(data_of(path)["files"].values()))
    assert any("</script>" in line for line in lines.values())


def test_a_page_needs_nothing_else(page):
    html = page.read_text("utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\((?!data:)""", html.partition("<script type")[0])
    assert not re.search(r"\b(?:fetch|XMLHttpRequest|WebSocket|importScripts)\b", html.rpartition("<script>")[2])


# --- pictures ----------------------------------------------------------------------------------------------


def test_the_drawing_has_every_kernel(step, page):
    drawn = viewer.picture(data_of(page))
    specs = list(step.stages["schedule"].specs)
    assert len(drawn.boxes) == len(specs) + len(step.graph.inputs) + len(step.graph.outputs)
    assert all(a < b for a, b in drawn.edges)
    svg = ElementTree.parse(page.with_name("graph.svg")).getroot()
    titles = [e.text for e in svg.iter() if e.get("class") == "t"]
    assert titles == [b.title for b in drawn.boxes]
    dot = page.with_name("graph.dot").read_text()
    assert all(f"k{a} -> k{b} " in dot for a, b in drawn.edges) and dot.count("[label=") == len(drawn.boxes)


def test_without_kernels_the_ops_are_drawn():
    exe = tn.compile(lambda x: (x * x).sum(), tn.spec("N"), target="reference")
    drawn = viewer.picture(viewer.record(exe, {"N": 4}))
    assert [b.title for b in drawn.boxes] == ["x", "mul", "sum", f"returns {exe.graph.outputs[0].name}"]
    assert drawn.edges == ((0, 1), (1, 2), (2, 3))


def test_boxes_lie_apart_and_edges_go_right():
    rng = np.random.default_rng(0)
    sizes = [(float(w), float(h)) for w, h in rng.uniform(20, 200, (60, 2))]
    edges = sorted({(int(min(p)), int(max(p))) for p in rng.integers(0, 60, (120, 2)) if p[0] != p[1]})
    places = layered(sizes, edges)
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(places.corners, sizes, strict=True)]
    for i, a in enumerate(boxes):
        assert a[0] >= 0 and a[2] <= places.width + 1e-6 and a[1] >= -1e-6 and a[3] <= places.height + 1e-6
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert all(boxes[a][2] < boxes[b][0] for a, b in edges)
    assert layered([], []).corners == []


# --- in a browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


@pytest.fixture
def opened(browser, page):
    browser.errors.clear()
    browser.open(page)
    yield browser
    assert browser.errors == []


def centre(browser: Browser, key: str) -> tuple[float, float]:
    """Where the box of an item is in the window, in its upper left part."""
    x, y = browser.run(
        f"""(() => {{ const b = app.tree.byKey.get({json.dumps(key)}), c = app.view.camera,
        area = app.view.canvas.getBoundingClientRect();
        return [area.x + (b.X + 30) * c.scale - c.x, area.y + (b.Y + 12) * c.scale - c.y]; }})()"""
    )
    return x, y


@needs_browser
@pytest.mark.slow
def test_clicking_through_the_graph(opened, step):
    boxes = opened.run("app.scene.boxes.length")
    assert boxes > 8
    key = opened.run("app.scene.boxes.find((b) => b.kind === 'kernel').key")
    opened.click_at(*centre(opened, key))
    assert opened.run("app.selection.item.key") == key
    details = opened.text("#inspector")
    assert "Generated code" in details and "test_viewer.py" in details and "GFLOP/s" in details
    opened.wait("document.querySelector('#inspector .codebox pre').textContent.includes('def ')")
    opened.click("#inspector .codetabs [data-suffix='.s']")
    opened.wait("document.querySelector('#inspector .codebox pre').textContent.includes('.text')")
    opened.click_at(*centre(opened, key), count=2)
    assert opened.run("app.scene.boxes.length") > boxes
    opened.click("#inspector dd .link")  # the first op of the kernel
    assert opened.run("app.selection.item.kind") == "op"
    assert "Through the passes" in opened.text("#inspector")
    opened.key("Escape")
    assert opened.run("app.selection") is None


@needs_browser
@pytest.mark.slow
def test_the_slider_lights_up_what_a_pass_changed(opened, step):
    opened.click("#passes .pass:nth-child(3)")
    name = opened.run("stages[app.stage].name")
    assert name == list(step.stages)[2] and name in opened.text("#inspector h2")
    added, removed = opened.run("[changesOf(2).added.length, changesOf(2).removed.length]")
    graphs = [s for s in step.stages.values() if isinstance(s, Graph)]
    before, after = ({n.name for n in g.nodes if not n.is_literal} for g in graphs[1:3])
    assert (added, removed) == (len(after - before), len(before - after))
    assert opened.run("app.view.marks.changes.size > 0")
    opened.key("[")
    assert opened.run("app.stage") == 1
    opened.key("]")
    assert opened.run("app.stage") == 2


@needs_browser
@pytest.mark.slow
def test_searching_and_walking_by_keys(opened):
    opened.key("/")
    opened.type("matmul")
    assert opened.run("app.hits.length") > 1 and "matches" in opened.text("#outline")
    opened.key("Enter")
    assert "matmul" in opened.text("#inspector")
    opened.key("Escape")
    assert opened.run("app.query") == ""
    opened.run("document.activeElement.blur()")
    opened.key("j")
    first = opened.run("app.selection.item.key")
    opened.key("j")
    assert opened.run("app.selection.item.key") != first
    opened.key("k")
    assert opened.run("app.selection.item.key") == first
    start = opened.run("app.select({item: app.scene.edges[0].from}), app.scene.edges[0].from.key")
    opened.key("ArrowRight")
    assert opened.run("app.selection.item.key") != start
    opened.key("?")
    assert opened.run("document.getElementById('keys').open")
    opened.key("Escape")


@needs_browser
@pytest.mark.slow
def test_the_other_views(opened, step):
    opened.click("#tabs [data-view='kernels']")
    assert opened.run("document.querySelectorAll('.kernels tbody tr').length") == len(
        list(step.stages["schedule"].specs)
    )
    opened.click(".kernels tbody tr:nth-child(2)")
    assert "Schedule" in opened.text("#inspector")
    opened.click(".kernels th:nth-child(2) button")
    names = opened.run("[...document.querySelectorAll('.kernels td.name')].map((e) => e.innerText)")
    assert names == sorted(names)
    opened.click("#tabs [data-view='memory']")
    assert "arena" in opened.text(".figures")
    x, y = opened.run(
        """(() => { const places = app.arena.temps.map((b) => app.arena.place(b, app.arena.area())),
        [x, y, w, h] = places.sort((a, b) => b[2] * b[3] - a[2] * a[3])[0],
        box = app.arena.canvas.getBoundingClientRect(); return [box.x + x + w / 2, box.y + y + h / 2]; })()"""
    )
    opened.click_at(x, y)
    assert opened.text("#inspector").startswith("BUFFER · TEMP")
    opened.click("#tabs [data-view='source']")
    opened.click(".sources tr.made")
    assert "Kernels" in opened.text("#inspector")


@needs_browser
@pytest.mark.slow
def test_light_and_dark(opened):
    background = "getComputedStyle(document.body).backgroundColor"
    opened.theme("dark")
    dark = opened.run(background)
    opened.theme("light")
    light = opened.run(background)
    assert dark != light
    opened.click("#theme")
    assert opened.run(background) == dark
    opened.click("#theme")
    assert opened.run(background) == light


@needs_browser
@pytest.mark.slow
def test_a_loop_can_be_entered(browser, tmp_path):
    def total(x):
        return F.scan(lambda carry, row: (carry * 2 + row, carry), x[0], x)[0]

    exe = tn.compile(total, tn.spec(5, "N"), target="reference")
    path = tmp_path / "index.html"
    path.write_text(viewer.page(viewer.record(exe, {"N": 4}), {}), encoding="utf-8")
    browser.errors.clear()
    browser.open(path)
    key = browser.run("app.scene.boxes.find((b) => b.node?.body !== null && b.node?.op === 'scan').key")
    browser.click_at(*centre(browser, key), count=2)
    assert browser.run("app.path.length") == 1
    assert browser.run("app.graph.nodes.map((n) => n.op)") == ["mul", "add"]
    assert "scan" not in browser.text("#outline") and "›" in browser.text(".crumbs")
    browser.key("Escape")
    assert browser.run("app.path.length") == 0 and browser.errors == []


@needs_browser
@pytest.mark.slow
def test_five_thousand_nodes(browser, tmp_path):
    def deep(x):
        sides = [x * (i + 1) for i in range(50)]
        for i in range(99):
            sides = [sides[j] + sides[(j + i) % 50].tanh() if (i + j) % 3 else sides[j].exp() for j in range(50)]
        return sum(sides[1:], sides[0])

    exe = tn.compile(deep, tn.spec("N"), target="reference")
    assert len(exe.graph.nodes) > 5000
    path = tmp_path / "index.html"
    path.write_text(viewer.page(viewer.record(exe, {"N": 4}), {}), encoding="utf-8")
    browser.errors.clear()
    browser.open(path)
    assert browser.run("app.scene.boxes.length") > 5000
    browser.run("app.openAll()")
    browser.key("+")
    assert browser.errors == []
