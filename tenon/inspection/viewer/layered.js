// Layered layout of one container, in time about linear in its boxes and edges: ranks by the longest path, order in a
// rank by barycentres, heights by least squares (isotonic regression, Barlow and others 1972) towards the neighbours.

const GAP = { column: 40, row: 14, bend: 8 };
const BREAK = { width: 1500, aspect: 2.2, gutter: 34, lane: 5, margin: 30 };
const FAR = 24; // edges over more ranks than this are drawn without bends

/**
 * Gives every item (w, h, order) an x and a y. `edges`: [{from, to, fromY, toY}] with items, and the heights relative to
 * their middle at which the edge leaves and enters. Returns {w, h}; edges get `bends`, points on their way.
 */
function layered(items, edges) {
  const index = new Map(items.map((item, i) => [item, i]));
  const count = items.length;
  const succ = items.map(() => []);
  const pred = items.map(() => []);
  for (const e of edges) {
    const flip = e.from.order > e.to.order;
    const [a, b] = flip ? [index.get(e.to), index.get(e.from)] : [index.get(e.from), index.get(e.to)];
    if (a === b) continue;
    succ[a].push(b);
    pred[b].push(a);
    e.a = a;
    e.b = b;
    e.flip = flip;
  }
  const byOrder = items.map((_, i) => i).sort((i, j) => items[i].order - items[j].order || i - j);
  const rank = ranks(byOrder, succ, pred);
  const loose = byOrder.filter((i) => !succ[i].length && !pred[i].length);
  const bound = byOrder.filter((i) => succ[i].length || pred[i].length);
  splitTall(bound, rank, Math.max(10, Math.ceil(Math.sqrt(count) * 1.7)));

  const layers = [];
  const slots = items.map((item, i) => ({ item, h: item.h, key: item.order, y: 0, before: [], after: [], weight: 1, rank: rank[i] }));
  for (const i of bound) (layers[rank[i]] = layers[rank[i]] || []).push(slots[i]);
  for (const e of edges) {
    e.bends = [];
    e.turns = [];
    if (e.a === undefined) continue;
    const span = rank[e.b] - rank[e.a];
    const [startY, endY] = e.flip ? [e.toY, e.fromY] : [e.fromY, e.toY];
    let last = slots[e.a];
    let lastY = startY;
    if (span > 1 && span <= FAR) {
      e.chain = [];
      for (let r = rank[e.a] + 1; r < rank[e.b]; r += 1) {
        const bend = { item: null, h: GAP.bend, key: items[e.a].order, y: 0, before: [], after: [], weight: 2, rank: r };
        join(last, lastY, bend, 0, 4);
        layers[r].push(bend);
        e.chain.push(bend);
        last = bend;
        lastY = 0;
      }
    }
    if (span <= FAR) join(last, lastY, slots[e.b], endY, span > 1 ? 4 : 1);
  }
  arrange(layers);

  const columns = inColumns(layers);
  for (const layer of layers) {
    for (const s of layer) {
      const { x, width, down } = columns[s.rank];
      s.y += down;
      if (!s.item) continue;
      s.item.x = x + (width - s.item.w) / 2;
      s.item.y = s.y - s.h / 2;
    }
  }
  for (const e of edges) if (e.a !== undefined) bend(e, rank, columns);
  let width = Math.max(0, ...columns.map((c) => c.x + c.width));
  let bottom = Math.max(0, ...columns.map((c) => c.bottom));
  if (loose.length) {
    const grid = shelves(loose.map((i) => items[i]), Math.max(width, 700), layers.length ? bottom + 2 * GAP.row : 0);
    width = Math.max(width, grid.w);
    bottom = grid.h;
  }
  return { w: width, h: bottom };
}

/**
 * Where the column of each layer is: x, width, and how far its slots move down. A long row of columns is broken into
 * several, as a text into lines, where few edges cross.
 */
function inColumns(layers) {
  if (!layers.length) return [];
  const extents = (some) => [Math.min(...some.flat().map((s) => s.y - s.h / 2)), Math.max(...some.flat().map((s) => s.y + s.h / 2))];
  const columns = layers.map((layer) => {
    const width = Math.max(...layer.map((s) => (s.item ? s.item.w : 0)));
    const crossing = sum(layer.map((s) => s.after.length));
    return { width, crossing, gap: GAP.column + Math.min(60, crossing * 1.2) };
  });
  const whole = sum(columns.map((c) => c.width + c.gap));
  const [low, high] = extents(layers);
  const rows = whole > BREAK.width ? Math.max(1, Math.round(Math.sqrt(whole / (high - low + BREAK.gutter) / BREAK.aspect))) : 1;
  const wanted = whole / rows;
  let start = 0;
  let y = 0;
  for (let row = 0; start < layers.length; row += 1) {
    let end = start;
    for (let x = 0; end < layers.length && (row === rows - 1 || x < wanted * 1.1); end += 1) x += columns[end].width + columns[end].gap;
    if (end < layers.length) {
      // the fewest crossings among the last few columns of the row
      let best = end;
      for (let i = end; i > start + 1 && i > end - 4; i -= 1) if (columns[i - 1].crossing < columns[best - 1].crossing) best = i;
      end = best;
    }
    const [top, bottom] = extents(layers.slice(start, end));
    const lanes = end < layers.length ? columns[end - 1].crossing : 0;
    let x = rows > 1 ? BREAK.margin : 0;
    for (let i = start; i < end; i += 1) {
      Object.assign(columns[i], { row, x, down: y - top, bottom: y + bottom - top, lane: 0 });
      x += columns[i].width + columns[i].gap;
    }
    columns[end - 1].right = x - columns[end - 1].gap;
    y += bottom - top + BREAK.gutter + lanes * BREAK.lane;
    start = end;
  }
  return columns;
}

