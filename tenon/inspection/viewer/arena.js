// The arena as a picture: steps across, addresses up; above it how much of it is alive.

class ArenaView {
  constructor(app, parent) {
    this.app = app;
    this.parent = parent;
    this.temps = [...buffers.values()].filter((b) => b.kind === "temp" && b.nbytes);
    const end = Math.max(steps.length, 1);
    this.live = new Array(end).fill(0);
    for (const b of this.temps) for (let i = b.first; i <= Math.min(b.last, end - 1); i += 1) this.live[i] += Math.ceil(b.nbytes / 64) * 64;
    this.peak = Math.max(...this.live, 0);
    this.peakAt = this.live.indexOf(this.peak);
    this.maker = new Map();
    for (const s of steps) for (const w of s.writes) if (!this.maker.has(w)) this.maker.set(w, s);
  }

  render() {
    if (!this.temps.length) {
      this.parent.replaceChildren(h("p", { class: "empty" }, steps.length ? "This program has no temporaries." : "There is no memory plan: the reference interprets the graph."));
      return;
    }
    const waste = record.arena - this.peak;
    this.canvas = h("canvas", { class: "arena", tabindex: "0", role: "img", "aria-label": `The arena: ${bytesText(record.arena)}, ${this.temps.length} temporaries over ${steps.length} steps` });
    this.parent.replaceChildren(h("div", { class: "figures" },
      figure(bytesText(record.arena), "arena"),
      figure(bytesText(this.peak), `alive at most, at step ${this.peakAt}`),
      figure(percentText(record.arena ? waste / record.arena : 0), "lost to fragmentation"),
      figure(bytesText(sum(this.temps.map((b) => b.nbytes))), `in ${plural(this.temps.length, "temporary").replace(/ys$/, "ies")}, without reuse`),
      figure(Object.entries(record.sizes).map(([k, v]) => `${k} = ${v}`).join(", ") || "fixed", "sizes")), h("div", { class: "arenabox" }, this.canvas));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.canvas.addEventListener("pointermove", (e) => this.point(e));
    this.canvas.addEventListener("pointerleave", () => this.app.tip(null));
    this.canvas.addEventListener("click", (e) => {
      const found = this.hit(e);
      if (found) this.app.selectBuffer(found);
    });
  }

  area() {
    const { clientWidth: w, clientHeight: height } = this.canvas;
    const left = 74;
    const curve = Math.min(110, height * 0.2);
    const inner = { left, right: w - 18, top: curve + 34, bottom: height - 34, curveTop: 14, curveBottom: curve + 8 };
    const end = Math.max(steps.length, 1);
    inner.x = (step) => left + ((inner.right - left) * step) / end;
    inner.y = (byte) => inner.bottom - ((inner.bottom - inner.top) * byte) / record.arena;
    inner.step = (x) => Math.floor(((x - left) / (inner.right - left)) * end);
    return inner;
  }

  place(b, area) {
    const end = Math.max(steps.length, 1);
    const x = area.x(b.first);
    const y = area.y(b.offset + b.nbytes);
    return [x, y, Math.max(1.5, area.x(Math.min(b.last + 1, end)) - x), Math.max(1, area.y(b.offset) - y)];
  }

  hit(event) {
    const box = this.canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const area = this.area();
    return this.temps.find((b) => {
      const [x, y, w, height] = this.place(b, area);
      return px >= x && px <= x + w && py >= y && py <= y + height;
    });
  }

  point(event) {
    const found = this.hit(event);
    this.canvas.style.cursor = found ? "pointer" : "default";
    if (found !== this.over) {
      this.over = found;
      this.draw();
    }
    const box = this.canvas.getBoundingClientRect();
    const step = this.area().step(event.clientX - box.left);
    if (found) this.app.tip(event, h("b", {}, found.name), ` ${bytesText(found.nbytes)}`, h("br"), `at ${found.offset.toLocaleString("en")}, steps ${found.first}–${found.last}`, h("br"), this.maker.get(found.name)?.label || "");
    else if (steps[step]) this.app.tip(event, h("b", {}, `step ${step}`), ` ${steps[step].label}`, h("br"), `${bytesText(this.live[step])} alive`);
    else this.app.tip(null);
  }

