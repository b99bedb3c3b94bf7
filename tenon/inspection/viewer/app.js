// What is looked at, and everything that changes it: views, passes, selection, search, keys, the address.

const VIEWS = [["graph", "Graph"], ["kernels", "Kernels"], ["memory", "Memory"], ["source", "Source"]];
const KEYS = [
  ["/", "search"], ["Esc", "leave the search, the loop's body, the selection"], ["1 – 4", "graph, kernels, memory, source"],
  ["[  ]", "the pass before, the pass after"], ["← →", "what the selected box reads, what reads it"], ["↑ ↓", "the box above, below"],
  ["Enter", "unfold or fold; open a loop's body"], ["j  k", "next or last in the list"], ["e  c", "unfold all, fold all"],
  ["+  −", "zoom"], ["f  0", "fit into the window; f: the selected box"], ["d", "light up what the pass changed, or not"], ["g", "group by module, or not"],
  ["b", "backward below forward, or behind it"], ["h", "colour by kind, or by time or operations"], ["t", "light or dark"], ["?", "these keys"],
];
const FIRST_BOXES = [120, 70, 45, 28, 16, 8]; // how many are shown at first: the most that can be read
const READABLE = (limit) => (limit > 50 ? 0.62 : limit > 20 ? 0.42 : 0.3); // the scale at which so many may be shown

class App {
  constructor() {
    this.stage = stages.length - 1;
    this.path = []; // nodes of loops that were entered
    this.selection = null;
    this.query = "";
    this.hits = [];
    this.grouping = { modules: true, kernels: true };
    this.folded = true;
    this.lit = false;
    this.shaded = false;
    this.current = "graph";
    this.open = null;
    this.chrome();
    this.readAddress();
    this.rebuild();
    this.switchTo(this.current);
    addEventListener("keydown", (e) => this.key(e));
    addEventListener("hashchange", () => this.followAddress());
  }

  // --- the frame around the views ---

