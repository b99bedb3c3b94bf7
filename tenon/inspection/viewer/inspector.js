// The panel on the right: all about what is selected.

const section = (title, ...content) => h("section", {}, h("h3", {}, title), ...content);
const facts = (pairs) => h("dl", {}, pairs.filter((p) => p && p[1] !== null && p[1] !== undefined && p[1] !== "").map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));
const chip = (kind) => h("span", { class: "chip", style: `--c: var(--${kind})` }, kind);

/** Fills the panel for a selection: an item of the tree, a kernel, a buffer, or null for the stage. */
function inspect(app) {
  const panel = byId("inspector");
  const { selection } = app;
  const content = !selection ? aboutStage(app) :
    selection.kernel ? aboutKernel(app, selection.kernel) :
    selection.buffer ? aboutBuffer(app, selection.buffer) :
    selection.item.kind === "op" || selection.item.node ? aboutNode(app, selection.item.node) :
    selection.item.kind === "port" ? aboutNode(app, selection.item.maker) : aboutItem(app, selection.item);
  panel.replaceChildren(...content.flat().filter(Boolean));
  panel.scrollTop = 0;
}

const head = (kind, title, ...more) => h("header", {}, h("p", { class: "eyebrow" }, kind), h("h2", {}, title), ...more);

function nodeLink(app, node) {
  return link(node.op === "input" || node.op === "state" ? node.title : node.name, () => app.selectNode(node), node.text);
}

function lineLink(app, place) {
  return link(place.text, () => app.showLine(place), `${place.file}:${place.line}`);
}

function kernelLink(app, kernel) {
  return link(kernel.name, () => app.selectKernel(kernel));
}

// --- a node ---

function aboutNode(app, node) {
  const { graph } = app;
  const place = lineOf(node.location);
  const readers = [...new Set(node.outputs.flatMap((v) => graph.users.get(v) || []))];
  const owners = kernelsOf.get(node.name) || [];
  const doc = record.ops[node.op][1];
  return [
    head(`op · ${hasPhases ? PHASES[phaseOf(node.name)] : node.kind}`, node.op === "input" || node.op === "state" ? node.title : node.op, chip(classOf(node))),
    h("pre", { class: "code statement" }, ...node.types.map(([v, t]) => `${v}: ${t}\n`), node.text ? coloured(`${node.outputs.join(", ")} = ${node.text}`, ".py") : `${node.op} ${node.title}`),
    doc && h("p", { class: "doc" }, doc),
    facts([
      ["module", place && place.module && link(place.module, () => app.selectModule(node))],
      ["line", place && [lineLink(app, place), ` in ${place.where}`]],
      ["reads", listed(node.inputs.map((v) => [nodeLink(app, graph.maker.get(v)), h("span", { class: "faint" }, ` ${typeOf(graph, v)}`)]))],
      ["read by", listed(readers.map((n) => [nodeLink(app, n), h("span", { class: "faint" }, ` ${n.op}`)]))],
      ["kernel", listed(owners.map((k) => kernelLink(app, k)))],
      ["new value of", node.outputs.flatMap((v) => graph.written.get(v) || []).join(", ")],
      ["returned", node.outputs.some((v) => graph.outputs.includes(v)) ? "yes" : ""],
      ["memory", memoryOf(app, node)],
    ]),
    node.body !== null && h("p", {}, h("button", { class: "action", onclick: () => app.enter(node) }, `Open its body: ${plural(graphOf(node.body).nodes.length, "op")}`)),
    journey(app, node),
    place && section("Source", excerpt(place)),
    ...owners.slice(0, 1).map((k) => kernelParts(app, k)),
  ];
}

function typeOf(graph, value) {
  return graph.maker.get(value).types.find((t) => t[0] === value)[1];
}

