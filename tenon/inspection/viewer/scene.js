// What is drawn: the boxes of a tree with some of it folded, where they are, and the edges between them.

const PAD = { x: 16, top: 34, bottom: 16 };

/**
 * The scene of `tree` with the containers in `open` unfolded. `folded` puts the backward pass below the forward one,
 * right to left. Returns {boxes, frames, edges, w, h}; all with x, y, w, h, edges with their points.
 */
function sceneOf(tree, open, folded) {
  const scene = { boxes: [], frames: [], edges: [], tree, boxOf: new Map() };
  const visit = (item, flow) => {
    item.flow = flow;
    if (isContainer(item) && open.has(item.key)) {
      if (item.key) scene.frames.push(item);
      for (const c of item.children) visit(c, folded && c.kind === "phase" && c.phase > 0 ? -1 : flow);
    } else {
      measure(item, tree.graph);
      scene.boxes.push(item);
    }
  };
  visit(tree.root, 1);
  scene.edges = edgesOf(tree, scene);
  const between = liftEdges(scene.edges);
  place(tree.root, open, between, folded);
  settleDown(tree.root, open, 0, 0);
  for (const e of scene.edges) route(e);
  scene.w = tree.root.w;
  scene.h = tree.root.h;
  return scene;
}

// --- boxes ---

const TITLE = "600 12px";
const TEXT = "11px";
const ruler = document.createElement("canvas").getContext("2d");
const widths = new Map();

function widthOf(text, font) {
  const key = font + text;
  let width = widths.get(key);
  if (width === undefined) {
    ruler.font = `${font} system-ui, sans-serif`;
    width = ruler.measureText(text).width;
    widths.set(key, width);
  }
  return width;
}

const clipText = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

/** What stands in a box: a title, a line below it, the state that it reads and writes; and the box's size. */
function measure(item, graph) {
  const members = item.ops;
  item.chips = [];
  if (item.kind === "op") {
    item.title = item.node.op;
    item.subtitle = clipText(item.node.types[0]?.[1] || "", 34);
  } else if (item.kind === "kernel") {
    item.title = clipText(item.label.replaceAll("_", " "), 34);
    item.subtitle = clipText(resultOf(item, graph), 34);
  } else if (item.kind === "port") {
    item.title = item.label;
    item.subtitle = item.node ? clipText(item.node.types[0][1], 30) : "";
  } else {
    item.title = item.label;
    item.subtitle = item.kernels.length && graph.groups.length ? plural(item.kernels.length, "kernel") : plural(members.length, "op");
  }
  if (item.kind === "op" || item.kind === "kernel") {
    const read = new Set();
    const written = new Set();
    for (const n of members) {
      for (const v of n.inputs) if (graph.byName.get(v)?.op === "state") read.add(graph.byName.get(v).title);
      for (const v of n.outputs) for (const s of graph.written.get(v) || []) written.add(s);
    }
    for (const s of read) if (!written.has(s)) item.chips.push({ text: s, kind: "read" });
    for (const s of written) item.chips.push({ text: `→ ${s}`, kind: "written" });
    const more = item.chips.length - 3;
    if (more > 0) item.chips.splice(3, more, { text: `and ${more} more`, kind: "more" });
    for (const c of item.chips) c.text = clipText(c.text, 32);
  }
  const small = item.kind === "port";
  const lines = [widthOf(item.title, TITLE), widthOf(item.subtitle, TEXT), ...item.chips.map((c) => widthOf(c.text, TEXT) + 4)];
  item.w = Math.round(Math.min(290, Math.max(small ? 60 : 88, ...lines) + 26));
  item.h = 26 + (item.subtitle ? 15 : 4) + item.chips.length * 15;
}

function resultOf(item, graph) {
  const inside = new Set(item.members.map((n) => n.name));
  const leaving = item.members.filter((n) => n.outputs.some((v) =>
    (graph.users.get(v) || []).some((u) => !inside.has(u.name)) || graph.outputs.includes(v) || graph.written.has(v)));
  const last = leaving[0] || item.members[item.members.length - 1];
  return `${last.types[0][1]}${leaving.length > 1 ? ` +${leaving.length - 1}` : ""}`;
}

// --- edges ---

/** One edge for each pair of boxes that values go between; values that are state are written in the boxes instead. */
function edgesOf(tree, scene) {
  const { graph } = tree;
  const shown = new Set(scene.boxes);
  const box = (item) => {
    while (item && !shown.has(item)) item = item.parent;
    return item;
  };
  const boxOf = new Map();
  for (const [name, item] of tree.leafOf) boxOf.set(name, visibleFrom(item, shown));
  scene.boxOf = boxOf;
  const found = new Map();
  const add = (from, to, value, bytes) => {
    if (!from || !to || from === to) return;
    const key = `${from.key}|${to.key}`;
    let edge = found.get(key);
    if (!edge) found.set(key, (edge = { from, to, values: [], bytes: 0 }));
    if (!edge.values.includes(value)) {
      edge.values.push(value);
      edge.bytes += bytes;
    }
  };
  for (const user of graph.nodes) {
    for (const value of user.inputs) {
      const maker = graph.maker.get(value);
      if (!maker || maker.op === "state") continue;
      add(boxOf.get(maker.name), boxOf.get(user.name), value, maker.types.find((t) => t[0] === value)[2]);
    }
  }
  for (const item of tree.byKey.values()) {
    if (item.value === undefined) continue;
    add(boxOf.get(item.maker.name), box(item), item.value, 0);
  }
  return [...found.values()];
}

