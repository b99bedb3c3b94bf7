// Elements, and numbers as people read them.

const byId = (id) => document.getElementById(id);

/** An element: h("a", {href: "#", onclick: go}, "text", child). Attributes that are null or false are left out. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

/** Something to click on that looks like a word of the text. */
function link(text, onclick, title) {
  return h("button", { class: "link", onclick, title }, text);
}

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function scaled(value, step, units) {
  let i = 0;
  while (Math.abs(value) >= step && i < units.length - 1) {
    value /= step;
    i += 1;
  }
  const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[i]}`.trim();
}

const bytesText = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
const countText = (n) => scaled(n, 1000, ["", "K", "M", "G", "T"]);
const timeText = (s) => (s <= 0 ? "0" : s < 1e-6 ? `${(s * 1e9).toFixed(0)} ns` : s < 1e-3 ? scaled(s * 1e6, 1e9, ["µs"]) :
  s < 1 ? scaled(s * 1e3, 1e9, ["ms"]) : scaled(s, 1e9, ["s"]));
const percentText = (x) => `${(100 * x).toFixed(x < 0.0995 ? 1 : 0)}%`;
const baseName = (path) => path.slice(path.lastIndexOf("/") + 1);
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** Adds `value` to the list at `key` of a Map. */
function push(map, key, value) {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