function listed(entries) {
  if (!entries.length) return null;
  const few = entries.slice(0, 8).map((e) => h("div", {}, e));
  if (entries.length > 8) {
    const rest = h("details", {}, h("summary", {}, `${entries.length - 8} more`), entries.slice(8).map((e) => h("div", {}, e)));
    few.push(rest);
  }
  return few;
}

function memoryOf(app, node) {
  const found = node.types.map(([v]) => [v, bufferOf(v, node)]);
  const kept = found.filter((f) => f[1]);
  if (!kept.length) return buffers.size && node.op !== "input" ? `${bytesText(sum(node.types.map((t) => t[2])))} if it were written; it stays in registers or is part of another buffer` : "";
  return kept.map(([, b]) => h("div", {}, link(b.name, () => app.selectBuffer(b)), ` ${bytesText(b.nbytes)}`,
    b.kind === "temp" ? h("span", { class: "faint" }, ` at ${b.offset.toLocaleString("en")}, steps ${b.first}–${b.last}`) : h("span", { class: "faint" }, ` ${b.kind}`)));
}

/** The passes that a node went through: made, rewritten, gone. */
function journey(app, node) {
  if (app.path.length) return null;
  let before;
  const marks = stages.map((s, i) => {
    const at = stageGraph(i).byName.get(node.name);
    const state = !at ? (before ? "removed" : "none") : !before ? (i ? "added" : "kept") : at === before ? "kept" : "rewritten";
    before = at;
    const words = { none: "not there yet", removed: "gone", added: "made here", kept: "as before", rewritten: "rewritten" }[state];
    return h("button", { class: `mark ${state}${i === app.stage ? " now" : ""}`, title: `${s.name}: ${words}`, "aria-label": `${s.name}: ${words}`, onclick: () => app.setStage(i) });
  });
  const told = stages.flatMap((s, i) => {
    const made = s.rules.made[node.name];
    const gone = s.rules.gone[node.name];
    return [made && `${s.name} made it by the rule “${made}”`, gone && `${s.name} replaced it by the rule “${gone[0]}”${gone[1] ? `: it is ${gone[1]} now` : ""}`].filter(Boolean);
  });
  return section("Through the passes", h("div", { class: "history" }, marks), told.map((t) => h("p", { class: "doc" }, t)));
}

// --- kernels ---

function aboutKernel(app, kernel) {
  return [head("kernel", kernel.name.replaceAll("_", " "), chip(classOfAll(kernelNodes(kernel)))), ...kernelParts(app, kernel, true)];
}

function kernelNodes(kernel) {
  const graph = stageGraph(stages.length - 1);
  return kernel.nodes.map((name) => graph.byName.get(name)).filter(Boolean);
}