  chrome() {
    byId("name").textContent = record.name;
    byId("facts").textContent = `${record.target}, level ${record.level}`;
    this.tabs = VIEWS.map(([key, label], i) => h("button", { role: "tab", "data-view": key, title: `${label} (${i + 1})`, onclick: () => this.switchTo(key) }, label));
    byId("tabs").append(...this.tabs);
    const view = byId("view");
    this.panels = Object.fromEntries(VIEWS.map(([key]) => [key, h("div", { class: `panel ${key}`, hidden: true })]));
    view.append(...Object.values(this.panels));
    this.view = new GraphCanvas(this.panels.graph, {
      hover: (item, e) => this.hover(item, e),
      click: (item, e) => this.click(item, e),
      open: (item) => this.openItem(item),
    });
    this.buttons = {
      lit: h("button", { title: "Light up what the pass changed (d)", onclick: () => this.set("lit", !this.lit) }, "Changes"),
      folded: hasPhases && h("button", { title: "The backward pass below the forward one (b)", onclick: () => this.set("folded", !this.folded) }, "Fold back"),
      modules: h("button", { title: "Group by module (g)", onclick: () => this.group() }, "Modules"),
      shaded: (has.times || has.costs) && h("button", { title: "Colour by weight (h)", onclick: () => this.set("shaded", !this.shaded) }, has.times ? "Heat: time" : "Heat: operations"),
    };
    this.crumbs = h("div", { class: "crumbs" });
    this.panels.graph.append(this.crumbs, h("div", { class: "toolbar", role: "toolbar", "aria-label": "Graph" },
      Object.values(this.buttons).filter(Boolean),
      h("button", { title: "Zoom out (−)", "aria-label": "Zoom out", onclick: () => this.view.zoom(1 / 1.3) }, "−"),
      h("button", { title: "Zoom in (+)", "aria-label": "Zoom in", onclick: () => this.view.zoom(1.3) }, "+"),
      h("button", { title: "Fit (0)", onclick: () => this.view.fit() }, "Fit")));
    this.outline = new Outline(this);
    this.table = new KernelTable(this, this.panels.kernels);
    this.arena = new ArenaView(this, this.panels.memory);
    this.source = new SourceView(this, this.panels.source);

    const most = Math.max(...stages.map((_, i) => stageGraph(i).nodes.length));
    this.passes = stages.map((s, i) => {
      const { added, rewritten, removed } = changesOf(i);
      const count = stageGraph(i).nodes.length;
      const changes = [["added", "+", added], ["removed", "−", removed], ["rewritten", "~", rewritten]].filter((c) => c[2].length);
      return h("button", { class: "pass", title: `${s.name}: ${plural(count, "op")}${changes.map(([k, , l]) => `, ${l.length} ${k}`).join("")}`, onclick: () => this.setStage(i) },
        h("span", { class: "height", style: `height: ${Math.max(8, (100 * count) / most)}%` }),
        h("b", {}, s.name), h("span", { class: "delta" }, h("span", {}, count), changes.map(([kind, mark, list]) => h("span", { class: kind }, `${mark}${list.length}`))));
    });
    this.slider = h("input", { type: "range", min: 0, max: stages.length - 1, step: 1, "aria-label": "Pass", oninput: (e) => this.setStage(Number(e.target.value)) });
    byId("passes").append(h("div", { class: "track" }, this.passes), this.slider);

    const search = byId("search");
    search.addEventListener("input", () => this.search(search.value));
    search.addEventListener("keydown", (e) => {
      if (e.key === "Enter") this.nextHit(e.shiftKey ? -1 : 1);
      if (e.key === "Escape") {
        search.value = "";
        this.search("");
        search.blur();
      }
      e.stopPropagation();
    });
    const chosen = this.stored("theme");
    if (chosen) document.documentElement.dataset.theme = chosen;
    byId("theme").addEventListener("click", () => this.toggleTheme());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
    byId("help").addEventListener("click", () => this.help());
    byId("keys").append(h("h2", {}, "Keys"), h("dl", {}, KEYS.map(([k, what]) => [h("dt", {}, k.split("  ").map((one) => h("kbd", {}, one))), h("dd", {}, what)])),
      h("p", {}, "Drag to move, turn the wheel to zoom, click to select, click twice to unfold."), h("button", { class: "action", onclick: () => byId("keys").close() }, "Close"));
    byId("keys").addEventListener("click", (e) => e.target === byId("keys") && byId("keys").close());
    this.recolour();
  }

  /** What was kept from an earlier visit; pages of files may not keep anything. */
  stored(key, value) {
    try {
      if (value !== undefined) localStorage.setItem(`tenon.${key}`, value);
      return localStorage.getItem(`tenon.${key}`);
    } catch {
      return null;
    }
  }

