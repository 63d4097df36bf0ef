// A plot of quality against a cost, in SVG: what it shows is declared by the page's data, here it gets its place.
// The arrow keys walk from point to point, Enter isolates a method.

class Chart {
  // figure: an empty element; chart: axes, curves, points, fronts; table: whose lines describe the points
  constructor(figure, chart, table, id) {
    Object.assign(this, { figure, chart, table, id, isolated: null, active: 0, view: null, hidden: new Set() });
    this.cost = chart.costs[0].key;
    this.quality = chart.qualities[0].key;
    const controls = html("div", { class: "controls" });
    controls.append(this.choice("Cost", "cost", chart.costs));
    if (chart.qualities.length > 1) controls.append(this.choice("Quality", "quality", chart.qualities));
    this.whole = button("Whole", () => this.look(null), { disabled: "" });
    controls.append(html("span", { class: "tools" }, [
      button("Zoom in", () => this.zoom(0.5)), button("Zoom out", () => this.zoom(2)), this.whole,
      button("SVG", () => this.keepDrawing(), { "aria-label": "Keep the drawing as SVG" }),
      button("CSV", () => this.keepPoints(), { "aria-label": "Keep the points as CSV" }),
    ]));
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
    const select = html("select", {}, options.map((option) => html("option", { value: option.key }, [option.name])));
    select.addEventListener("change", () => { this[field] = select.value; this.look(null); });
    return html("label", {}, [`${title} `, select]);
  }

