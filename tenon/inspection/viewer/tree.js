// The graph as a tree: phase, module, kernel, op. What is folded together is one box.

/** The tree over a graph. `grouping`: {modules, kernels}. Items have a key that stays the same from stage to stage. */
function treeOf(graph, grouping) {
  const root = { key: "", kind: "root", label: "", children: [], parent: null, depth: 0 };
  const byKey = new Map([["", root]]);
  const leafOf = new Map();

  const child = (parent, key, kind, label, extra) => {
    let item = byKey.get(key);
    if (!item) {
      item = { key, kind, label, children: [], parent, depth: parent.depth + 1, phase: parent.phase, ...extra };
      byKey.set(key, item);
      parent.children.push(item);
    }
    return item;
  };

  const place = (phase, module) => {
    let at = root;
    if (hasPhases) at = child(root, `p${phase}`, "phase", PHASES[phase], { phase });
    if (!grouping.modules || !module) return at;
    let path = "";
    for (const part of module.split(".")) {
      path = path ? `${path}.${part}` : part;
      at = child(at, `${at.key.split("/")[0] || "m"}/${path}`, "module", part, { path });
    }
    return at;
  };

  const homes = graph.groups.map(([name, members], i) => {
    if (!grouping.kernels || !members.length) return null;
    const found = members.map((m) => graph.byName.get(m));
    const module = moduleOf(heaviest(found));
    const phase = Math.min(...found.map((n) => phaseOf(n.name)));
    if (found.length === 1) return null;
    return child(place(phase, module), `k:${found[0].name}`, "kernel", name, { group: i, members: found, module });
  });

  const orders = orderOf(graph);
  graph.nodes.forEach((node, i) => {
    const order = orders[i];
    const group = graph.groupOf.get(node.name);
    const parent = (group !== undefined && homes[group]) || place(phaseOf(node.name), moduleOf(node));
    const item = child(parent, `n:${node.name}`, "op", node.op, { node, order });
    leafOf.set(node.name, item);
  });
  for (const node of graph.inputs) {
    const users = graph.users.get(node.name) || [];
    const phase = users.length ? Math.min(...users.map((u) => phaseOf(u.name))) : 0;
    leafOf.set(node.name, child(place(phase, ""), `n:${node.name}`, "port", node.title, { node, order: -1 }));
  }
  graph.outputs.forEach((value, i) => {
    const maker = graph.maker.get(value);
    if (!maker || maker.op === "state") return;
    const home = place(phaseOf(maker.name), "");
    child(home, `o:${i}:${value}`, "port", `returns ${value}`, { value, order: graph.nodes.length + i, maker });
  });

  finish(root);
  const chains = (item) => {
    item.children.forEach(chains);
    if (item.kind === "module" && item.children.length === 1 && item.children[0].kind === "module") {
      const only = item.children[0];
      Object.assign(item, { children: only.children, label: `${item.label}.${only.label}`, path: only.path, merged: only.key });
      byKey.set(only.key, item);
      for (const c of item.children) c.parent = item;
    }
  };
  root.children.forEach(chains);
  const deepen = (item) => item.children.forEach((c) => {
    c.depth = item.depth + 1;
    deepen(c);
  });
  deepen(root);
  return { root, byKey, leafOf, graph };
}

/**
 * The place of each node in the order; one that needs state alone stands right before the first that reads it,
 * or last.
 */
function orderOf(graph) {
  const at = new Map(graph.nodes.map((n, i) => [n.name, i]));
  const ready = new Set(graph.state.map((n) => n.name)); // values made of state alone
  const early = new Set();
  for (const n of graph.nodes) {
    if (!n.inputs.every((v) => ready.has(v))) continue;
    early.add(n);
    n.outputs.forEach((v) => ready.add(v));
  }
  const first = graph.groups.map(([, members]) => Math.min(...members.filter((m) => !early.has(graph.byName.get(m))).map((m) => at.get(m))));
  const begins = (n) => {
    const own = first[graph.groupOf.get(n.name)];
    return own === undefined || own === Infinity ? at.get(n.name) : own;
  };
  for (const n of [...early].reverse()) {
    const users = n.outputs.flatMap((v) => graph.users.get(v) || []);
    at.set(n.name, users.length ? Math.min(...users.map(begins)) - 1e-3 : graph.nodes.length + at.get(n.name));
  }
  return graph.nodes.map((n) => at.get(n.name));
}

/** Order, counts and totals of each item from those below it. */
function finish(item) {
  if (item.node || item.value !== undefined) {
    item.ops = item.kind === "op" ? [item.node] : [];
  } else {
    item.children.forEach(finish);
    item.order = Math.min(...item.children.map((c) => c.order), Infinity);
    item.children.sort((a, b) => a.order - b.order);
    item.ops = item.children.flatMap((c) => c.ops);
  }
  const owners = new Set(item.ops.flatMap((n) => kernelsOf.get(n.name) || []));
  item.kernels = [...owners];
  item.class = classOfAll(item.ops.length ? item.ops : item.node ? [item.node] : []);
}

/** The node that a kernel is there for: the first of its heaviest kind; one without a module only if all are. */
function heaviest(members) {
  const inModules = members.filter(moduleOf);
  const candidates = inModules.length ? inModules : members;
  const kind = classOfAll(candidates);
  return candidates.find((n) => classOf(n) === kind) || candidates[0];
}

const isContainer = (item) => item.children.length > 0;

/** The containers to open at first: level by level, as long as no more than `limit` boxes show. Kernels stay shut. */
function firstOpen(root, limit) {
  const open = new Set([""]);
  let level = [root];
  let shown = root.children.length;
  while (level.length) {
    const next = level.flatMap((i) => i.children.filter((c) => isContainer(c) && c.kind !== "kernel"));
    const more = sum(next.map((i) => i.children.length - 1));
    if (!next.length || (shown + more > limit && !next.every((i) => i.kind === "phase"))) {
      for (const i of next) {
        if (shown + i.children.length - 1 > limit) continue;
        open.add(i.key);
        shown += i.children.length - 1;
      }
      break;
    }
    next.forEach((i) => open.add(i.key));
    shown += more;
    level = next;
  }
  return open;
}
