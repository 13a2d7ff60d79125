// Small helpers: elements, numbers, groups of choices, the tip that follows the pointer.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(made.style, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const fill = (host, ...children) => { host.replaceChildren(...children.filter((c) => c !== null)); return host; };

// Numbers. A real minus, and thin spaces between groups of digits.
function fixed(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toFixed(digits).replace("-", "−");
}
const signed = (value, digits) => (value > 0 ? "+" : "") + fixed(value, digits);
const grouped = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
const bppText = (value) => fixed(value, value < 0.1 ? 4 : 3);
const bitsText = (bits) => (bits >= 10000 ? `${fixed(bits / 1000, 1)} kbit` : `${grouped(bits)} bit`);

// One of several: buttons that behave as radio buttons, arrow keys included.
function choice(host, items, chosen, onChoose) {
  const buttons = items.map((item) => element("button", {
    type: "button", role: "radio", "aria-checked": String(item.value === chosen), tabindex: item.value === chosen ? 0 : -1,
    title: item.title, onclick: () => onChoose(item.value),
  }, item.label));
  fill(host, ...buttons);
  host.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = (at + step + items.length) % items.length;
    onChoose(items[next].value);
    (host.children[next] || host).focus();
  };
}

function table(columns, rows, caption) {
  return element("table", {}, caption ? element("caption", { class: "muted small" }, caption) : null,
    element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))))));
}

const pairs = (entries) => element("dl", {}, ...entries.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));

// Markers: a shape for each series, so that colour is not all that tells them apart.
const SHAPES = [
  (r) => `M${-r},0A${r},${r} 0 1 0 ${r},0A${r},${r} 0 1 0 ${-r},0Z`,
  (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
  (r) => `M0,${-1.25 * r}L${1.15 * r},${0.85 * r}H${-1.15 * r}Z`,
  (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
  (r) => `M0,${1.25 * r}L${1.15 * r},${-0.85 * r}H${-1.15 * r}Z`,
];
const shapePath = (index, radius) => SHAPES[index % SHAPES.length](radius);
const colour = (index) => `var(--s${index % 8})`;

function marker(index) {
  return element("svg:svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" },
    element("svg:path", { d: shapePath(index, 5), style: { fill: colour(index) } }));
}

const tip = {
  show(x, y, ...content) {
    const box = fill(byId("tip"), ...content);
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
    box.style.left = `${Math.max(6, left)}px`;
    box.style.top = `${Math.max(6, Math.min(y - height / 2, innerHeight - height - 6))}px`;
  },
  hide() { byId("tip").hidden = true; },
};
