"use strict";
// One chart: curves over a shared axis, a cursor moved by pointer or arrow keys, a legend that reads out the values.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, parent = null, text = null) {
  const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

const colour = (k, kind) => ({ constant: "var(--constant)", behind: "var(--line)", best: "var(--ink)" })[kind] ?? `var(--s${k % 8})`;
const dash = (k) => ["", "8 3", "3 3", "9 3 2 3"][Math.floor(k / 8) % 4];

const linear = { to: (v) => v, back: (v) => v };
const log = { to: Math.log10, back: (v) => 10 ** v };
// Equal room for 0.9, 0.99 and 0.999.
const stretched = { to: (v) => -Math.log10(1 - v + 1e-5), back: (v) => 1 + 1e-5 - 10 ** -v };

// spec: x (array), series [{name, k, kind, y (array, null where unknown), low, high, dashedFrom}; of the kind "behind":
//       drawn, but not in the legend], xTicks, yTicks,
//       xScale, yScale, xLabel, yLabel, xText(v), yText(v), label
class Chart {
  constructor(figure) {
    this.figure = figure;
    this.svg = make("svg:svg", { tabindex: 0, role: "slider" }, figure);
    this.legend = make("ul", { class: "legend" }, figure);
    this.at = null;
    new ResizeObserver(() => this.spec && this.draw()).observe(figure);
    this.svg.addEventListener("pointermove", (e) => this.point(e));
    this.svg.addEventListener("pointerdown", (e) => this.point(e));
    this.svg.addEventListener("keydown", (e) => this.key(e));
  }

  show(spec) {
    this.spec = { xScale: linear, yScale: linear, ...spec };
    if (this.at === null || this.at >= spec.x.length) this.at = Math.min(spec.start ?? 0, spec.x.length - 1);
    this.svg.setAttribute("aria-label", spec.label);
    this.svg.setAttribute("aria-valuemin", spec.x[0]);
    this.svg.setAttribute("aria-valuemax", spec.x[spec.x.length - 1]);
    this.legend.replaceChildren();
    this.atText = make("li", { class: "at" }, this.legend);
    this.told = spec.series.filter((s) => s.kind !== "behind");
    this.values = this.told.map((s) => {
      const item = make("li", { style: `--c:${colour(s.k, s.kind)}` }, this.legend);
      make("span", { class: "key" }, item);
      make("span", {}, item, s.name);
      return make("b", {}, item);
    });
    this.draw();
  }

  draw() {
    const { svg, spec } = this;
    const width = Math.max(this.figure.clientWidth, 260), height = width < 520 ? 280 : 330;
    const left = 46, right = 10, top = 24, bottom = 40;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    const span = (ends, scale) => ends.map(scale.to);
    const [x0, x1] = span([spec.x[0], spec.x[spec.x.length - 1]], spec.xScale);
    const [y0, y1] = span([spec.yTicks[0], spec.yTicks[spec.yTicks.length - 1]], spec.yScale);
    this.px = (v) => left + ((spec.xScale.to(v) - x0) / (x1 - x0 || 1)) * (width - left - right);
    this.py = (v) => height - bottom - ((spec.yScale.to(v) - y0) / (y1 - y0 || 1)) * (height - top - bottom);
    this.fromPixel = (p) => spec.xScale.back(x0 + ((p - left) / (width - left - right)) * (x1 - x0));
    for (const t of spec.yTicks) {
      make("svg:line", { class: "grid", x1: left, x2: width - right, y1: this.py(t), y2: this.py(t) }, svg);
      make("svg:text", { x: left - 8, y: this.py(t) + 4, "text-anchor": "end" }, svg, spec.yTickText ? spec.yTickText(t) : spec.yText(t));
    }
    let taken = -Infinity;
    for (const t of spec.xTicks) {
      if (this.px(t) - taken < 44) continue;
      taken = this.px(t);
      make("svg:line", { class: "axis", x1: taken, x2: taken, y1: height - bottom, y2: height - bottom + 5 }, svg);
      make("svg:text", { x: taken, y: height - bottom + 19, "text-anchor": taken > width - right - 20 ? "end" : "middle" }, svg, spec.xText(t));
    }
    make("svg:line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }, svg);
    make("svg:text", { x: width - right, y: height - 4, "text-anchor": "end" }, svg, spec.xLabel);
    make("svg:text", { x: 0, y: 12 }, svg, spec.yLabel);
    for (const s of spec.series) this.band(s);
    for (const s of spec.series) this.curve(s);
    this.cursor = make("svg:line", { class: "cursor", y1: top, y2: height - bottom }, svg);
    this.dots = this.told.map((s) => make("svg:circle", { r: 4, style: `fill:${colour(s.k, s.kind)}` }, svg));
    this.move(this.at);
  }

  // [x, y, position] of the points that are known.
  known(s) {
    return s.y.map((v, i) => [this.spec.x[i], v, i]).filter(([, v]) => v !== null);
  }

  path(points) {
    return points.map(([a, b], i) => `${i ? "L" : "M"}${this.px(a).toFixed(1)} ${this.py(b).toFixed(1)}`).join("");
  }

  band(s) {
    if (!s.high) return;
    const high = this.known(s).map(([a, , i]) => [a, s.high[i]]), low = this.known(s).map(([a, , i]) => [a, s.low[i]]);
    make("svg:path", { class: "band", d: `${this.path(high.concat(low.reverse()))}Z`, style: `fill:${colour(s.k, s.kind)}` }, this.svg);
  }

  curve(s) {
    const known = this.known(s);
    const split = s.dashedFrom === undefined ? known.length : known.findIndex(([a]) => a >= s.dashedFrom);
    const cut = split < 0 ? known.length : split;
    const style = `stroke:${colour(s.k, s.kind)}`;
    make("svg:path", { class: "curve", d: this.path(known.slice(0, cut + 1)), style, "stroke-dasharray": dash(s.k) }, this.svg);
    if (cut < known.length - 1) make("svg:path", { class: "curve", d: this.path(known.slice(cut)), style, "stroke-dasharray": "4 4" }, this.svg);
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    this.move(this.nearest(this.fromPixel(event.clientX - box.left)));
  }

  nearest(v) {
    const { x } = this.spec;
    let best = 0;
    for (let i = 1; i < x.length; i++) if (Math.abs(x[i] - v) < Math.abs(x[best] - v)) best = i;
    return best;
  }

  key(event) {
    const far = Math.max(1, Math.round(this.spec.x.length / 20)), last = this.spec.x.length - 1;
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: far, PageDown: -far, Home: -last, End: last };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.move(Math.min(Math.max(this.at + steps[event.key], 0), last));
  }

  move(i) {
    const { spec } = this;
    this.at = i;
    const x = this.px(spec.x[i]);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.atText.textContent = `${spec.xLabel} ${spec.xText(spec.x[i])}`;
    const spoken = this.told.map((s, k) => {
      const v = s.y[i], known = v !== null && v !== undefined;
      const text = !known ? "not known" : s.text ? s.text[i] : spec.yText(v);
      this.values[k].textContent = text;
      this.dots[k].setAttribute("visibility", known ? "visible" : "hidden");
      if (known) { this.dots[k].setAttribute("cx", x); this.dots[k].setAttribute("cy", this.py(v)); }
      return `${s.name} ${text}`;
    });
    this.svg.setAttribute("aria-valuenow", spec.x[i]);
    this.svg.setAttribute("aria-valuetext", `${this.atText.textContent}: ${spoken.join(", ")}`);
  }
}