function kernelParts(app, kernel, whole = false) {
  const members = kernelNodes(kernel);
  const places = new Map();
  for (const n of members) {
    const place = lineOf(n.location);
    if (place) push(places, `${place.file}:${place.line}`, [place, n]);
  }
  const where = (names) => listed(names.map((name) => {
    const b = buffers.get(name);
    return b ? [link(name, () => app.selectBuffer(b)), h("span", { class: "faint" }, ` ${bytesText(b.nbytes)}${b.kind === "temp" ? ` at ${b.offset.toLocaleString("en")}` : ""}`)] : name;
  }));
  const codes = [...new Set([...kernel.steps, ...kernel.prepare].map((s) => s.code))].filter((c) => packedCode[c]);
  return [
    section(whole ? "What it does" : `Kernel ${kernel.name}`,
      facts([
        ["computes", listed(members.map((n) => [nodeLink(app, n), h("span", { class: "faint" }, ` ${n.op}`)]))],
        ["over", kernel.space],
        ["in a loop", kernel.loop],
        ["modules", listed([...new Set(members.map(moduleOf).filter(Boolean))])],
        has.costs && ["operations", `${countText(kernel.flops)}FLOP`],
        has.costs && ["moves", bytesText(kernel.bytes)],
        has.times && ["time", `${timeText(kernel.seconds)}, ${percentText(kernel.seconds / total.seconds)} of the steps${kernel.flops ? `, ${(kernel.flops / kernel.seconds / 1e9).toFixed(1)} GFLOP/s` : ""}`],
        kernel.limit && ["held up by", `${kernel.limit}, at ${percentText(kernel.fraction)} of the ceiling, on ${kernel.threads.toFixed(1)} threads`],
        ["reads", where(kernel.reads)],
        ["writes", where(kernel.writes)],
      ])),
    kernel.steps.length + kernel.prepare.length > 0 && section("Calls", h("table", { class: "plain" },
      h("thead", {}, h("tr", {}, ["", "call", "tasks", "scratch", has.times && "time"].filter((x) => x !== false).map((t) => h("th", {}, t)))),
      h("tbody", {}, [...kernel.prepare.map((s) => [s, "prepare"]), ...kernel.steps.map((s) => [s, s.index])].map(([s, n]) => h("tr", {},
        h("td", {}, n), h("td", {}, s.label), h("td", { class: "n" }, s.tasks.toLocaleString("en")), h("td", { class: "n" }, s.scratch ? bytesText(s.scratch) : ""),
        has.times && h("td", { class: "n" }, s.seconds === undefined ? "" : timeText(s.seconds))))))),
    whole && places.size > 0 && section("Lines", [...places.values()].map((found) => h("div", { class: "lines" },
      lineLink(app, found[0][0]), h("span", { class: "faint" }, ` in ${found[0][0].where}: ${[...new Set(found.map((f) => f[1].op))].join(", ")}`), excerpt(found[0][0], 0)))),
    ...codes.map((c) => section(codes.length > 1 ? `Generated code: ${c}` : "Generated code", codeTabs(c))),
    section("Schedule", h("pre", { class: "code" }, coloured(kernel.text, ".py"))),
  ];
}

// --- what is folded together, memory, the stage ---

function aboutItem(app, item) {
  if (item.kind === "kernel" && item.kernels.length === 1) return aboutKernel(app, item.kernels[0]);
  const counts = new Map();
  for (const n of item.ops) counts.set(n.op, (counts.get(n.op) || 0) + 1);
  const inside = item.children.filter((c) => c.ops.length);
  return [
    head(item.kind, item.path || item.label.replaceAll("_", " "), chip(item.class)),
    facts([
      ["phase", hasPhases ? PHASES[item.phase] : ""],
      ["holds", plural(item.ops.length, "op")],
      ["kernels", item.kernels.length || ""],
      has.costs && ["operations", `${countText(sum(item.kernels.map((k) => k.flops)))}FLOP`],
      has.times && ["time", `${timeText(sum(item.kernels.map((k) => k.seconds)))}, ${percentText(sum(item.kernels.map((k) => k.seconds)) / total.seconds)}`],
    ]),
    h("p", {}, h("button", { class: "action", onclick: () => app.toggle(item) }, app.open.has(item.key) ? "Fold" : "Unfold")),
    section("Inside", h("div", { class: "entries" }, inside.slice(0, 60).map((c) => h("button", { class: "entry", onclick: () => app.select({ item: c }) },
      h("i", { style: `background: var(--${c.class})` }), c.label.replaceAll("_", " "), h("span", { class: "faint" }, c.node ? c.node.name : plural(c.ops.length, "op")))))),
    section("Ops", bars([...counts].sort((a, b) => b[1] - a[1]))),
  ];
}

function bars(rows, text = (v) => v) {
  const most = Math.max(...rows.map((r) => r[1]), 1);
  return h("div", { class: "bars" }, rows.slice(0, 24).map(([name, value]) => [h("span", {}, name), h("span", { class: "track" }, h("i", { style: `width: ${(100 * value) / most}%` })), h("span", { class: "n" }, text(value))]));
}

