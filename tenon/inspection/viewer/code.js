// Generated code and source lines: unpacked when looked at, with a little colour.

const packedCode = JSON.parse(byId("code").textContent);

/** The text of a kernel's file, by its suffix. */
async function codeOf(name, suffix) {
  const packed = packedCode[name]?.[suffix];
  if (packed === undefined) return null;
  const raw = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}

const LANGUAGES = {
  ".py": { name: "Python", tokens: /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\b(def|return|for|in|if|else|elif|while|import|from|and|or|not|is|lambda|with|as|class|pass|break|continue|True|False|None|yield|raise|try|except|self)\b|\b(\d[\w.]*)\b/gm },
  ".ll": { name: "LLVM IR", tokens: /(;.*$)|("(?:[^"\\])*")|\b(define|ret|br|label|phi|call|load|store|getelementptr|add|fadd|fmul|fsub|fdiv|mul|sub|icmp|fcmp|select|bitcast|inttoptr|ptrtoint|shufflevector|insertelement|extractelement|tail|align|inbounds|declare|attributes|fast|contract|reassoc|nsz|to|x|void|ptr|float|double|i\d+)\b|(%[\w.]+|\b\d[\w.e+-]*\b)/gm },
  ".ptx": { name: "PTX", tokens: /(\/\/.*$)|("(?:[^"\\])*")|^\s+(?:@!?%p\d+\s+)?([a-z]\w*)|(%\w+|\.\w+)/gm },
  ".sass": { name: "SASS", tokens: /(\/\*[0-9a-f]+\*\/)|("(?:[^"\\])*")|\b([A-Z][A-Z0-9.]+)\b|(U?[RP]\d+|0x[0-9a-f]+)/gm },
  ".txt": { name: "Resources", tokens: /(^#.*$)|("(?:[^"\\])*")|\b(registers|shared|stack|spilled)\b|(\d+)/gm },
  ".s": { name: "Assembly", tokens: /(#.*$)|("(?:[^"\\])*")|^\s+(\.?[a-z]\w*)|(%\w+|\$-?\w+)/gm },
};
const LONGEST = 400_000; // letters that are coloured; what is longer is shown plain

/** Spans of coloured text. */
function coloured(text, suffix) {
  const language = LANGUAGES[suffix];
  if (!language || text.length > LONGEST) return [text];
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(language.tokens)) {
    const word = found.slice(1).findIndex((g) => g !== undefined);
    const start = found.index + (word === 2 ? found[0].indexOf(found[3]) : 0);
    parts.push(text.slice(at, start), h("span", { class: `c${word}` }, found[word + 1]));
    at = start + found[word + 1].length;
  }
  parts.push(text.slice(at));
  return parts;
}

/** A kernel's code behind a tab for each language. */
function codeTabs(name) {
  const files = Object.keys(packedCode[name] || {});
  if (!files.length) return null;
  const body = h("pre", { class: "code", tabindex: "0", "aria-label": `code of ${name}` });
  const open = async (suffix) => {
    buttons.forEach((b) => b.setAttribute("aria-selected", b.dataset.suffix === suffix));
    const text = await codeOf(name, suffix);
    body.replaceChildren(...coloured(text, suffix));
    body.scrollTop = 0;
  };
  const buttons = files.map((suffix) => h("button", { role: "tab", "data-suffix": suffix, onclick: () => open(suffix) }, LANGUAGES[suffix].name));
  const copy = h("button", { class: "copy", title: "Copy", onclick: () => navigator.clipboard?.writeText(body.textContent) }, "Copy");
  open(files[0]);
  return h("div", { class: "codebox" }, h("div", { class: "codetabs", role: "tablist" }, buttons, h("span", { class: "path" }, `kernels/${name}`), copy), body);
}

/** Lines of a user's file around one, which is lit up. */
function excerpt(place, around = 4) {
  const lines = record.files[place.file] || {};
  const rows = [];
  const shown = [];
  for (let n = place.line - around; n <= place.line + around; n += 1) if (lines[n]?.trim()) shown.push(lines[n]);
  const indent = Math.min(...shown.map((l) => l.length - l.trimStart().length));
  for (let n = place.line - around; n <= place.line + around; n += 1) {
    if (lines[n] === undefined) continue;
    rows.push(h("div", { class: n === place.line ? "line here" : "line" }, h("span", { class: "number" }, n), coloured(lines[n].slice(indent), ".py"), "\n"));
  }
  return rows.length ? h("pre", { class: "code source" }, rows) : h("p", { class: "faint" }, "The file was not there to be read.");
}
