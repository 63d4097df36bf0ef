// A plot of quality against a cost, in SVG. The arrow keys walk from point to point, Enter isolates a method.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8;
const MARKERS = [
  "M-4,-4H4V4H-4Z", "M0,-5.2L5,4H-5Z", "M0,-5.6L5.6,0L0,5.6L-5.6,0Z", "M0,5.2L5,-4H-5Z",
  "M-1.7,-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z", "M0,-5.2L5,-1.6L3.1,4.3H-3.1L-5,-1.6Z", "M-2.7,-4.7H2.7L5.4,0L2.7,4.7H-2.7L-5.4,0Z",
];
const CIRCLE = "M-4.2,0A4.2,4.2 0 1 1 4.2,0A4.2,4.2 0 1 1 -4.2,0Z";
const STAR = "M0,-8L2,-2.6L7.6,-2.5L3.1,1L4.7,6.5L0,3.3L-4.7,6.5L-3.1,1L-7.6,-2.5L-2,-2.6Z";
const DASHES = ["", "8 3", "5 2 1 2", "2 2", "10 2 2 2"];

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

// The look of a curve; a method has the same one in every section of the page.
function look(curve) {
  if (curve.kind === "dense") return { colour: "c-dense", marker: STAR, dash: "" };
  if (curve.kind === "random") return { colour: "c-random", marker: CIRCLE, dash: "3 3" };
  const n = curve.look;
  return { colour: `c${n % COLOURS}`, marker: MARKERS[n % MARKERS.length], dash: DASHES[n % DASHES.length] };
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

class Chart {
  // figure: an empty element; chart: curves, points, fronts; table: whose lines describe the points
  constructor(figure, chart, table, id) {
    Object.assign(this, { figure, chart, table, id, isolated: null, active: 0 });
    this.cost = chart.costs[0].key;
    this.quality = chart.qualities[0].key;
    const controls = html("div", { class: "controls" });
    controls.append(this.choice("Cost", "cost", chart.costs));
    if (chart.qualities.length > 1) controls.append(this.choice("Quality", "quality", chart.qualities));
    this.legend = html("ul", { class: "legend", "aria-label": "Methods; press one to see it alone" });
    this.plot = html("div", { class: "plot" });
    this.tip = html("div", { class: "tip", hidden: "", "aria-hidden": "true" });
    this.hint = html("figcaption", { class: "soft" });
    figure.append(controls, this.legend, this.plot, this.hint);
    this.drawLegend();
    this.listen();
    new ResizeObserver(() => this.plot.clientWidth !== this.width && this.draw()).observe(this.plot);
    this.draw();
  }

  choice(title, field, options) {
    const set = html("fieldset", {}, [html("legend", {}, [title])]);
    for (const option of options) {
      const button = html("input", { type: "radio", name: `${this.id}-${field}`, value: option.key });
      button.checked = option.key === this[field];
      button.addEventListener("change", () => { this[field] = option.key; this.draw(); });
      set.append(html("label", {}, [button, ` ${option.name}`]));
    }
    return set;
  }

  drawLegend() {
    this.chart.curves.forEach((curve, i) => {
      const style = look(curve);
      const icon = svg("svg", { width: 30, height: 14, viewBox: "-15 -7 30 14", class: `curve ${style.colour}`, "aria-hidden": "true" });
      if (curve.kind !== "dense") icon.append(svg("path", { d: "M-15,0H15", "stroke-dasharray": style.dash }));
      icon.append(svg("path", { d: style.marker, class: "point" }));
      const button = html("button", { type: "button", "aria-pressed": "false" }, [icon, html("span", {}, [curve.name])]);
      button.addEventListener("click", () => this.isolate(i));
      this.legend.append(html("li", {}, [button]));
    });
    this.figure.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { this.isolate(null); this.hideTip(); }
    });
  }

  // Show one curve at full strength, or all of them if it is the one that is shown already.
  isolate(curve) {
    this.isolated = curve === this.isolated ? null : curve;
    this.legend.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", i === this.isolated));
    this.groups.forEach((group, i) => group.classList.toggle("dimmed", this.isolated !== null && i !== this.isolated));
    for (const [node, point] of this.nodes) node.setAttribute("aria-pressed", point.curve === this.isolated);
    this.front.classList.toggle("dimmed", this.isolated !== null);
  }

  draw() {
    this.width = this.plot.clientWidth;
    this.shown = this.chart.points
      .filter((point) => point.x[this.cost] && point.y[this.quality])
      .sort((a, b) => a.x[this.cost][0] - b.x[this.cost][0]);
    this.active = Math.min(this.active, Math.max(0, this.shown.length - 1));
    this.scale();
    const root = svg("svg", { width: this.width, height: this.height, viewBox: `0 0 ${this.width} ${this.height}`, role: "group" });
    root.setAttribute("aria-label", `${this.named("qualities", this.quality)} against ${this.named("costs", this.cost)}`);
    this.plot.replaceChildren(root, this.tip);
    this.hideTip();
    this.drawAxes(root);
    this.drawCurves(root);
    this.drawFront(root);
    this.cursor = svg("circle", { r: 10, class: "cursor", visibility: "hidden" });
    root.append(this.cursor);
    const nodes = new Map([...this.nodes].map(([node, point]) => [point, node]));
    this.order = this.shown.map((point) => nodes.get(point));
    this.order[this.active]?.setAttribute("tabindex", "0");
    const isolated = this.isolated;
    this.isolated = null;
    this.isolate(isolated);
    this.say();
  }

  named(kind, key) {
    return this.chart[kind].find((entry) => entry.key === key).name;
  }

  // Fit both axes to the points and their intervals.
  scale() {
    this.height = Math.round(Math.max(280, Math.min(440, this.width * 0.55)));
    this.box = { left: 52, right: this.width - 14, top: 10, bottom: this.height - 46 };
    if (!this.shown.length) return;
    const costs = this.shown.flatMap((point) => point.x[this.cost].filter((value) => value > 0));
    const heights = this.shown.flatMap((point) => point.y[this.quality]);
    const padX = Math.max((Math.max(...span(costs)) / Math.min(...span(costs))) ** 0.06, 1.04);
    const [low, high] = span(heights);
    const padY = Math.max((high - low) * 0.06, 0.5);
    this.x = { low: span(costs)[0] / padX, high: span(costs)[1] * padX };
    this.y = { low: low - padY, high: high + padY };
  }

  atX(value) {
    const share = Math.log(value / this.x.low) / Math.log(this.x.high / this.x.low);
    return this.box.left + share * (this.box.right - this.box.left);
  }

  atY(value) {
    return this.box.bottom - ((value - this.y.low) / (this.y.high - this.y.low)) * (this.box.bottom - this.box.top);
  }

  drawAxes(root) {
    const { left, right, top, bottom } = this.box;
    if (!this.shown.length) {
      root.append(svg("text", { x: this.width / 2, y: this.height / 2, "text-anchor": "middle", class: "message" }, ["not measured"]));
      return;
    }
    for (const value of logTicks(this.x.low, this.x.high, Math.max(3, Math.floor((right - left) / 70)))) {
      const x = this.atX(value);
      root.append(svg("line", { x1: x, x2: x, y1: top, y2: bottom, class: "grid" }));
      root.append(svg("text", { x, y: bottom + 17, "text-anchor": "middle" }, [String(Number(value.toPrecision(6)))]));
    }
    for (const value of evenTicks(this.y.low, this.y.high, 6)) {
      const y = this.atY(value);
      root.append(svg("line", { x1: left, x2: right, y1: y, y2: y, class: "grid" }));
      root.append(svg("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, [String(value)]));
    }
    root.append(svg("path", { d: `M${left},${top}V${bottom}H${right}`, class: "axis", fill: "none" }));
    root.append(svg("text", { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle", class: "title" }, [`${this.named("costs", this.cost)} (logarithmic)`]));
    const middle = (top + bottom) / 2;
    const turned = { x: 13, y: middle, "text-anchor": "middle", class: "title", transform: `rotate(-90 13 ${middle})` };
    root.append(svg("text", turned, [this.named("qualities", this.quality)]));
  }

  drawCurves(root) {
    this.nodes = new Map();
    this.groups = this.chart.curves.map((curve, i) => {
      const style = look(curve);
      const group = svg("g", { class: `curve ${style.colour}` });
      const points = this.shown.filter((point) => point.curve === i);
      if (curve.kind === "dense" && points.length) this.drawLevel(root, points[0]);
      const line = points.map((point) => `${this.px(point)},${this.py(point)}`).join("L");
      if (line && curve.kind !== "dense") group.append(svg("path", { d: `M${line}`, "stroke-dasharray": style.dash }));
      group.append(svg("path", { d: points.map((point) => this.bars(point)).join(""), class: "bars" }));
      for (const point of points) group.append(this.drawPoint(point, style));
      root.append(group);
      return group;
    });
  }

  px(point) { return this.atX(point.x[this.cost][0]).toFixed(1); }
  py(point) { return this.atY(point.y[this.quality][0]).toFixed(1); }

  bars(point) {
    const [, low, high] = point.y[this.quality];
    const [, fast, slow] = point.x[this.cost];
    const vertical = `M${this.px(point)},${this.atY(low).toFixed(1)}V${this.atY(high).toFixed(1)}`;
    return fast === null ? vertical : `${vertical}M${this.atX(fast).toFixed(1)},${this.py(point)}H${this.atX(slow).toFixed(1)}`;
  }

  drawLevel(root, dense) {
    const y = this.py(dense);
    root.append(svg("line", { x1: this.box.left, x2: this.box.right, y1: y, y2: y, class: "level" }));
  }

  drawPoint(point, style) {
    const node = svg("path", { d: style.marker, transform: `translate(${this.px(point)} ${this.py(point)})`, role: "button", tabindex: "-1" });
    node.setAttribute("class", point.noisy && this.timed() ? "point noisy" : "point");
    node.setAttribute("aria-label", this.described(point));
    this.nodes.set(node, point);
    return node;
  }

  timed() {
    return this.chart.costs.find((cost) => cost.key === this.cost).timed;
  }

  described(point) {
    const numbers = this.facts(point).map(([name, text]) => `${name} ${text}`);
    return `${point.name}: ${numbers.join(", ")}${point.noisy ? "; timed on a noisy machine" : ""}`;
  }

  facts(point) {
    const texts = this.table.rows[point.row];
    return this.table.columns.map((column, i) => [column.title, texts[i]]).slice(1).filter(([, text]) => text);
  }

  drawFront(root) {
    this.front = svg("g");
    const members = this.chart.fronts[`${this.quality}/${this.cost}`].map((i) => this.chart.points[i]);
    if (members.length) {
      // between two members the cheaper one is the best that was measured
      const steps = members.map((point, i) => (i ? `H${this.px(point)}V${this.py(point)}` : `M${this.px(point)},${this.py(point)}`));
      this.front.append(svg("path", { d: steps.join(""), class: "front" }));
      for (const point of members) this.front.append(svg("circle", { cx: this.px(point), cy: this.py(point), r: 8.5, class: "ring" }));
    }
    root.append(this.front);
  }

  // One point at a time can be reached by Tab; the arrow keys walk on from it. The element around the drawing listens:
  // browsers stop at drawings that listen to focus themselves.
  listen() {
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
    this.plot.addEventListener("focusin", (event) => this.showTip(this.nodes.get(event.target)));
    this.plot.addEventListener("focusout", () => this.hideTip());
    this.plot.addEventListener("pointermove", (event) => this.onPointer(event));
    this.plot.addEventListener("pointerleave", () => this.hideTip());
    this.plot.addEventListener("click", (event) => {
      const point = this.nearest(event);
      if (point) this.isolate(point.curve);
    });
  }

  onKey(event) {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      const reachable = this.order.map((_, i) => i).filter((i) => this.isolated === null || this.shown[i].curve === this.isolated);
      const at = reachable.indexOf(this.active);
      this.focusOn(reachable[Math.max(0, Math.min(reachable.length - 1, at + steps[event.key]))]);
    } else if ((event.key === "Enter" || event.key === " ") && this.nodes.has(event.target)) {
      event.preventDefault();
      this.isolate(this.nodes.get(event.target).curve);
    }
  }

  focusOn(i) {
    this.order[this.active].setAttribute("tabindex", "-1");
    this.active = i;
    this.order[i].setAttribute("tabindex", "0");
    this.order[i].focus();
  }

  onPointer(event) {
    const point = this.nearest(event);
    if (point) this.showTip(point);
    else this.hideTip();
  }

  // The point nearest to the pointer, none if all are further than a fingertip.
  nearest(event) {
    const frame = this.plot.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    let best = null;
    let least = event.pointerType === "touch" ? 32 : 20;
    for (const point of this.shown) {
      if (this.isolated !== null && point.curve !== this.isolated) continue;
      const distance = Math.hypot(this.px(point) - x, this.py(point) - y);
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  showTip(point) {
    const [x, y] = [Number(this.px(point)), Number(this.py(point))];
    const list = html("dl", {}, this.facts(point).flatMap(([name, text]) => [html("dt", {}, [name]), html("dd", {}, [text])]));
    this.tip.replaceChildren(html("strong", {}, [point.name]), list);
    this.tip.hidden = false;
    const room = this.width - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, x + 14 + this.tip.offsetWidth > this.width ? x - this.tip.offsetWidth - 14 : x + 14))}px`;
    this.tip.style.top = `${Math.max(0, Math.min(this.height - this.tip.offsetHeight, y - this.tip.offsetHeight / 2))}px`;
    for (const [name, value] of [["cx", x], ["cy", y], ["visibility", "visible"]]) this.cursor.setAttribute(name, value);
  }

  hideTip() {
    this.tip.hidden = true;
    this.cursor?.setAttribute("visibility", "hidden");
  }

  say() {
    const noisy = this.timed() && this.shown.some((point) => point.noisy) ? " Open markers: timed on a noisy machine." : "";
    const absent = this.chart.points.length - this.shown.length;
    const left = absent ? ` ${absent} of ${this.chart.points.length} settings have no value on these axes.` : "";
    const difference = this.quality === "agree" ? "" : "; of quality, those of the difference to dense";
    this.hint.textContent = `Bars: 95 % intervals${difference}. Rings and steps: the front, as measured.`
      + `${noisy}${left} Point at a setting to see its numbers, click to see its method alone; or walk with the arrow keys and press Enter.`;
  }
}

// Least and greatest; spreading ten thousand values into Math.min would overflow the stack.
function span(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}