function aboutBuffer(app, buffer) {
  const makers = steps.filter((s) => s.writes.includes(buffer.name));
  const readers = steps.filter((s) => s.reads.includes(buffer.name));
  const node = stageGraph(stages.length - 1).maker.get(buffer.name.replace(/^(input|state)\./, ""));
  const name = (s) => [h("span", { class: "faint" }, `${s.index} `), s.owner ? link(s.label, () => app.selectKernel(s.owner)) : s.label];
  return [
    head(`buffer · ${buffer.kind}`, buffer.name),
    facts([
      ["size", `${bytesText(buffer.nbytes)} of ${buffer.dtype}`],
      ["arena offset", buffer.kind === "temp" ? buffer.offset.toLocaleString("en") : ""],
      ["lives", buffer.kind === "temp" ? `steps ${buffer.first} to ${buffer.last} of ${steps.length}` : ""],
      ["value", node && nodeLink(app, node)],
      ["written by", listed(makers.map(name))],
      ["read by", listed(readers.map(name))],
    ]),
    node && node.location !== null && section("Source", excerpt(lineOf(node.location))),
  ];
}

function aboutStage(app) {
  const stage = stages[app.stage];
  const { added, rewritten, removed } = changesOf(app.stage);
  const memory = record.memory;
  const tally = (list, mark) => {
    const counts = new Map();
    for (const n of list) push(counts, n.op, n);
    return [...counts].sort((a, b) => b[1].length - a[1].length).map(([op, found]) => h("details", { class: `tally ${mark}` },
      h("summary", {}, h("b", {}, { added: "+", rewritten: "~", removed: "−" }[mark]), ` ${found.length} ${op}`),
      h("div", {}, found.slice(0, 100).map((n) => link(n.name, () => app.showChange(n, mark), `${n.text}${stage.rules.made[n.name] ? ` (${stage.rules.made[n.name]})` : ""}`)))));
  };
  const byRule = new Map();
  for (const rule of Object.values(stage.rules.made)) byRule.set(rule, (byRule.get(rule) || 0) + 1);
  for (const [rule] of Object.values(stage.rules.gone)) byRule.set(rule, (byRule.get(rule) || 0) + 1);
  const changed = added.length + rewritten.length + removed.length;
  return [
    head(`pass ${app.stage + 1} of ${stages.length}`, stage.name),
    facts([["ops", app.graph.nodes.length], ["kernels", app.graph.groups.length || ""], ["state", app.graph.state.length || ""]]),
    app.stage > 0 && section("What the pass changed", changed ? [tally(added, "added"), tally(rewritten, "rewritten"), tally(removed, "removed")] : h("p", { class: "faint" }, app.graph.groups.length ? "No op; it put them into kernels." : "Nothing.")),
    byRule.size > 0 && section("By rule", bars([...byRule].sort((a, b) => b[1] - a[1]))),
    section("Program", h("p", { class: "doc" }, record.report), facts([
      ["sizes", Object.entries(record.sizes).map(([k, v]) => `${k} = ${v}`).join(", ")],
      ["kernels", kernels.length || ""],
      ["calls", steps.length || ""],
      has.costs && ["operations", `${countText(total.flops)}FLOP`],
      record.profile && ["time of a call", timeText(record.profile.seconds)],
      record.profile && ["of that barriers", timeText(record.profile.barriers)],
      record.profile && ["and call overhead", timeText(record.profile.overhead)],
      record.profile && ["machine", `${(record.profile.machine.flops / 1e9).toFixed(0)} GFLOP/s, ${(record.profile.machine.bandwidth / 1e9).toFixed(0)} GB/s, ${plural(record.profile.machine.threads, "thread")}`],
    ])),
    memory && section("Memory", bars(Object.entries(memory).filter(([k, v]) => v && k !== "total").sort((a, b) => b[1] - a[1]), bytesText)),
    section("Colours", h("div", { class: "legend" }, ORDER.filter((c) => app.scene?.boxes.some((b) => b.class === c)).map((c) => chip(c)))),
  ];
}
