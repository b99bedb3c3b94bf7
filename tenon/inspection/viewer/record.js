// The record of the dump, as tenon/inspection/viewer/record.py wrote it, and what follows from it.

const record = JSON.parse(byId("record").textContent);

const nodes = record.nodes.map(([name, op, title, inputs, types, text, location, body], id) => ({
  id, name, op, title, inputs, types, text, location, body, kind: record.ops[op][0],
  outputs: types.map((t) => t[0]),
}));
const kernels = record.kernels || [];
const steps = record.steps || [];
const buffers = new Map((record.buffers || []).map((b) => [b.name, b]));
const stages = record.stages.map(([name, graph, rules]) => ({ name, graph, rules }));
const PHASES = ["forward", "backward", "update"];

/** The line that a location number stands for. */
function lineOf(number) {
  if (number === null || number === undefined) return null;
  const [file, line, where, module] = record.locations[number];
  return { file, line, where, module, text: `${baseName(file)}:${line}` };
}

const moduleOf = (node) => (node.location === null ? "" : record.locations[node.location][3]) || record.homes[node.name] || "";
const phaseOf = (name) => record.phases[name] ?? 0;
const hasPhases = Object.keys(record.phases).length > 0;

// --- graphs ---

const graphs = new Map();

/** A graph by its number, with who makes and who reads each value. */
function graphOf(number) {
  if (graphs.has(number)) return graphs.get(number);
  const raw = record.graphs[number];
  const pick = (ids) => ids.map((id) => nodes[id]);
  const graph = { number, inputs: pick(raw.inputs), state: pick(raw.state), nodes: pick(raw.nodes), groups: raw.groups,
    outputs: raw.outputs, updates: raw.updates };
  graph.all = [...graph.inputs, ...graph.state, ...graph.nodes];
  graph.byName = new Map(graph.all.map((n) => [n.name, n]));
  graph.maker = new Map(graph.all.flatMap((n) => n.outputs.map((v) => [v, n])));
  graph.users = new Map();
  for (const n of graph.nodes) for (const v of new Set(n.inputs)) push(graph.users, v, n);
  graph.written = new Map(); // the states whose new value a value is
  for (const [state, value] of Object.entries(raw.updates)) push(graph.written, value, state);
  graph.groupOf = new Map();
  raw.groups.forEach(([, members], i) => members.forEach((name) => graph.groupOf.set(name, i)));
  graphs.set(number, graph);
  return graph;
}

const stageGraph = (index) => graphOf(stages[index].graph);

/** What a pass did: nodes that are new, that are written otherwise under the same name, and that are gone. */
function changesOf(index) {
  const stage = stages[index];
  if (stage.changes) return stage.changes;
  const found = { added: [], rewritten: [], removed: [] };
  if (index > 0) {
    const now = stageGraph(index);
    const before = stageGraph(index - 1);
    for (const n of now.nodes) {
      const old = before.byName.get(n.name);
      if (!old) found.added.push(n);
      else if (old !== n) found.rewritten.push(n);
    }
    found.removed = before.nodes.filter((n) => !now.byName.has(n.name));
  }
  found.kinds = new Map([...found.added.map((n) => [n.name, "added"]), ...found.rewritten.map((n) => [n.name, "rewritten"])]);
  stage.changes = found;
  return found;
}

// --- kernels, steps and memory ---

const kernelsOf = new Map();
kernels.forEach((k, i) => {
  k.index = i;
  k.steps = [];
  k.prepare = [];
  for (const name of k.nodes) push(kernelsOf, name, k);
});

/** The kernel that a step is a call of: several may have the same nodes, such as both halves of a sum. */
function ownerOf(step) {
  const key = step.nodes.join();
  const same = kernels.filter((k) => k.nodes.join() === key);
  const label = step.label.replace(/^pack | tiles$/g, ""); // a name, or one with a number where it is another's too
  const named = same.find((k) => k.name === label) || same.find((k) => k.name === label.replace(/_\d+$/, ""));
  return named || same[0] || kernels.find((k) => step.nodes.some((n) => k.nodes.includes(n)));
}

steps.forEach((s, i) => {
  s.index = i;
  s.owner = ownerOf(s);
  if (s.owner) s.owner.steps.push(s);
});
for (const s of record.prepare || []) {
  const owner = ownerOf(s);
  if (owner) owner.prepare.push(s);
}

const has = { costs: steps.some((s) => s.flops !== undefined), times: steps.some((s) => s.seconds !== undefined) };
for (const k of kernels) {
  k.flops = sum(k.steps.map((s) => s.flops || 0));
  k.bytes = sum(k.steps.map((s) => s.bytes || 0));
  k.seconds = sum(k.steps.map((s) => s.seconds || 0));
  const part = (name) => (k.seconds ? sum(k.steps.map((s) => s[name] * s.seconds)) / k.seconds : 0);
  k.threads = has.times ? part("threads") : 0; // how many ran it on average
  k.fraction = has.times ? part("fraction") : 0; // of what the machine could do
  k.limit = [...k.steps].sort((a, b) => b.seconds - a.seconds)[0]?.limit || ""; // what its longest step waits for
}
const total = { flops: sum(kernels.map((k) => k.flops)), bytes: sum(kernels.map((k) => k.bytes)),
  seconds: sum(kernels.map((k) => k.seconds)) };

/** The buffer that a value lies in once kernels are fused, if it is ever written to memory. */
const bufferOf = (value, node) => buffers.get(node && (node.op === "input" || node.op === "state") ? `${node.op}.${node.title}` : value);

const KINDS = {
  contraction: "product", conv2d: "convolution", conv2d_weight_grad: "convolution", reduce: "reduction",
  elementwise: "elementwise", view: "view", pool: "pooling", random: "random", recurrence: "loop", loop: "loop",
  scan: "loop", gather: "indexing", index: "indexing", move: "indexing", sort: "indexing", check: "check",
  grad: "gradient", composite: "composite", source: "source", custom: "composite",
};
const ORDER = ["convolution", "product", "loop", "pooling", "composite", "gradient", "reduction", "random", "indexing",
  "elementwise", "check", "view", "source"];
const classOf = (node) => KINDS[node.kind] || "composite";

/** What a kernel is coloured by: the heaviest thing that it does. */
function classOfAll(members) {
  const found = new Set(members.map(classOf));
  return ORDER.find((c) => found.has(c)) || "source";
}