/** The points that an edge goes through; where it goes on in the next row, how it gets there. */
function bend(e, rank, columns) {
  const chain = e.chain || [];
  e.bends = chain.map((s) => [columns[s.rank].x + columns[s.rank].width / 2, s.y, columns[s.rank].width / 2]);
  e.turns = [];
  if (rank[e.b] - rank[e.a] <= FAR) {
    for (let r = rank[e.a], i = 0; r < rank[e.b]; r += 1, i += 1) {
      if (columns[r].row === columns[r + 1].row) continue;
      const lane = columns[r].lane++ * BREAK.lane;
      e.turns[i] = { right: columns[r].right + 14 + lane, y: columns[r].bottom + BREAK.gutter / 2 + lane, left: columns[r + 1].x - 14 - lane / 2 };
    }
  }
  if (e.flip) Object.assign(e, { bends: [], turns: [] }); // it goes back, over everything
  delete e.chain;
}

function ranks(byOrder, succ, pred) {
  const rank = new Array(byOrder.length).fill(0);
  for (const i of byOrder) for (const j of succ[i]) rank[j] = Math.max(rank[j], rank[i] + 1);
  for (const i of [...byOrder].reverse()) {
    // What waits for nothing, or makes less than it takes, stands next to what uses it.
    if (succ[i].length && pred[i].length <= succ[i].length) {
      const latest = Math.min(...succ[i].map((j) => rank[j])) - 1;
      if (!pred[i].length || succ[i].length > pred[i].length) rank[i] = latest;
    }
  }
  return rank;
}

/** Ranks of more than `limit` boxes become several, one beside the other; no rank stays empty. */
function splitTall(bound, rank, limit) {
  const members = [];
  for (const i of bound) (members[rank[i]] = members[rank[i]] || []).push(i);
  let next = 0;
  for (const layer of members) {
    if (!layer) continue;
    const parts = Math.ceil(layer.length / limit);
    const size = Math.ceil(layer.length / parts);
    layer.forEach((i, n) => { rank[i] = next + Math.floor(n / size); });
    next += parts;
  }
}

function join(a, aY, b, bY, weight) {
  a.after.push([b, bY - aY, weight]);
  b.before.push([a, aY - bY, weight]);
}

function arrange(layers) {
  layers.forEach((layer) => {
    layer.sort((s, t) => s.key - t.key);
    stack(layer);
  });
  const toward = (side) => (s) => {
    if (!s[side].length) return s.y;
    let at = 0;
    let weight = 0;
    for (const [t, shift, w] of s[side]) {
      at += (t.y + shift) * w;
      weight += w;
    }
    return at / weight;
  };
  const before = toward("before");
  const after = toward("after");
  const both = (s) => (s.before.length ? (s.after.length ? (before(s) + after(s)) / 2 : before(s)) : after(s));
  const down = layers;
  const up = [...layers].reverse();
  for (let round = 0; round < 5; round += 1) {
    for (const layer of down) settle(layer, before, true);
    for (const layer of up) settle(layer, after, true);
  }
  for (let round = 0; round < 4; round += 1) {
    for (const layer of down) settle(layer, before, false);
    for (const layer of up) settle(layer, after, false);
  }
  for (const layer of down) settle(layer, both, false);
  for (const layer of down) settle(layer, before, false);
}

function stack(layer) {
  const height = sum(layer.map((s) => s.h + GAP.row)) - GAP.row;
  let y = -height / 2;
  for (const s of layer) {
    s.y = y + s.h / 2;
    y += s.h + GAP.row;
  }
}

/** Moves the slots of a layer as near as can be to where they want to be, in order and without overlap. */
function settle(layer, wish, reorder) {
  const wanted = new Map(layer.map((s) => [s, wish(s)]));
  if (reorder) layer.sort((s, t) => wanted.get(s) - wanted.get(t) || s.key - t.key);
  const blocks = []; // of slots that touch: their common shift, and weight
  let offset = 0;
  layer.forEach((s, i) => {
    if (i) offset += (layer[i - 1].h + s.h) / 2 + GAP.row;
    s.offset = offset;
    let block = { at: wanted.get(s) - offset, weight: s.weight, first: i };
    while (blocks.length && blocks[blocks.length - 1].at >= block.at) {
      const last = blocks.pop();
      const weight = last.weight + block.weight;
      block = { at: (last.at * last.weight + block.at * block.weight) / weight, weight, first: last.first };
    }
    blocks.push(block);
  });
  blocks.forEach((block, n) => {
    const end = n + 1 < blocks.length ? blocks[n + 1].first : layer.length;
    for (let i = block.first; i < end; i += 1) layer[i].y = block.at + layer[i].offset;
  });
}

/** Boxes without edges, in rows. */
function shelves(items, width, top) {
  let x = 0;
  let y = top;
  let height = 0;
  let widest = 0;
  for (const item of items) {
    if (x && x + item.w > width) {
      x = 0;
      y += height + GAP.row;
      height = 0;
    }
    item.x = x;
    item.y = y;
    x += item.w + GAP.row;
    height = Math.max(height, item.h);
    widest = Math.max(widest, x - GAP.row);
  }
  return { w: widest, h: y + height };
}