function visibleFrom(item, shown) {
  let at = item;
  let found = null;
  while (at) {
    if (shown.has(at)) found = at;
    at = at.parent;
  }
  return found;
}

/** The edges by the container in which both ends are, in different children. */
function liftEdges(edges) {
  const between = new Map();
  for (const edge of edges) {
    let a = edge.from;
    let b = edge.to;
    while (a.depth > b.depth) a = a.parent;
    while (b.depth > a.depth) b = b.parent;
    while (a.parent !== b.parent) {
      a = a.parent;
      b = b.parent;
    }
    edge.outer = a;
    edge.inner = b;
    edge.home = a.parent;
    push(between, a.parent, edge);
  }
  return between;
}

// --- places ---

/** Lays out the inside of `item`, deepest containers first. Children's x and y are relative to the container. */
function place(item, open, between, folded) {
  if (!isContainer(item) || !open.has(item.key)) return;
  for (const c of item.children) place(c, open, between, folded);
  const inside = between.get(item) || [];
  const merged = new Map();
  for (const edge of inside) {
    const key = `${edge.outer.key}|${edge.inner.key}`;
    let lane = merged.get(key);
    if (!lane) {
      lane = { from: edge.outer, to: edge.inner, fromY: middle(edge.from, edge.outer), toY: middle(edge.to, edge.inner) };
      merged.set(key, lane);
    }
    edge.lane = lane;
  }
  const lanes = [...merged.values()];
  const phases = item.children.filter((c) => c.kind === "phase");
  const size = item.key === "" && folded && phases.length > 1 ? inRows(item, lanes) : layered(item.children, lanes);
  const mirrored = item.flow < 0;
  const pad = item.key ? PAD : { x: 0, top: 0, bottom: 0 };
  if (mirrored) {
    for (const c of item.children) c.x = size.w - c.x - c.w;
    for (const lane of lanes) {
      for (const b of lane.bends) b[0] = size.w - b[0];
      for (const t of lane.turns) if (t) Object.assign(t, { right: size.w - t.right, left: size.w - t.left });
    }
  }
  for (const c of item.children) {
    c.x += pad.x;
    c.y += pad.top;
  }
  for (const lane of lanes) {
    for (const b of lane.bends) {
      b[0] += pad.x;
      b[1] += pad.top;
    }
    for (const t of lane.turns) if (t) Object.assign(t, { right: t.right + pad.x, left: t.left + pad.x, y: t.y + pad.top });
  }
  item.w = Math.max(size.w + 2 * pad.x, item.key ? widthOf(item.label, TITLE) + 90 : 0);
  item.h = size.h + pad.top + pad.bottom;
}

/** The phases one below the other, the others before them. */
function inRows(item, lanes) {
  const rows = [...item.children].sort((a, b) => (a.phase ?? -1) - (b.phase ?? -1));
  const w = Math.max(...rows.map((c) => c.w));
  let y = 0;
  for (const c of rows) {
    c.x = c.flow < 0 ? w - c.w : 0;
    c.y = y;
    y += c.h + 3 * GAP.row;
  }
  for (const lane of lanes) Object.assign(lane, { bends: [], turns: [] });
  return { w, h: y - 3 * GAP.row };
}

/**
 * How far the middle of `leaf` is from the middle of the container `top` around it, as far as that counts for where
 * containers stand: if it counted in full, a chain of tall ones would be a staircase.
 */
function middle(leaf, top) {
  let y = leaf.h / 2;
  for (let at = leaf; at !== top; at = at.parent) y += at.y;
  return Math.max(-24, Math.min(24, y - top.h / 2));
}

function settleDown(item, open, x, y) {
  item.X = x;
  item.Y = y;
  if (isContainer(item) && open.has(item.key)) for (const c of item.children) settleDown(c, open, x + c.x, y + c.y);
}

/** The points of an edge: out of its first box, over the bends, into the second. */
function route(edge) {
  const { from, to, home } = edge;
  const bends = edge.lane.bends.map(([x, y, half]) => [x + home.X, y + home.Y, half]);
  edge.turns = edge.lane.turns.map((t) => t && { right: t.right + home.X, left: t.left + home.X, y: t.y + home.Y });
  edge.points = [
    [from.flow > 0 ? from.X + from.w : from.X, from.Y + from.h / 2, 0],
    ...bends,
    [to.flow > 0 ? to.X : to.X + to.w, to.Y + to.h / 2, 0],
  ];
  edge.far = edge.lane.flip || (!bends.length && !edge.turns.length && Math.abs(edge.points[1][0] - edge.points[0][0]) > 1200);
  delete edge.lane;
}
