// The panel on the left: the tree as a list that can be walked with keys, or what a search has found.

class Outline {
  constructor(app) {
    this.app = app;
    this.panel = byId("outline");
    this.shown = [];
    this.panel.addEventListener("keydown", (e) => {
      const item = this.shown[[...this.panel.querySelectorAll(".row")].indexOf(document.activeElement)];
      if (!item) return;
      if ((e.key === "ArrowRight" && !app.open.has(item.key)) || (e.key === "ArrowLeft" && app.open.has(item.key))) {
        if (isContainer(item)) app.toggle(item);
        e.preventDefault();
        e.stopPropagation();
      }
    });
  }

  render() {
    const { app } = this;
    const { tree, query } = app;
    this.shown = [];
    const rows = [];
    const most = this.most();
    const visit = (item, depth) => {
      for (const c of item.children) {
        if (rows.length > 3000) return;
        rows.push(this.row(c, depth, most));
        this.shown.push(c);
        if (isContainer(c) && app.open.has(c.key)) visit(c, depth + 1);
      }
    };
    if (query) {
      for (const item of app.hits.slice(0, 400)) {
        rows.push(this.row(item, 0, most, true));
        this.shown.push(item);
      }
    } else visit(tree.root, 0);
    const title = query ? `${plural(app.hits.length, "match").replace(/matchs$/, "matches")}` : "Outline";
    const top = this.panel.scrollTop;
    this.panel.replaceChildren(h("div", { class: "sidehead" }, title,
      !query && h("span", {}, h("button", { class: "small", title: "Unfold all (e)", onclick: () => app.openAll() }, "unfold"), h("button", { class: "small", title: "Fold all (c)", onclick: () => app.closeAll() }, "fold"))),
      h("div", { class: "rows" }, rows));
    this.panel.scrollTop = top;
    this.mark();
  }

  /** The weight of an item, by which bars are drawn: time, else operations, else none. */
  weight(item) {
    const key = has.times ? "seconds" : has.costs ? "flops" : null;
    return key && this.app.graph.groups.length ? sum(item.kernels.map((k) => k[key])) : 0;
  }

  most() {
    return this.app.tree.root.children.length ? this.weight(this.app.tree.root) : 0;
  }

  row(item, depth, most, withPath = false) {
    const { app } = this;
    const folder = isContainer(item);
    const count = folder ? item.ops.length : "";
    const share = most && (folder || item.kind === "kernel") ? this.weight(item) / most : 0;
    const status = item.node && app.changes?.get(item);
    const where = withPath && item.node ? moduleOf(item.node) : "";
    return h("button", { class: `row${status ? ` ${status}` : ""}`, style: `padding-left: ${10 + 14 * depth}px`, "aria-expanded": folder ? String(app.open.has(item.key)) : null,
      onclick: (e) => (e.target.className === "twist" ? app.toggle(item) : app.select({ item }, true)), ondblclick: () => folder && app.toggle(item) },
    h("span", { class: "twist", "aria-hidden": "true" }, folder ? (app.open.has(item.key) ? "▾" : "▸") : ""),
    h("i", { style: `background: var(--${item.class})` }),
    h("span", { class: "label" }, item.label.replaceAll("_", " "), item.node && item.node.name !== item.label && h("span", { class: "faint" }, ` ${item.node.name}`), where && h("span", { class: "faint" }, ` ${where}`)),
    share > 0.004 && h("span", { class: "share", title: has.times ? "share of time" : "share of operations" }, h("i", { style: `width: ${100 * share}%` })),
    h("span", { class: "n" }, count));
  }

  /** Lights up the row of what is selected. */
  mark(scroll = false) {
    const { selection } = this.app;
    this.panel.querySelectorAll(".row").forEach((row, i) => {
      const on = selection?.item === this.shown[i];
      row.classList.toggle("on", on);
      if (on && scroll) row.scrollIntoView({ block: "nearest" });
    });
  }

  /** Selects the next item of the list, or the one before. */
  move(by) {
    if (!this.shown.length) return;
    const at = this.shown.indexOf(this.app.selection?.item);
    const next = Math.min(this.shown.length - 1, Math.max(0, at < 0 ? 0 : at + by));
    this.app.select({ item: this.shown[next] }, true);
  }
}