  drawLegend() {
    this.chart.curves.forEach((curve, i) => {
      const icon = svg("svg", { width: 30, height: 14, viewBox: "-15 -7 30 14", class: "curve", "aria-hidden": "true" }, this.sign(curve));
      icon.style.setProperty("--c", curve.colour);
      const alone = button("", () => this.isolate(i), { "aria-pressed": "false" });
      alone.append(icon, html("span", {}, [curve.name]));
      const shown = html("input", { type: "checkbox", "aria-label": `Show ${curve.name}` });
      shown.checked = true;
      shown.addEventListener("change", () => this.show(i, shown.checked));
      this.legend.append(html("li", {}, [shown, alone]));
    });
    this.figure.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { this.isolate(null); this.hideTip(); }
    });
  }

  // What stands for a curve in a legend, around the origin.
  sign(curve) {
    const line = svg("path", { d: "M-15,0H15", "stroke-dasharray": curve.dashes });
    const point = svg("path", { d: curve.marker, class: "point" });
    return curve.kind === "dense" ? [point] : [line, point];
  }

  show(curve, shown) {
    if (shown) this.hidden.delete(curve);
    else this.hidden.add(curve);
    if (this.isolated === curve && !shown) this.isolated = null;
    this.draw();
  }

  // Show one curve at full strength, or all of them if it is the one that is shown already.
  isolate(curve) {
    this.isolated = curve === this.isolated ? null : curve;
    this.legend.querySelectorAll("button").forEach((each, i) => each.setAttribute("aria-pressed", i === this.isolated));
    this.groups.forEach((group, i) => group.classList.toggle("dimmed", this.isolated !== null && i !== this.isolated));
    for (const [node, point] of this.nodes) node.setAttribute("aria-pressed", point.curve === this.isolated);
    this.front.classList.toggle("dimmed", this.isolated !== null);
  }

  // Show a part of the plot, `{ x, y }` from low to high, or all of it.
  look(view) {
    this.view = view;
    this.whole.disabled = view === null;
    this.draw();
  }

  zoom(factor) {
    const [x, y] = [this.x.map(Math.log), this.y];
    const around = ([low, high]) => [-factor, factor].map((side) => (low + high) / 2 + (side * (high - low)) / 2);
    this.look({ x: around(x).map(Math.exp), y: around(y) });
  }

  draw() {
    this.width = this.plot.clientWidth;
    this.height = Math.round(Math.max(260, Math.min(400, this.width * 0.43)));
    this.box = { left: 52, right: this.width - 14, top: 10, bottom: this.height - 46 };
    this.x = this.view?.x ?? this.of("costs", this.cost).range;
    this.y = this.view?.y ?? this.of("qualities", this.quality).range;
    this.known = this.chart.points.filter((point) => point.x[this.cost] && point.y[this.quality]);
    this.shown = this.known
      .filter((point) => !this.hidden.has(point.curve))
      .sort((a, b) => a.x[this.cost][0] - b.x[this.cost][0]);
    const root = svg("svg", { width: this.width, height: this.height, viewBox: `0 0 ${this.width} ${this.height}`, role: "group" });
    root.setAttribute("aria-label", `${this.of("qualities", this.quality).name} against ${this.of("costs", this.cost).name}`);
    this.root = root;
    this.plot.replaceChildren(root, this.tip);
    this.hideTip();
    this.drawAxes(root);
    const { left, right, top, bottom } = this.box;
    const frame = { x: left - 6, y: top - 6, width: Math.max(0, right - left + 12), height: bottom - top + 12 };
    root.append(svg("clipPath", { id: `${this.id}-clip` }, [svg("rect", frame)]));
    const inside = svg("g", { "clip-path": `url(#${this.id}-clip)` });
    root.append(inside);
    this.drawCurves(inside);
    this.drawFront(inside);
    this.cursor = svg("circle", { r: 10, class: "cursor", visibility: "hidden" });
    this.brush = svg("rect", { class: "brush", visibility: "hidden" });
    root.append(this.cursor, this.brush);
    const nodes = new Map([...this.nodes].map(([node, point]) => [point, node]));
    this.reachable = this.shown.filter((point) => this.seen(point));
    this.order = this.reachable.map((point) => nodes.get(point));
    this.active = Math.min(this.active, Math.max(0, this.order.length - 1));
    this.order[this.active]?.setAttribute("tabindex", "0");
    const isolated = this.isolated;
    this.isolated = null;
    this.isolate(isolated);
    this.say();
  }

  of(kind, key) { return this.chart[kind].find((entry) => entry.key === key); }

  seen(point) {
    const [x, y] = [this.px(point), this.py(point)];
    const { left, right, top, bottom } = this.box;
    return x >= left - 1 && x <= right + 1 && y >= top - 1 && y <= bottom + 1;
  }

  atX(value) {
    const [low, high] = this.x;
    return this.box.left + (Math.log(value / low) / Math.log(high / low)) * (this.box.right - this.box.left);
  }

  atY(value) {
    const [low, high] = this.y;
    return this.box.bottom - ((value - low) / (high - low)) * (this.box.bottom - this.box.top);
  }

  drawAxes(root) {
    const { left, right, top, bottom } = this.box;
    if (!this.known.length) {
      root.append(svg("text", { x: this.width / 2, y: this.height / 2, "text-anchor": "middle", class: "message" }, ["not measured"]));
      return;
    }
    for (const value of logTicks(...this.x, Math.max(3, Math.floor((right - left) / 70)))) {
      const x = this.atX(value);
      root.append(svg("line", { x1: x, x2: x, y1: top, y2: bottom, class: "grid" }));
      root.append(svg("text", { x, y: bottom + 17, "text-anchor": "middle" }, [String(Number(value.toPrecision(6)))]));
    }
    for (const value of evenTicks(...this.y, 6)) {
      const y = this.atY(value);
      root.append(svg("line", { x1: left, x2: right, y1: y, y2: y, class: "grid" }));
      root.append(svg("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, [String(value)]));
    }
    root.append(svg("path", { d: `M${left},${top}V${bottom}H${right}`, class: "axis", fill: "none" }));
    root.append(svg("text", { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle", class: "title" }, [`${this.of("costs", this.cost).name} (logarithmic)`]));
    const middle = (top + bottom) / 2;
    const turned = { x: 13, y: middle, "text-anchor": "middle", class: "title", transform: `rotate(-90 13 ${middle})` };
    root.append(svg("text", turned, [this.of("qualities", this.quality).name]));
  }

  drawCurves(inside) {
    this.nodes = new Map();
    this.groups = this.chart.curves.map((curve, i) => {
      const group = svg("g", { class: `curve ${curve.kind}` });
      group.style.setProperty("--c", curve.colour);
      const points = this.shown.filter((point) => point.curve === i);
      if (curve.kind === "dense" && points.length) this.drawLevel(inside, points[0]);
      const line = points.map((point) => `${this.px(point)},${this.py(point)}`).join("L");
      if (curve.kind === "random") group.append(svg("path", { d: this.band(points), class: "band" }));
      if (line && curve.kind !== "dense") group.append(svg("path", { d: `M${line}`, "stroke-dasharray": curve.dashes }));
      if (curve.kind !== "random") group.append(svg("path", { d: points.map((point) => this.bars(point)).join(""), class: "bars" }));
      for (const point of points) group.append(this.drawPoint(point, curve));
      inside.append(group);
      return group;
    });
  }

  px(point) { return Number(this.atX(point.x[this.cost][0]).toFixed(1)); }
  py(point) { return Number(this.atY(point.y[this.quality][0]).toFixed(1)); }

  bars(point) {
    const [, low, high] = point.y[this.quality];
    const [, fast, slow] = point.x[this.cost];
    const vertical = `M${this.px(point)},${this.atY(low).toFixed(1)}V${this.atY(high).toFixed(1)}`;
    return fast === null ? vertical : `${vertical}M${this.atX(fast).toFixed(1)},${this.py(point)}H${this.atX(slow).toFixed(1)}`;
  }

  // From the lower ends of intervals to the upper ones; seeds of one cost lie at one place.
  band(points) {
    const place = (point, end) => `${this.px(point)},${this.atY(point.y[this.quality][end]).toFixed(1)}`;
    const ends = [...points.map((point) => place(point, 1)), ...points.toReversed().map((point) => place(point, 2))];
    return ends.length ? `M${ends.join("L")}Z` : "";
  }

  drawLevel(inside, dense) {
    const y = this.py(dense);
    inside.append(svg("line", { x1: this.box.left, x2: this.box.right, y1: y, y2: y, class: "level" }));
  }

  drawPoint(point, curve) {
    const node = svg("path", { d: curve.marker, transform: `translate(${this.px(point)} ${this.py(point)})`, role: "button", tabindex: "-1" });
    node.setAttribute("class", point.noisy && this.of("costs", this.cost).timed ? "point noisy" : "point");
    node.setAttribute("aria-label", this.described(point));
    this.nodes.set(node, point);
    return node;
  }

  described(point) {
    const numbers = this.facts(point).map(([name, text]) => `${name} ${text}`);
    return `${point.name}: ${numbers.join(", ")}${point.noisy ? "; timed on a noisy machine" : ""}`;
  }

  facts(point) {
    const texts = this.table.rows[point.row];
    return this.table.columns.map((column, i) => [column.title, texts[i]]).slice(1).filter(([, text]) => text);
  }

  drawFront(inside) {
    this.front = svg("g");
    const members = this.chart.fronts[`${this.quality}/${this.cost}`].map((i) => this.chart.points[i]);
    if (members.length) {
      // between two members the cheaper one is the best that was measured
      const steps = members.map((point, i) => (i ? `H${this.px(point)}V${this.py(point)}` : `M${this.px(point)},${this.py(point)}`));
      this.front.append(svg("path", { d: steps.join(""), class: "front" }));
      for (const point of members.filter((each) => !this.hidden.has(each.curve)))
        this.front.append(svg("circle", { cx: this.px(point), cy: this.py(point), r: 8.5, class: "ring" }));
    }
    inside.append(this.front);
  }

  // One point at a time can be reached by Tab; the arrow keys walk on from it. The element around the drawing listens:
  // browsers stop at drawings that listen to focus themselves.
  listen() {
    const on = (name, act) => this.plot.addEventListener(name, act);
    on("keydown", (event) => this.onKey(event));
    on("focusin", (event) => this.showTip(this.nodes.get(event.target)));
    on("focusout", () => this.hideTip());
    on("pointerdown", (event) => { this.from = event.pointerType === "mouse" && event.button === 0 ? this.place(event) : null; });
    on("pointermove", (event) => (this.drag(event) ? this.hideTip() : this.onPointer(event)));
    on("pointerup", (event) => this.drop(event));
    on("pointerleave", () => { this.from = null; this.brush.setAttribute("visibility", "hidden"); this.hideTip(); });
    on("dblclick", () => this.look(null));
    on("click", (event) => {
      const point = this.dropped ? null : this.nearest(event);
      this.dropped = false;
      if (point) this.isolate(point.curve);
    });
  }

  onKey(event) {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      const own = this.order.map((_, i) => i).filter((i) => this.isolated === null || this.reachable[i].curve === this.isolated);
      this.focusOn(own[Math.max(0, Math.min(own.length - 1, own.indexOf(this.active) + steps[event.key]))]);
    } else if ((event.key === "Enter" || event.key === " ") && this.nodes.has(event.target)) {
      event.preventDefault();
      this.isolate(this.nodes.get(event.target).curve);
    }
  }

  focusOn(i) {
    if (i === undefined) return; // the method that is shown alone is out of sight
    this.order[this.active].setAttribute("tabindex", "-1");
    this.active = i;
    this.order[i].setAttribute("tabindex", "0");
    this.order[i].focus();
  }

  place(event) {
    const frame = this.plot.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  // Draw the part that a mouse is drawing around, once it is more than a click.
  drag(event) {
    if (!this.from || !(event.buttons & 1)) return false;
    const [[x0, y0], [x1, y1]] = [this.from, this.place(event)];
    this.area = Math.min(Math.abs(x1 - x0), Math.abs(y1 - y0)) > 8 ? [x0, y0, x1, y1] : null;
    const sides = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
    for (const [name, value] of Object.entries({ ...sides, visibility: this.area ? "visible" : "hidden" })) this.brush.setAttribute(name, value);
    return this.area !== null;
  }

  drop() {
    const area = this.from && this.area;
    [this.from, this.area] = [null, null];
    if (!area) return;
    this.dropped = true;
    const { left, right, top, bottom } = this.box;
    const across = [area[0], area[2]].map((x) => (Math.max(left, Math.min(right, x)) - left) / (right - left)).sort((a, b) => a - b);
    const up = [area[1], area[3]].map((y) => (bottom - Math.max(top, Math.min(bottom, y))) / (bottom - top)).sort((a, b) => a - b);
    const [[low, high], [least, most]] = [this.x, this.y];
    this.look({ x: across.map((share) => low * (high / low) ** share), y: up.map((share) => least + share * (most - least)) });
  }

  onPointer(event) {
    const point = this.nearest(event);
    if (point) this.showTip(point);
    else this.hideTip();
  }

  // The point nearest to the pointer, none if all are further than a fingertip.
  nearest(event) {
    const [x, y] = this.place(event);
    let best = null;
    let least = event.pointerType === "touch" ? 32 : 20;
    for (const point of this.reachable) {
      if (this.isolated !== null && point.curve !== this.isolated) continue;
      const distance = Math.hypot(this.px(point) - x, this.py(point) - y);
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  showTip(point) {
    const [x, y] = [this.px(point), this.py(point)];
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
    const noisy = this.of("costs", this.cost).timed && this.shown.some((point) => point.noisy) ? " Open markers: timed on a noisy machine." : "";
    const absent = this.chart.points.length - this.known.length;
    const left = absent ? ` ${absent} of ${this.chart.points.length} settings have no value on these axes.` : "";
    const outside = this.shown.length - this.reachable.length;
    const away = outside ? ` ${outside} lie${outside === 1 ? "s" : ""} outside what is shown: zoom out.` : "";
    const difference = this.quality === "agree" ? "" : "; of quality, those of the difference to dense";
    this.hint.textContent = `Bars and bands: 95 % intervals${difference}. Rings and steps: the front, as measured.`
      + `${noisy}${left}${away} Point at a setting for its numbers, click for its method alone, draw around a part to zoom; or walk with the arrow keys and press Enter.`;
  }

  keepDrawing() {
    const copy = standalone(this.root);
    const names = this.chart.curves.filter((_, i) => !this.hidden.has(i));
    const across = Math.max(1, Math.floor(this.width / 190));
    const height = this.height + 22 * Math.ceil(names.length / across);
    names.forEach((curve, n) => {
      const [x, y] = [30 + 190 * (n % across), this.height + 12 + 22 * Math.floor(n / across)];
      const own = standalone(this.legend.querySelectorAll("svg")[this.chart.curves.indexOf(curve)]);
      const entry = svg("g", { transform: `translate(${x} ${y})` }, [...own.children]);
      entry.append(svg("text", { x: 22, y: 4, "font-size": 12, "font-family": "sans-serif", fill: getComputedStyle(this.figure).color }, [curve.name]));
      copy.append(entry);
    });
    copy.prepend(svg("rect", { width: this.width, height, fill: getComputedStyle(document.body).backgroundColor }));
    copy.setAttribute("height", height);
    copy.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    keep(`${this.id}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(copy));
  }

  keepPoints() {
    const axes = [...this.chart.costs, ...this.chart.qualities];
    const head = ["setting", ...axes.flatMap(({ name }) => [name, `${name}, from`, `${name}, to`])];
    const values = (point) => axes.flatMap(({ key }) => (point.x[key] ?? point.y[key] ?? [null, null, null]));
    keepTable(this.id, [head, ...this.chart.points.map((point) => [point.name, ...values(point)])]);
  }
}
