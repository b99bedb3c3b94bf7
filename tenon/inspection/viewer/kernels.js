// The table of kernels.

class KernelTable {
  constructor(app, parent) {
    this.app = app;
    this.parent = parent;
    this.sort = { column: has.times ? "time" : "number", down: has.times };
    const number = (k) => k.index;
    const columns = [
      ["number", "#", number, (k) => k.index, "n"],
      ["name", "kernel", (k) => k.name, (k) => [h("i", { style: `background: var(--${classOfAll(kernelNodes(k))})` }), k.name.replaceAll("_", " ")], "name"],
      ["module", "module", (k) => this.module(k), (k) => this.module(k), ""],
      ["ops", "ops", (k) => k.nodes.length, (k) => k.nodes.length, "n"],
      ["space", "iteration space", (k) => k.space, (k) => clipText(k.space, 44), "space"],
      has.costs && ["flops", "operations", (k) => k.flops, (k) => bar(k.flops, total.flops, countText), "n"],
      has.costs && ["bytes", "moves", (k) => k.bytes, (k) => bar(k.bytes, total.bytes, bytesText), "n"],
      has.times && ["time", "time", (k) => k.seconds, (k) => bar(k.seconds, total.seconds, timeText), "n"],
      has.times && has.costs && ["rate", "GFLOP/s", (k) => k.flops / k.seconds || 0, (k) => (k.flops && k.seconds ? (k.flops / k.seconds / 1e9).toFixed(1) : ""), "n"],
      has.times && ["ceiling", "of ceiling", (k) => k.fraction, (k) => (k.fraction ? percentText(k.fraction) : ""), "n"],
      has.times && ["limit", "limit", (k) => k.limit, (k) => k.limit, ""],
      has.times && ["threads", "threads", (k) => k.threads, (k) => (k.threads ? k.threads.toFixed(1) : ""), "n"],
      ["tasks", "tasks", (k) => this.tasks(k), (k) => this.tasks(k).toLocaleString("en"), "n"],
      ["arena", "arena offsets", (k) => this.offsets(k)[0] ?? -1, (k) => clipText(this.offsets(k).map((o) => o.toLocaleString("en")).join(" "), 24), "n"],
      ["line", "line", (k) => lineOf(k.location)?.text || "", (k) => lineOf(k.location)?.text || "", ""],
    ];
    this.columns = columns.filter(Boolean);
  }

  module(k) {
    return moduleOf(heaviest(kernelNodes(k)));
  }

  /** How many tasks the threads share among them, in the kernel's largest call. */
  tasks(k) {
    return Math.max(0, ...k.steps.map((s) => s.tasks));
  }

  offsets(k) {
    return k.writes.map((b) => buffers.get(b)).filter((b) => b?.kind === "temp").map((b) => b.offset);
  }

  rows() {
    const query = this.app.query.toLowerCase();
    const found = kernels.filter((k) => !query || `${k.name} ${k.nodes.join(" ")} ${this.module(k)} ${lineOf(k.location)?.text}`.toLowerCase().includes(query));
    const value = this.columns.find((c) => c[0] === this.sort.column)[2];
    found.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a.index - b.index));
    return this.sort.down ? found.reverse() : found;
  }

  render() {
    if (!kernels.length) {
      this.parent.replaceChildren(h("p", { class: "empty" }, "There are no kernels: the reference interprets the graph."));
      return;
    }
    this.shown = this.rows();
    const by = (column) => {
      this.sort = { column, down: this.sort.column === column ? !this.sort.down : column !== "number" && column !== "name" };
      this.render();
    };
    const { selection } = this.app;
    this.parent.replaceChildren(h("div", { class: "scroll", tabindex: "0" }, h("table", { class: "kernels" },
      h("thead", {}, h("tr", {}, this.columns.map(([key, title, , , kind]) => h("th", { class: kind, "aria-sort": this.sort.column === key ? (this.sort.down ? "descending" : "ascending") : null },
        h("button", { onclick: () => by(key) }, title, this.sort.column === key ? (this.sort.down ? " ▾" : " ▴") : ""))))),
      h("tbody", {}, this.shown.map((k) => h("tr", { class: selection?.kernel === k ? "on" : null, "data-kernel": k.index, onclick: () => this.app.selectKernel(k) },
        this.columns.map(([, , , cell, kind]) => h("td", { class: kind }, cell(k)))))))));
  }

  mark() {
    for (const row of this.parent.querySelectorAll("tbody tr")) {
      const on = Number(row.dataset.kernel) === this.app.selection?.kernel?.index;
      row.classList.toggle("on", on);
      if (on) row.scrollIntoView({ block: "nearest" });
    }
  }

  move(by) {
    const at = this.shown.indexOf(this.app.selection?.kernel);
    const next = Math.min(this.shown.length - 1, Math.max(0, at < 0 ? 0 : at + by));
    if (this.shown[next]) this.app.selectKernel(this.shown[next]);
  }
}

function bar(value, whole, text) {
  return h("span", { class: "cellbar" }, h("i", { style: `width: ${whole ? (100 * value) / whole : 0}%` }), h("span", {}, value ? text(value) : ""));
}
