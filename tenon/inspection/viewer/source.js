// The user's files, with what each line became: ops, kernels and their share of time.

class SourceView {
  constructor(app, parent) {
    this.app = app;
    this.parent = parent;
    this.file = null;
    this.lines = new Map();
    const last = stageGraph(stages.length - 1);
    for (const node of [...stageGraph(0).nodes, ...last.nodes]) {
      const place = lineOf(node.location);
      if (!place) continue;
      const key = `${place.file}:${place.line}`;
      if (!this.lines.has(key)) this.lines.set(key, { ...place, nodes: new Map(), kernels: new Set(), ops: new Set() });
      const found = this.lines.get(key);
      found.nodes.set(node.name, node);
      found.ops.add(node.op);
      for (const k of kernelsOf.get(node.name) || []) found.kernels.add(k);
    }
    // A kernel's time and operations are shared among the lines of its ops: to each as much as it has ops there.
    for (const found of this.lines.values()) {
      found.share = { seconds: 0, flops: 0 };
      for (const k of found.kernels) {
        const part = k.nodes.filter((n) => found.nodes.has(n)).length / k.nodes.length;
        found.share.seconds += k.seconds * part;
        found.share.flops += k.flops * part;
      }
    }
    this.key = has.times ? "seconds" : has.costs ? "flops" : null;
    this.files = [...new Set([...this.lines.values()].map((l) => l.file))];
  }

  show(place) {
    this.file = place.file;
    this.at = place.line;
    this.render();
  }

  render() {
    if (!this.files.length) {
      this.parent.replaceChildren(h("p", { class: "empty" }, "No op has a line of its own."));
      return;
    }
    this.file ||= this.files[0];
    const text = record.files[this.file] || {};
    const measured = [...this.lines.values()];
    const most = this.key ? Math.max(...measured.map((l) => l.share[this.key]), 1e-30) : 1;
    const whole = this.key ? sum(measured.map((l) => l.share[this.key])) : 1;
    const rows = Object.entries(text).map(([number, content]) => {
      const found = this.lines.get(`${this.file}:${number}`);
      const share = found && this.key ? found.share[this.key] : 0;
      return h("tr", { class: `${found ? "made" : ""}${Number(number) === this.at ? " here" : ""}`, "data-line": number, onclick: found && (() => this.select(found)), tabindex: found ? "0" : null,
        onkeydown: found && ((e) => e.key === "Enter" && this.select(found)) },
      h("td", { class: "n" }, found && this.key && share / whole > 0.0005 ? percentText(share / whole) : ""),
      h("td", { class: "gauge" }, share > 0 && h("i", { style: `width: ${(100 * share) / most}%` })),
      h("td", { class: "n faint" }, found ? (found.kernels.size ? plural(found.kernels.size, "kernel") : plural(found.nodes.size, "op")) : ""),
      h("td", { class: "n number" }, number),
      h("td", { class: "text" }, coloured(content, ".py")));
    });
    this.parent.replaceChildren(h("div", { class: "filetabs", role: "tablist" }, this.files.map((f) => h("button", { role: "tab", title: f, "aria-selected": f === this.file, onclick: () => { this.file = f; this.at = null; this.render(); } }, baseName(f))),
      this.key && h("span", { class: "faint" }, `bars: share of ${this.key === "seconds" ? "time" : "operations"}`)),
    h("div", { class: "scroll", tabindex: "0" }, rows.length ? h("table", { class: "sources" }, h("tbody", {}, rows)) : h("p", { class: "empty" }, "The file was not there to be read.")));
    this.parent.querySelector("tr.here")?.scrollIntoView({ block: "center" });
  }

  select(found) {
    this.at = found.line;
    for (const row of this.parent.querySelectorAll("tr")) row.classList.toggle("here", Number(row.dataset.line) === found.line);
    const { app } = this;
    byId("inspector").replaceChildren(head("line", found.text, h("p", { class: "doc" }, `in ${found.where}`)),
      facts([
        has.times && ["time", timeText(found.share.seconds)],
        has.costs && ["operations", `${countText(found.share.flops)}FLOP`],
        ["ops", [...found.ops].join(", ")],
      ]),
      section("Kernels", h("div", { class: "entries" }, [...found.kernels].map((k) => h("button", { class: "entry", onclick: () => app.selectKernel(k) },
        h("i", { style: `background: var(--${classOfAll(kernelNodes(k))})` }), k.name.replaceAll("_", " "), h("span", { class: "faint" }, has.times ? timeText(k.seconds) : k.space))))),
      section("Ops", h("div", { class: "entries" }, [...found.nodes.values()].slice(0, 80).map((n) => h("button", { class: "entry", onclick: () => app.selectNode(n) },
        h("i", { style: `background: var(--${classOf(n)})` }), n.op, h("span", { class: "faint" }, n.name))))));
  }

  move(by) {
    const made = [...this.lines.values()].filter((l) => l.file === this.file).sort((a, b) => a.line - b.line);
    const at = made.findIndex((l) => l.line === this.at);
    const next = made[Math.min(made.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
    if (next) {
      this.select(next);
      this.parent.querySelector("tr.here")?.scrollIntoView({ block: "nearest" });
    }
  }
}
