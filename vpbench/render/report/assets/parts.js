// What charts and tables are made of: elements, round numbers on axes, files to keep.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, children = []) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function html(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function button(text, act, attributes = {}) {
  const node = html("button", { type: "button", ...attributes }, [text]);
  node.addEventListener("click", act);
  return node;
}

// Round numbers in [low, high]: 1-2-5 steps over decades, evenly spaced ones over a narrow range.
function logTicks(low, high, most) {
  for (const steps of [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let d = Math.floor(Math.log10(low)); d <= Math.ceil(Math.log10(high)); d++)
      for (const step of steps) found.push(Number(`${step}e${d}`));
    const inside = found.filter((value) => value >= low && value <= high);
    if (inside.length >= 3 && inside.length <= most) return inside;
  }
  return evenTicks(low, high, Math.min(most, 4));
}

function evenTicks(low, high, most) {
  const rough = (high - low) / most;
  const scale = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((s) => s * scale).find((s) => s >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

// Hand a text over as a file.
function keep(name, type, text) {
  const link = html("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function keepTable(name, rows) {
  const cell = (value) => (/[",\n]/.test(String(value ?? "")) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
  keep(`${name}.csv`, "text/csv", `${rows.map((row) => row.map(cell).join(",")).join("\n")}\n`);
}

// A drawing as it looks here and now, without the page's style: what others open has to bring its own.
function standalone(drawing) {
  const copy = drawing.cloneNode(true);
  const [own, theirs] = [copy, drawing].map((root) => [root, ...root.querySelectorAll("*")]);
  own.forEach((node, i) => {
    const style = getComputedStyle(theirs[i]);
    for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family"])
      node.setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "style", "role", "tabindex", "aria-pressed"]) node.removeAttribute(name);
  });
  copy.setAttribute("xmlns", SVG);
  return copy;
}