  draw() {
    const { canvas } = this;
    if (!canvas?.clientWidth) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const c = canvas.getContext("2d");
    c.scale(ratio, ratio);
    const colours = this.app.view.colours;
    const area = this.area();
    c.font = "11px system-ui, sans-serif";

    // how much is alive
    const scale = (area.curveBottom - area.curveTop) / Math.max(record.arena, 1);
    c.beginPath();
    c.moveTo(area.x(0), area.curveBottom);
    this.live.forEach((n, i) => {
      c.lineTo(area.x(i), area.curveBottom - n * scale);
      c.lineTo(area.x(i + 1), area.curveBottom - n * scale);
    });
    c.lineTo(area.x(this.live.length), area.curveBottom);
    c.globalAlpha = 0.22;
    c.fillStyle = colours.accent;
    c.fill();
    c.globalAlpha = 1;
    c.strokeStyle = colours.accent;
    c.lineWidth = 1.5;
    c.stroke();
    c.strokeStyle = colours.removed;
    c.setLineDash([4, 4]);
    const peakY = area.curveBottom - this.peak * scale;
    line(c, area.left, peakY, area.right, peakY);
    c.setLineDash([]);
    c.fillStyle = colours.muted;
    c.textAlign = "right";
    c.textBaseline = "middle";
    c.fillText("alive", area.left - 8, (area.curveTop + area.curveBottom) / 2);
    c.fillStyle = colours.removed;
    c.fillText("peak", area.left - 8, peakY);

    // addresses
    c.fillStyle = colours.frame;
    c.fillRect(area.left, area.top, area.right - area.left, area.bottom - area.top);
    const unit = 2 ** Math.round(Math.log2(Math.max(record.arena, 64) / 5));
    c.strokeStyle = colours.line;
    c.lineWidth = 1;
    c.fillStyle = colours.muted;
    for (let at = 0; at <= record.arena; at += unit) {
      line(c, area.left, area.y(at), area.right, area.y(at));
      c.fillText(bytesText(at), area.left - 8, area.y(at));
    }
    const selected = this.app.selection?.buffer;
    const kernel = this.app.selection?.kernel;
    for (const b of this.temps) {
      const [x, y, w, height] = this.place(b, area);
      const maker = this.maker.get(b.name);
      const own = kernel && (kernel.writes.includes(b.name) || kernel.reads.includes(b.name));
      c.globalAlpha = (selected && selected !== b) || (kernel && !own) ? 0.35 : 0.85;
      c.fillStyle = colours[maker?.owner ? classOfAll(kernelNodes(maker.owner)) : "source"];
      c.fillRect(x, y, w, height);
      c.globalAlpha = 1;
      c.strokeStyle = colours.panel;
      c.lineWidth = 0.75;
      if (height > 3 && w > 3) c.strokeRect(x, y, w, height);
      if (b === this.over || b === selected) {
        c.strokeStyle = colours.text;
        c.lineWidth = 2;
        c.strokeRect(x, y, w, height);
      }
      if (height > 14 && w > 60) {
        c.save();
        c.beginPath();
        c.rect(x, y, w - 4, height);
        c.clip();
        c.fillStyle = "#fff";
        c.textAlign = "left";
        c.fillText(`${b.name}  ${bytesText(b.nbytes)}`, x + 6, y + height / 2);
        c.restore();
        c.textAlign = "right";
      }
    }
    c.strokeStyle = colours.removed;
    c.setLineDash([4, 4]);
    line(c, area.x(this.peakAt + 0.5), area.top, area.x(this.peakAt + 0.5), area.bottom);
    c.setLineDash([]);

    // steps
    c.fillStyle = colours.muted;
    c.textAlign = "center";
    const every = Math.max(1, Math.round(nice(steps.length / 10)));
    for (let i = 0; i <= steps.length; i += every) c.fillText(i, area.x(i), area.bottom + 13);
    c.fillText("steps of the program", (area.left + area.right) / 2, area.bottom + 27);
  }
}

const figure = (value, label) => h("div", { class: "figure" }, h("b", {}, value), h("span", {}, label));

function line(c, x, y, toX, toY) {
  c.beginPath();
  c.moveTo(x, y);
  c.lineTo(toX, toY);
  c.stroke();
}

/** A round number near to `value`. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].find((f) => f * power >= value) * power;
}
