// Drawing the scene, and moving about in it: pan, zoom, pointing. Little is drawn of what is small.

class GraphCanvas {
  constructor(parent, events) {
    this.events = events;
    this.canvas = h("canvas", { class: "graph", tabindex: "0", role: "application", "aria-roledescription": "graph" });
    this.map = h("canvas", { class: "minimap", "aria-hidden": "true" });
    parent.append(this.canvas, this.map);
    this.context = this.canvas.getContext("2d");
    this.camera = { x: 0, y: 0, scale: 1 };
    this.scene = null;
    this.marks = { selected: new Set(), hits: null, changes: null, gone: null, shade: null };
    this.hover = null;
    this.pending = false;
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    this.listen();
    this.readColours();
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    this.colours = Object.fromEntries(["panel", "back", "text", "muted", "line", "edge", "accent", "in", "out", "added", "rewritten",
      "removed", "hit", "frame", "inner", "hot", ...ORDER].map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
    this.redraw();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    const ratio = devicePixelRatio || 1;
    const first = !this.canvas.dataset.sized;
    this.canvas.width = clientWidth * ratio;
    this.canvas.height = clientHeight * ratio;
    this.canvas.dataset.sized = "1";
    if (first && this.scene) this.fit();
    this.draw();
  }

  // --- camera ---

  show(scene, anchor) {
    const before = this.scene;
    this.scene = scene;
    if (!before || !anchor) this.fit();
    else {
      // What was under the pointer stays there.
      this.camera.x += (anchor.item.X - anchor.x) * this.camera.scale;
      this.camera.y += (anchor.item.Y - anchor.y) * this.camera.scale;
    }
    this.drawMap();
    this.redraw();
  }

  fit(box) {
    const { clientWidth: w, clientHeight: height } = this.canvas;
    if (!this.scene || !w) return;
    const target = box || { X: 0, Y: 0, w: this.scene.w, h: this.scene.h };
    const margin = 36;
    const scale = Math.min((w - 2 * margin) / target.w, (height - 2 * margin) / target.h, box ? 1.4 : 1.1);
    this.camera = {
      scale,
      x: (target.X + target.w / 2) * scale - w / 2,
      y: (target.Y + target.h / 2) * scale - height / 2,
    };
    this.redraw();
  }

  /** Brings a box into view, near enough to read. */
  reveal(box) {
    const { clientWidth: w, clientHeight: height } = this.canvas;
    const scale = Math.max(this.camera.scale, 0.75);
    const left = box.X * this.camera.scale - this.camera.x;
    const top = box.Y * this.camera.scale - this.camera.y;
    const inside = scale === this.camera.scale && left > 20 && top > 20 && left + box.w * scale < w - 20 && top + box.h * scale < height - 20;
    if (inside) return this.redraw();
    this.glide({ scale, x: (box.X + box.w / 2) * scale - w / 2, y: (box.Y + box.h / 2) * scale - height / 2 });
  }

  glide(to) {
    const from = { ...this.camera };
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const start = performance.now();
    const step = (now) => {
      const t = still ? 1 : Math.min(1, (now - start) / 180);
      const s = t * (2 - t);
      for (const k of ["x", "y", "scale"]) this.camera[k] = from[k] + (to[k] - from[k]) * s;
      this.draw();
      if (t < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const { camera } = this;
    const scale = Math.min(3, Math.max(0.01, camera.scale * factor));
    camera.x = ((camera.x + x) * scale) / camera.scale - x;
    camera.y = ((camera.y + y) * scale) / camera.scale - y;
    camera.scale = scale;
    this.redraw();
  }

  at(event) {
    const area = this.canvas.getBoundingClientRect();
    return [(event.clientX - area.left + this.camera.x) / this.camera.scale, (event.clientY - area.top + this.camera.y) / this.camera.scale];
  }

  /** What is under the pointer: a box, else the head of the innermost frame. */
  hit(event) {
    if (!this.scene) return null;
    const [x, y] = this.at(event);
    const inside = (b, height) => x >= b.X && x <= b.X + b.w && y >= b.Y && y <= b.Y + height;
    for (const b of this.scene.boxes) if (inside(b, b.h)) return b;
    for (let i = this.scene.frames.length - 1; i >= 0; i -= 1) {
      const frame = this.scene.frames[i];
      if (inside(frame, Math.max(PAD.top, 16 / this.camera.scale))) return frame;
    }
    return null;
  }

  listen() {
    const { canvas } = this;
    let drag = null;
    canvas.addEventListener("pointerdown", (e) => {
      drag = { x: e.clientX, y: e.clientY, camera: { ...this.camera }, moved: false };
      canvas.setPointerCapture(e.pointerId);
    });
    canvas.addEventListener("pointermove", (e) => {
      if (drag) {
        const dx = e.clientX - drag.x;
        const dy = e.clientY - drag.y;
        drag.moved ||= Math.abs(dx) + Math.abs(dy) > 4;
        if (drag.moved) {
          this.camera.x = drag.camera.x - dx;
          this.camera.y = drag.camera.y - dy;
          this.redraw();
        }
        return;
      }
      const found = this.hit(e);
      canvas.style.cursor = found ? "pointer" : "grab";
      if (found !== this.hover) {
        this.hover = found;
        this.redraw();
      }
      this.events.hover(found, e);
    });
    canvas.addEventListener("pointerup", (e) => {
      const moved = drag && drag.moved;
      drag = null;
      if (!moved) this.events.click(this.hit(e), e);
    });
    canvas.addEventListener("pointerleave", (e) => {
      this.hover = null;
      this.events.hover(null, e);
      this.redraw();
    });
    canvas.addEventListener("dblclick", (e) => this.events.open(this.hit(e)));
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      const area = canvas.getBoundingClientRect();
      if (e.ctrlKey || e.metaKey || !e.shiftKey) this.zoom(Math.exp(-e.deltaY * (e.ctrlKey ? 0.01 : 0.0016)), e.clientX - area.left, e.clientY - area.top);
      else {
        this.camera.x += e.deltaX + e.deltaY;
        this.redraw();
      }
    }, { passive: false });
    const jump = (e) => {
      if (!e.buttons || !this.scene) return;
      const area = this.map.getBoundingClientRect();
      const [x, y] = [(e.clientX - area.left) / this.mapScale, (e.clientY - area.top) / this.mapScale];
      this.camera.x = x * this.camera.scale - canvas.clientWidth / 2;
      this.camera.y = y * this.camera.scale - canvas.clientHeight / 2;
      this.redraw();
    };
    this.map.addEventListener("pointerdown", jump);
    this.map.addEventListener("pointermove", jump);
  }

  // --- drawing ---

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  draw() {
    const { canvas, context: c, scene, camera } = this;
    if (!canvas.width || !scene) return;
    const ratio = devicePixelRatio || 1;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    const scale = camera.scale * ratio;
    c.setTransform(scale, 0, 0, scale, -camera.x * ratio, -camera.y * ratio);
    const view = { left: camera.x / camera.scale, top: camera.y / camera.scale,
      right: (camera.x + canvas.clientWidth) / camera.scale, bottom: (camera.y + canvas.clientHeight) / camera.scale };
    const visible = (b) => b.X < view.right && b.X + b.w > view.left && b.Y < view.bottom && b.Y + b.h > view.top;
    for (const frame of scene.frames) if (visible(frame)) this.drawFrame(frame);
    this.drawEdges(view);
    const detail = camera.scale;
    for (const box of scene.boxes) if (visible(box)) this.drawBox(box, detail);
    this.written = []; // where names of frames stand, so that they do not cover each other
    if (detail <= 0.5) for (const frame of scene.frames) if (visible(frame)) this.drawFrameName(frame);
    c.setTransform(1, 0, 0, 1, 0, 0);
    this.drawWindow(view);
  }

  drawFrame(frame) {
    const { context: c, colours, camera } = this;
    c.fillStyle = frame.depth % 2 ? colours.frame : colours.inner;
    c.strokeStyle = this.marks.selected.has(frame) ? colours.accent : colours.line;
    c.lineWidth = (this.marks.selected.has(frame) ? 2 : 1) / Math.max(camera.scale, 0.5);
    rounded(c, frame.X, frame.Y, frame.w, frame.h, 10);
    c.fill();
    c.stroke();
    if (camera.scale > 0.5) {
      c.fillStyle = colours.muted;
      c.font = `${TITLE} system-ui, sans-serif`;
      c.textBaseline = "middle";
      c.fillText(`▾ ${frame.label}`, frame.X + 12, frame.Y + 17);
    }
  }

  /** From afar, the name of a frame is written as large as there is room for, once it is the outermost that fits. */
  drawFrameName(frame) {
    const { context: c, colours, camera } = this;
    const size = Math.min(12 / camera.scale, camera.scale > 0.3 ? PAD.top - 10 : Infinity);
    const text = clipText(frame.label, Math.floor((frame.w * camera.scale - 10) / 7));
    const box = { x: frame.X + 5 / camera.scale, y: frame.Y + Math.min(5, 3 / camera.scale), w: text.length * 0.58 * size, h: 1.2 * size };
    if (text.length < 3 || frame.h < box.h) return;
    if (this.written.some((o) => box.x < o.x + o.w && o.x < box.x + box.w && box.y < o.y + o.h && o.y < box.y + box.h)) return;
    this.written.push(box);
    c.font = `600 ${size}px system-ui, sans-serif`;
    c.textBaseline = "top";
    c.fillStyle = colours.muted;
    c.fillText(text, box.x, box.y);
  }

  drawEdges(view) {
    const { context: c, colours, camera, scene, marks } = this;
    const near = [];
    const plain = new Path2D();
    const far = new Path2D();
    const focus = marks.selected.size ? marks.selected : this.hover ? new Set([this.hover]) : null;
    for (const e of scene.edges) {
      const xs = [Math.min(e.from.X, e.to.X), Math.max(e.from.X + e.from.w, e.to.X + e.to.w)];
      const ys = [Math.min(e.from.Y, e.to.Y) - 200, Math.max(e.from.Y + e.from.h, e.to.Y + e.to.h) + 200];
      if (xs[0] > view.right || xs[1] < view.left || ys[0] > view.bottom || ys[1] < view.top) continue;
      const out = focus && within(e.from, focus);
      const into = focus && within(e.to, focus);
      if (out !== into) near.push([e, out ? colours.out : colours.in]);
      else curve(e.far || e.from.flow !== e.to.flow ? far : plain, e);
    }
    const dim = near.length ? 0.45 : 1;
    c.lineWidth = Math.min(1.4, Math.max(1, 0.7 / camera.scale));
    c.strokeStyle = colours.edge;
    c.globalAlpha = dim;
    c.stroke(plain);
    c.globalAlpha = 0.3 * dim;
    c.stroke(far);
    c.globalAlpha = 1;
    for (const [e, colour] of near) {
      const path = new Path2D();
      curve(path, e);
      c.strokeStyle = colour;
      c.lineWidth = Math.max(1.8, 1.3 / camera.scale);
      c.stroke(path);
      arrow(c, e, colour, Math.max(1, 0.6 / camera.scale));
    }
    if (camera.scale > 0.45 && near.length < 400) {
      for (const e of scene.edges) {
        const [x, y] = e.points[e.points.length - 1];
        if (x < view.left || x > view.right || y < view.top || y > view.bottom) continue;
        if (!near.some((n) => n[0] === e)) arrow(c, e, colours.edge, 0.8);
      }
    }
  }

  drawBox(box, detail) {
    const { context: c, colours, marks } = this;
    const colour = colours[box.class] || colours.source;
    const faded = (marks.hits && !marks.hits.has(box)) || (marks.changes && !marks.changes.has(box) && !marks.gone?.has(box));
    c.globalAlpha = faded ? 0.32 : 1;
    const folder = isContainer(box);
    if (detail < 0.16) {
      c.fillStyle = marks.shade ? this.heat(marks.shade(box)) : colour;
      c.fillRect(box.X, box.Y, box.w, box.h);
    } else {
      if (folder && box.kind !== "kernel") {
        c.fillStyle = colours.panel;
        c.strokeStyle = colours.line;
        c.lineWidth = 1;
        rounded(c, box.X + 4, box.Y + 4, box.w, box.h, 7);
        c.fill();
        c.stroke();
      }
      c.fillStyle = colours.panel;
      rounded(c, box.X, box.Y, box.w, box.h, box.kind === "port" ? box.h / 2 : 7);
      c.fill();
      if (marks.shade) {
        c.globalAlpha *= 0.85;
        c.fillStyle = this.heat(marks.shade(box));
        c.fill();
        c.globalAlpha = faded ? 0.32 : 1;
      }
      c.strokeStyle = colours.line;
      c.lineWidth = 1;
      c.stroke();
      c.fillStyle = colour;
      if (box.kind === "port") {
        c.beginPath();
        c.arc(box.X + 13, box.Y + box.h / 2, 4, 0, 7);
        c.fill();
      } else {
        c.save();
        rounded(c, box.X, box.Y, box.w, box.h, 7);
        c.clip();
        c.fillRect(box.X, box.Y, 5, box.h);
        c.restore();
      }
      if (detail > 0.3) this.write(box, detail);
    }
    const status = marks.changes?.get(box) || (marks.gone?.has(box) && "removed");
    if (status || marks.selected.has(box) || marks.hits?.has(box) || this.hover === box) {
      c.globalAlpha = 1;
      c.strokeStyle = marks.selected.has(box) ? colours.accent : status ? colours[status] : marks.hits?.has(box) ? colours.hit : colours.muted;
      c.lineWidth = (this.hover === box && !marks.selected.has(box) && !status ? 1.2 : 2.4) / Math.min(1, Math.max(0.25, detail));
      c.setLineDash(status === "removed" ? [6, 4] : []);
      rounded(c, box.X - 1, box.Y - 1, box.w + 2, box.h + 2, box.kind === "port" ? box.h / 2 : 8);
      c.stroke();
      c.setLineDash([]);
    }
    c.globalAlpha = 1;
  }

  write(box, detail) {
    const { context: c, colours } = this;
    const x = box.X + (box.kind === "port" ? 22 : 14);
    c.textBaseline = "alphabetic";
    c.fillStyle = colours.text;
    c.font = `${TITLE} system-ui, sans-serif`;
    c.fillText(box.title, x, box.Y + 18);
    if (detail < 0.42) return;
    c.font = `${TEXT} system-ui, sans-serif`;
    c.fillStyle = colours.muted;
    if (box.subtitle) c.fillText(box.subtitle, x, box.Y + 33);
    box.chips.forEach((chip, i) => {
      c.fillStyle = chip.kind === "written" ? colours.out : chip.kind === "read" ? colours.in : colours.muted;
      c.fillText(chip.text, x, box.Y + 48 + 15 * i);
    });
  }

  /** A colour for a share from 0 to 1: from the panel's to hot. */
  heat(share) {
    return mixed(this.colours.panel, this.colours.hot, 0.05 + 0.8 * Math.sqrt(Math.min(1, share)));
  }

  // --- minimap ---

  drawMap() {
    const { scene, map } = this;
    const ratio = devicePixelRatio || 1;
    this.mapScale = Math.min(190 / scene.w, 110 / scene.h);
    const [w, height] = [Math.max(24, scene.w * this.mapScale), Math.max(12, scene.h * this.mapScale)];
    map.style.width = `${w}px`;
    map.style.height = `${height}px`;
    map.width = w * ratio;
    map.height = height * ratio;
    this.thumbnail = new OffscreenCanvas(map.width, map.height);
    const c = this.thumbnail.getContext("2d");
    c.scale(this.mapScale * ratio, this.mapScale * ratio);
    c.fillStyle = this.colours.frame;
    for (const f of scene.frames) if (f.depth <= 2) c.fillRect(f.X, f.Y, f.w, f.h);
    for (const b of scene.boxes) {
      c.fillStyle = this.colours[b.class] || this.colours.source;
      c.fillRect(b.X, b.Y, Math.max(b.w, 1.5 / this.mapScale), Math.max(b.h, 1.5 / this.mapScale));
    }
  }

  drawWindow(view) {
    const { map, scene } = this;
    const whole = view.left <= 0 && view.top <= 0 && view.right >= scene.w && view.bottom >= scene.h;
    map.hidden = whole;
    if (whole || !this.thumbnail) return;
    const c = map.getContext("2d");
    const k = this.mapScale * (devicePixelRatio || 1);
    c.clearRect(0, 0, map.width, map.height);
    c.drawImage(this.thumbnail, 0, 0);
    c.strokeStyle = this.colours.accent;
    c.lineWidth = 2;
    c.strokeRect(view.left * k, view.top * k, (view.right - view.left) * k, (view.bottom - view.top) * k);
  }
}

function within(item, set) {
  for (let at = item; at; at = at.parent) if (set.has(at)) return true;
  return false;
}

function rounded(c, x, y, w, height, radius) {
  c.beginPath();
  c.roundRect(x, y, w, height, radius);
}

/** An edge as curves that leave and enter level; along a bend it runs straight through the column. */
function curve(path, e) {
  const { points } = e;
  const [start] = points;
  path.moveTo(start[0], start[1]);
  const flow = e.from.flow;
  let [x, y] = start;
  for (let i = 1; i < points.length; i += 1) {
    const last = i === points.length - 1;
    const [px, py, half] = points[i];
    const enter = px - flow * half;
    const around = e.turns[i - 1];
    if (around) {
      // off the end of the row, back below it, and into the next
      const r = 8;
      path.lineTo(around.right - flow * r, y);
      path.quadraticCurveTo(around.right, y, around.right, y + r);
      path.lineTo(around.right, around.y - r);
      path.quadraticCurveTo(around.right, around.y, around.right - flow * r, around.y);
      path.lineTo(around.left + flow * r, around.y);
      path.quadraticCurveTo(around.left, around.y, around.left, around.y + r);
      path.lineTo(around.left, py - r);
      path.quadraticCurveTo(around.left, py, around.left + flow * r, py);
      path.lineTo(enter, py);
    } else {    const out = i === 1 ? flow : e.from.flow;
    const into = last ? e.to.flow : e.from.flow;
    const turn = out !== into || (px - x) * flow < 0;
    const reach = turn ? Math.min(160, 40 + Math.abs(py - y) * 0.2) : Math.abs(enter - x) / 2;
    path.bezierCurveTo(x + out * reach, y, enter - into * reach, py, enter, py);
    }
    if (half) path.lineTo(px + flow * half, py);
    x = px + flow * half;
    y = py;
  }
}

function arrow(c, e, colour, size) {
  const [x, y] = e.points[e.points.length - 1];
  const way = e.to.flow;
  c.fillStyle = colour;
  c.beginPath();
  c.moveTo(x, y);
  c.lineTo(x - way * 7 * size, y - 3.5 * size);
  c.lineTo(x - way * 7 * size, y + 3.5 * size);
  c.fill();
}

/** Between two colours of the form #rrggbb. */
function mixed(from, to, share) {
  const parts = [1, 3, 5].map((i) => {
    const [a, b] = [from, to].map((colour) => parseInt(colour.slice(i, i + 2), 16));
    return Math.round(a + (b - a) * share);
  });
  return `rgb(${parts.join()})`;
}