  isDark() {
    const { theme } = document.documentElement.dataset;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  toggleTheme() {
    const theme = this.isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    this.stored("theme", theme);
    this.recolour();
  }

  recolour() {
    byId("theme").textContent = this.isDark() ? "☀" : "☾";
    this.view.readColours();
    if (this.view.scene) this.view.drawMap();
    this.arena?.draw();
  }

  say(text) {
    byId("live").textContent = text;
  }

  tip(event, ...content) {
    const tip = byId("tip");
    tip.hidden = !event;
    if (!event) return;
    tip.replaceChildren(...content.flat().filter(Boolean));
    const { offsetWidth: w, offsetHeight: height } = tip;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - w - 8)}px`;
    tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
  }

  switchTo(view) {
    this.current = view;
    for (const [key, panel] of Object.entries(this.panels)) panel.hidden = key !== view;
    for (const tab of this.tabs) tab.setAttribute("aria-selected", tab.dataset.view === view);
    document.body.dataset.view = view;
    if (view === "kernels") this.table.render();
    if (view === "memory") this.arena.render();
    if (view === "source") this.source.render();
    if (view === "graph") this.view.redraw();
    this.writeAddress();
  }

  // --- the graph that is shown ---

  /** Makes tree and scene anew, after a change of stage, path or grouping. */
  rebuild() {
    let graph = stageGraph(this.stage);
    const path = [];
    for (const name of this.path) {
      const node = graph.byName.get(name);
      if (!node || node.body === null) break;
      path.push(name);
      graph = graphOf(node.body);
    }
    this.path = path;
    this.graph = graph;
    const selected = this.selection?.item;
    this.tree = treeOf(graph, this.grouping);
    this.open ||= this.readable();
    if (selected) {
      const item = this.tree.byKey.get(selected.key) || (selected.node && this.tree.leafOf.get(selected.node.name));
      this.selection = item ? { item } : null;
    }
    this.find();
    this.arrange(null);
    this.crumbs.replaceChildren(...(path.length ? [link(stages[this.stage].name, () => this.leave(0)), ...path.map((n, i) => [" › ", link(n, () => this.leave(i + 1))])].flat() : []));
    this.passes.forEach((p, i) => p.setAttribute("aria-current", i === this.stage ? "step" : "false"));
    this.slider.value = this.stage;
    this.slider.setAttribute("aria-valuetext", stages[this.stage].name);
    inspect(this);
  }

  /** The containers to open at first: as many as leave the boxes large enough to be read. */
  readable() {
    const { clientWidth, clientHeight } = byId("view");
    let open = new Set();
    for (const limit of FIRST_BOXES) {
      const found = firstOpen(this.tree.root, limit);
      if (found.size === open.size) continue;
      open = found;
      const { w, h: height } = sceneOf(this.tree, open, this.folded);
      if (Math.min(clientWidth / w, clientHeight / height) > READABLE(limit)) break;
    }
    return open;
  }

  /** Lays the scene out, after something was folded. The anchor stays where it is on the screen. */
  arrange(anchor) {
    const start = performance.now();
    const at = anchor && { item: anchor, x: anchor.X, y: anchor.Y };
    this.scene = sceneOf(this.tree, this.open, this.folded);
    this.mark();
    this.view.show(this.scene, at);
    this.outline.render();
    document.documentElement.dataset.layout = Math.round(performance.now() - start);
    this.view.canvas.setAttribute("aria-label", `${record.name} after ${stages[this.stage].name}: ${plural(this.graph.nodes.length, "op")} in ${plural(this.scene.boxes.length, "box").replace(/xs$/, "xes")}`);
  }

  /** What is lit up in the picture. */
  mark() {
    const { marks } = this.view;
    const boxes = new Set(this.scene.boxes);
    const shown = (item) => visibleFrom(item, boxes) || item;
    marks.selected = new Set();
    if (this.selection?.item) marks.selected.add(boxes.has(this.selection.item) || this.open.has(this.selection.item.key) ? this.selection.item : shown(this.selection.item));
    if (this.selection?.kernel) for (const name of this.selection.kernel.nodes) {
      const leaf = this.tree.leafOf.get(name);
      if (leaf) marks.selected.add(shown(leaf));
    }
    marks.hits = this.query ? new Set(this.hits.map(shown)) : null;
    this.changes = new Map();
    marks.changes = null;
    marks.gone = null;
    if (this.lit && !this.path.length) {
      const { kinds } = changesOf(this.stage);
      const status = new Map();
      for (const [name, kind] of kinds) {
        const leaf = this.tree.leafOf.get(name);
        if (!leaf) continue;
        this.changes.set(leaf, kind);
        const box = shown(leaf);
        if (status.get(box) !== "added") status.set(box, kind);
      }
      marks.changes = status;
      if (this.stage + 1 < stages.length) marks.gone = new Set(changesOf(this.stage + 1).removed.map((n) => shown(this.tree.leafOf.get(n.name))));
    }
    marks.shade = this.shaded ? this.shading() : null;
    for (const [name, button] of Object.entries(this.buttons)) if (button) button.setAttribute("aria-pressed", name === "modules" ? this.grouping.modules : this[name]);
  }

  shading() {
    const key = has.times ? "seconds" : "flops";
    const weight = (item) => sum(item.kernels.map((k) => k[key]));
    const most = Math.max(...this.scene.boxes.map(weight), 1e-30);
    return (item) => weight(item) / most;
  }

  set(name, value) {
    this[name] = value;
    if (name === "folded") {
      this.arrange(null);
    } else {
      this.mark();
      this.view.redraw();
      this.outline.render();
    }
  }

  group() {
    this.grouping.modules = !this.grouping.modules;
    this.open = null;
    this.rebuild();
    this.view.fit();
  }

  setStage(index) {
    const to = Math.min(stages.length - 1, Math.max(0, index));
    if (to === this.stage) return;
    this.stage = to;
    if (this.current !== "graph") this.switchTo("graph");
    this.lit = true;
    const camera = { ...this.view.camera };
    const before = this.scene;
    this.rebuild();
    if (before.w && Math.abs(this.scene.w / before.w - 1) < 0.3) Object.assign(this.view.camera, camera);
    const { added, rewritten, removed } = changesOf(to);
    this.say(`${stages[to].name}: ${added.length} added, ${rewritten.length} rewritten, ${removed.length} removed`);
    this.writeAddress();
  }

  enter(node) {
    if (node.body === null) return;
    this.path.push(node.name);
    this.open = null;
    this.selection = null;
    this.rebuild();
    this.view.fit();
  }

  leave(depth) {
    this.path.length = depth;
    this.open = null;
    this.selection = null;
    this.rebuild();
    this.view.fit();
  }

  // --- selection ---

  select(selection, reveal = false) {
    this.selection = selection;
    if (selection?.item && reveal) this.unfoldTo(selection.item);
    this.mark();
    inspect(this);
    this.outline.mark(true);
    if (this.current === "kernels") this.table.mark();
    if (this.current === "memory") this.arena.draw();
    if (reveal && this.current === "graph" && selection?.item) {
      const box = this.view.marks.selected.values().next().value;
      if (box?.X !== undefined) this.view.reveal(box);
    }
    this.view.redraw();
    if (selection?.item) this.say(this.described(selection.item));
    this.writeAddress();
  }

  described(item) {
    if (!item.node) return `${item.kind} ${item.label}, ${plural(item.ops.length, "op")}`;
    return `${item.node.op} ${item.node.name}, ${item.node.types[0]?.[1] || ""}, reads ${item.node.inputs.join(", ") || "nothing"}`;
  }

  /** Unfolds the containers around an item, so that it can be seen. */
  unfoldTo(item) {
    let changed = false;
    for (let at = item.parent; at; at = at.parent) {
      if (!this.open.has(at.key)) {
        this.open.add(at.key);
        changed = true;
      }
    }
    if (changed) this.arrange(item.parent.X === undefined ? null : item.parent);
  }

  selectNode(node) {
    if (!this.graph.byName.has(node.name)) {
      const last = stages.findLastIndex((_, i) => stageGraph(i).byName.has(node.name));
      if (last < 0) return;
      this.path = [];
      this.stage = last;
      this.rebuild();
    }
    if (this.current === "kernels" || this.current === "memory") this.switchTo("graph");
    const item = this.tree.leafOf.get(node.name);
    if (item) this.select({ item }, this.current === "graph");
    else { // state has no box: it stands in those of its users
      this.selection = { item: { kind: "op", node, key: "", ops: [], children: [] } };
      inspect(this);
    }
  }

  selectModule(node) {
    let at = this.tree.leafOf.get(node.name)?.parent;
    while (at && at.kind !== "module") at = at.parent;
    if (at) this.select({ item: at }, true);
  }

  selectKernel(kernel) {
    if (this.current === "graph") {
      const leaf = kernel.nodes.map((n) => this.tree.leafOf.get(n)).find(Boolean);
      const item = leaf?.parent?.kind === "kernel" ? leaf.parent : leaf;
      if (item) return this.select({ item }, true);
    }
    this.select({ kernel });
  }

  selectBuffer(buffer) {
    this.selection = { buffer };
    this.switchTo("memory");
    inspect(this);
    this.writeAddress();
  }

  showLine(place) {
    this.switchTo("source");
    this.source.show(place);
  }

  showChange(node, kind) {
    if (kind === "removed") this.setStage(this.stage - 1);
    this.selectNode(node);
  }

  toggle(item) {
    if (!isContainer(item)) return;
    if (this.open.has(item.key)) this.open.delete(item.key);
    else this.open.add(item.key);
    this.arrange(item.X === undefined ? null : item);
    inspect(this);
  }

  openAll() {
    for (const item of this.tree.byKey.values()) if (isContainer(item)) this.open.add(item.key);
    this.arrange(null);
    this.view.fit();
  }

  closeAll() {
    this.open = new Set([""]);
    for (const item of this.tree.root.children) if (item.kind === "phase") this.open.add(item.key);
    this.arrange(null);
    this.view.fit();
  }

  hover(item, event) {
    if (!item || this.open.has(item.key)) return this.tip(null);
    const node = item.node;
    this.tip(event, h("b", {}, node ? (node.text ? `${node.outputs.join(", ")} = ${clipText(node.text, 90)}` : node.title) : item.path || item.label.replaceAll("_", " ")), h("br"),
      node ? node.types.map((t) => t[1]).join(", ") : plural(item.ops.length, "op"),
      node && lineOf(node.location) && [h("br"), lineOf(node.location).text, ` ${moduleOf(node)}`],
      !node && has.times && item.kernels.length > 0 && [h("br"), timeText(sum(item.kernels.map((k) => k.seconds)))]);
  }

  click(item, event) {
    if (!item) return this.select(null);
    const twist = this.open.has(item.key) && item !== this.tree.root;
    if (twist && event.clientX !== undefined && this.view.at(event)[0] < item.X + 26) return this.toggle(item);
    this.select({ item });
  }

  openItem(item) {
    if (!item) return;
    if (item.node && item.node.body !== null) this.enter(item.node);
    else this.toggle(item);
  }

  // --- search ---

  search(query) {
    this.query = query.trim();
    this.find();
    this.mark();
    this.outline.render();
    if (this.current === "kernels") this.table.render();
    this.view.redraw();
    if (this.query) this.say(`${this.hits.length} found`);
  }

  find() {
    const words = this.query.toLowerCase().split(/\s+/).filter(Boolean);
    this.hits = [];
    if (!words.length) return;
    for (const item of this.tree.byKey.values()) {
      if (item.kind === "root" || item.merged === undefined && item.kind === "module" && !item.children.length) continue;
      const place = item.node && lineOf(item.node.location);
      const text = `${item.path || item.label} ${item.node ? `${item.node.name} ${item.node.text} ${item.node.types.join(" ")} ${item.node.inputs.map((v) => this.graph.maker.get(v).title).join(" ")} ${moduleOf(item.node)} ${place?.text} ${place?.where}` : ""}`.toLowerCase();
      if (words.every((w) => text.includes(w))) this.hits.push(item);
    }
    this.hits = [...new Set(this.hits)].sort((a, b) => a.order - b.order);
  }

  nextHit(by) {
    if (!this.hits.length) return;
    const at = this.hits.indexOf(this.selection?.item);
    this.select({ item: this.hits[(at + by + this.hits.length) % this.hits.length] }, true);
  }

  // --- keys ---

  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || byId("keys").open) return;
    const inGraph = this.current === "graph";
    const list = this.current === "kernels" ? this.table : this.current === "source" ? this.source : this.outline;
    const actions = {
      "/": () => { byId("search").focus(); byId("search").select(); },
      "?": () => this.help(),
      Escape: () => (this.path.length ? this.leave(this.path.length - 1) : this.select(null)),
      "[": () => this.setStage(this.stage - 1),
      "]": () => this.setStage(this.stage + 1),
      j: () => list.move(1),
      k: () => list.move(-1),
      e: () => this.openAll(),
      c: () => this.closeAll(),
      d: () => this.set("lit", !this.lit),
      b: () => hasPhases && this.set("folded", !this.folded),
      g: () => this.group(),
      h: () => this.buttons.shaded && this.set("shaded", !this.shaded),
      t: () => this.toggleTheme(),
      f: () => this.view.fit(this.view.marks.selected.values().next().value),
      0: () => this.view.fit(),
      "+": () => this.view.zoom(1.3),
      "=": () => this.view.zoom(1.3),
      "-": () => this.view.zoom(1 / 1.3),
    };
    VIEWS.forEach(([view], i) => { actions[i + 1] = () => this.switchTo(view); });
    const plain = document.activeElement === document.body || document.activeElement === this.view.canvas;
    if (inGraph && plain) {
      Object.assign(actions, {
        ArrowLeft: () => this.step("left"), ArrowRight: () => this.step("right"), ArrowUp: () => this.step("up"), ArrowDown: () => this.step("down"),
        Enter: () => this.openItem(this.selection?.item),
      });
    } else if (plain) Object.assign(actions, { ArrowUp: () => list.move(-1), ArrowDown: () => list.move(1) });
    const action = actions[e.key];
    if (!action) return;
    e.preventDefault();
    action();
  }

  /** Selects the nearest box in a direction: along edges to the sides, in the picture up and down. */
  step(way) {
    const from = this.view.marks.selected.values().next().value;
    const { boxes, edges } = this.scene;
    if (!from || from.X === undefined) return boxes.length && this.select({ item: boxes[0] }, true);
    const middleOf = (b) => [b.X + b.w / 2, b.Y + b.h / 2];
    const [x, y] = middleOf(from);
    const sideways = way === "left" || way === "right";
    const sign = way === "left" || way === "up" ? -1 : 1;
    const linked = sideways ? edges.filter((e) => e.from === from || e.to === from).map((e) => (e.from === from ? e.to : e.from)) : [];
    const choose = (candidates) => {
      let best = null;
      let least = Infinity;
      for (const b of candidates) {
        if (b === from) continue;
        const [bx, by] = middleOf(b);
        const [along, across] = sideways ? [(bx - x) * sign, Math.abs(by - y)] : [(by - y) * sign, Math.abs(bx - x)];
        const cost = along + 3 * across;
        if (along > 2 && cost < least) [best, least] = [b, cost];
      }
      return best;
    };
    const to = choose(linked) || choose(boxes);
    if (to) this.select({ item: to }, true);
  }

  help() {
    byId("keys").showModal();
  }

  // --- the address: #view=kernels&stage=fuse&select=t12 ---

  writeAddress() {
    const parts = { view: this.current, stage: stages[this.stage].name };
    const { selection } = this;
    if (selection?.item) parts.select = selection.item.node?.name || selection.item.key;
    if (selection?.kernel) parts.kernel = selection.kernel.index;
    if (selection?.buffer) parts.buffer = selection.buffer.name;
    const hash = `#${new URLSearchParams(parts)}`;
    if (hash !== location.hash) history.replaceState(null, "", hash);
    this.address = hash;
  }

  readAddress() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const stage = stages.findIndex((s) => s.name === parts.get("stage"));
    if (stage >= 0) {
      if (stage !== this.stage) this.lit = true;
      this.stage = stage;
    }
    if (parts.get("theme")) {
      document.documentElement.dataset.theme = parts.get("theme");
      this.recolour();
    }
    if (this.panels[parts.get("view")]) this.current = parts.get("view");
    this.wanted = parts;
    setTimeout(() => this.selectWanted(), 0);
  }

  selectWanted() {
    const { wanted } = this;
    if (wanted.has("open")) this.openAll();
    if (wanted.has("kernel") && kernels[wanted.get("kernel")]) this.selectKernel(kernels[wanted.get("kernel")]);
    if (wanted.has("buffer") && buffers.has(wanted.get("buffer"))) this.selectBuffer(buffers.get(wanted.get("buffer")));
    const item = wanted.has("select") && (this.tree.leafOf.get(wanted.get("select")) || this.tree.byKey.get(wanted.get("select")));
    if (item) this.select({ item }, true);
  }

  followAddress() {
    if (location.hash === this.address) return;
    this.readAddress();
    this.rebuild();
    this.switchTo(this.current);
  }
}

const app = new App();
requestAnimationFrame(() => { document.documentElement.dataset.painted = Math.round(performance.now()); });
