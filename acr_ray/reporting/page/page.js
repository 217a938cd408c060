"use strict";
// The page's controls. Every number was computed when the page was written; this looks them up.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const charts = {};
for (const figure of document.querySelectorAll("[data-chart]")) charts[figure.dataset.chart] = new Chart(figure);

const percent = (tenths) => `${(tenths / 10).toFixed(1)} %`;
const share = { yTicks: [0, 200, 400, 600, 800, 1000], yText: percent, yTickText: (t) => `${t / 10} %` };
const trimmed = (v) => String(parseFloat(v.toFixed(6)));
const state = { n: "own", alpha: null, chosen: data.chosen.slice(), sort: null };

// Nothing where it cannot be derived: of a source that stopped early at any budget but its own.
function entry(k) {
  return data.budgets[k][state.n === "own" ? "own" : `${state.n}/${state.alpha}`];
}

function shown() {
  return data.budgets.map((_, k) => k).filter(entry);
}

function drawPA() {
  const { x, curves } = data.ecdf;
  const stretch = byId("stretch").checked;
  charts.p_a.show({
    ...share, x, xScale: stretch ? stretched : linear, xLabel: "p_A", yLabel: "share of images with at least this p_A",
    label: "Share of images with at least a given p_A", start: x.findIndex((v) => v >= 0.5),
    xTicks: (stretch ? [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1] : [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]).filter((t) => t >= x[0]),
    xText: trimmed,
    series: curves.map((c, k) => ({ name: data.names[k], k, ...c })),
  });
}

function drawAccuracy() {
  const longest = Math.max(2, ...shown().map((k) => entry(k).c.length));
  const x = data.radii.slice(0, Math.min(longest + 1, data.radii.length));
  const step = x[x.length - 1] > 2.5 ? 0.5 : x[x.length - 1] > 1.2 ? 0.25 : 0.1;
  charts.accuracy.show({
    ...share, x, xLabel: "radius", yLabel: "certified accuracy", label: "Certified accuracy over the radius", start: 0,
    xTicks: Array.from({ length: Math.floor(x[x.length - 1] / step + 1e-9) + 1 }, (_, i) => i * step), xText: trimmed,
    series: shown().map((k) => ({ name: data.names[k], k, kind: data.kinds[k], y: x.map((_, i) => entry(k).c[i] ?? 0) })),
  });
}

function drawBest() {
  if (!data.best) return;
  const { x, name, best, curves } = data.best;
  const last = x[x.length - 1], step = last > 2.5 ? 0.5 : last > 1.2 ? 0.25 : 0.1;
  charts.best.show({
    ...share, x, xLabel: "radius", yLabel: "certified accuracy", label: "Best source for each radius", start: 0,
    xTicks: Array.from({ length: Math.floor(last / step + 1e-9) + 1 }, (_, i) => i * step), xText: trimmed,
    series: curves.map((c) => ({ name: data.names[c.k], k: Math.max(c.k, 0), kind: c.k < 0 ? "behind" : "chosen", y: c.y }))
      .concat([{ name, k: 0, kind: "best", y: best }]),
  });
}

function drawACR() {
  const alpha = state.alpha ?? data.own[0].alpha;
  const at = (k) => data.ns.map((n) => data.budgets[k][`${n}/${alpha}`]);
  const derived = data.budgets.map((_, k) => k).filter((k) => at(k).every(Boolean));
  const most = Math.max(...derived.flatMap((k) => at(k).map((e) => e.v)), 1e-6);
  const step = [0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5].find((s) => most / s <= 6) ?? most / 5;
  charts.acr.show({
    x: data.ns, xScale: log, xLabel: "N", yLabel: `ACR at α = ${alpha}`, label: "ACR over the number of noise draws",
    start: data.ns.indexOf(data.own[0].n), xTicks: data.ns.filter((n) => Number.isInteger(Math.log10(n))),
    xText: (n) => n.toLocaleString("en").replaceAll(",", "\u202f"),
    yTicks: Array.from({ length: Math.ceil(most / step) + 1 }, (_, i) => i * step), yText: trimmed,
    series: derived.map((k) => ({
      name: data.names[k], k, kind: data.kinds[k], y: at(k).map((e) => e.v), text: at(k).map((e) => e.t),
      dashedFrom: data.own[k] ? data.own[k].n : undefined,
    })),
  });
}

function drawSensitivity() {
  const { p, sigmas, values } = data.sensitivity;
  const all = values.flat(), powers = [];
  for (let e = Math.floor(Math.log10(Math.min(...all))); e <= Math.ceil(Math.log10(Math.max(...all))); e++) powers.push(10 ** e);
  charts.sensitivity.show({
    x: p, xLabel: "p_A", yLabel: "radius gained per p_A gained", label: "Sensitivity of the radius to p_A", start: 80,
    xTicks: [0.5, 0.6, 0.7, 0.8, 0.9, 1], xText: (v) => trimmed(Math.round(v * 1e4) / 1e4),
    yScale: log, yTicks: powers, yText: (v) => String(parseFloat(v.toPrecision(3))),
    series: sigmas.map((s, k) => ({ name: `σ = ${s}`, k, y: values[k] })),
  });
}

function cell(row, field, text, value) {
  const td = make("td", { "data-field": field, "data-value": value }, row, text);
  return td;
}

// The same table as the one the page was written with, at the chosen radii and budget.
function drawTable() {
  const table = byId("numbers");
  const own = state.n === "own";
  for (const head of table.querySelectorAll("thead [data-radius]")) head.remove();
  const titles = table.tHead.rows[0];
  for (const i of state.chosen) {
    const head = make("th", { scope: "col", "data-radius": data.radii[i] });
    make("button", { type: "button" }, head, `r = ${data.radius_texts[i]} (%)`);
    titles.append(head);
  }
  for (const row of table.tBodies[0].rows) {
    const k = Number(row.dataset.row), now = entry(k);
    const acr = row.querySelector("[data-field=acr]");
    acr.firstChild.textContent = own ? acr.dataset.own : now ? now.t : "–";
    acr.dataset.value = own ? acr.dataset.exact : now ? now.v : -1;
    for (const extra of acr.querySelectorAll("small")) {
      extra.hidden = !now?.i;
      extra.textContent = now?.i ?? "";
    }
    for (const old of row.querySelectorAll("[data-field=accuracy]")) old.remove();
    for (const i of state.chosen) {
      const tenths = now ? now.c[i] ?? 0 : -1;
      const low = data.lower[k]?.includes(i) ? "≥ " : data.curves[k] ? "≈ " : "";
      const td = cell(row, "accuracy", now ? low + (tenths / 10).toFixed(1) : "–", tenths);
      td.dataset.radius = data.radii[i];
      row.append(td);
    }
  }
  wireSorting(table);
}

function wireSorting(table) {
  for (const button of table.querySelectorAll("thead button")) button.onclick = () => sort(table, button.parentElement);
}

function sort(table, head) {
  const column = head.cellIndex, down = head.getAttribute("aria-sort") !== "descending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const order = (a, b) => (isNaN(key(a)) || isNaN(key(b)) ? key(b).localeCompare(key(a)) : key(b) - key(a)) * (down ? 1 : -1);
  body.append(...Array.from(body.rows).sort(order));
}

function noteBudget() {
  const beyond = data.own.map((o, k) => (state.n !== "own" && entry(k) && Number(state.n) > o.n ? data.names[k] : null)).filter(Boolean);
  const absent = data.names.filter((_, k) => !entry(k));
  byId("budget-note").textContent = state.n === "own"
    ? "As certified: each source at its own N and α."
    : `Derived from p_A at N = ${Number(state.n).toLocaleString("en").replaceAll(",", "\u202f")}, α = ${state.alpha}.`
      + (absent.length ? ` Not derived, for its draws were stopped by what they showed: ${absent.join(", ")}.` : "")
      + (beyond.length ? ` Beyond the draws that were made, so too high rather than too low: ${beyond.join(", ")}.` : "");
}

function chooseRadii(event) {
  event.preventDefault();
  const wanted = byId("radii").value.split(/[,;\s]+/).filter(Boolean).map(Number);
  const last = data.radii[data.radii.length - 1];
  const bad = wanted.find((r) => !(r >= 0 && r <= last));
  if (bad !== undefined || !wanted.length) {
    byId("radii-note").textContent = `Give radii from 0 to ${data.radius_texts[data.radii.length - 1]}, with commas between.`;
    return;
  }
  // A radius off the grid is read at the next larger one: a smaller share, never a larger.
  const chosen = wanted.map((r) => data.radii.findIndex((g) => g >= r - 1e-9));
  const moved = wanted.some((r, i) => Math.abs(data.radii[chosen[i]] - r) > 1e-9);
  state.chosen = [...new Set(chosen)].sort((a, b) => a - b);
  byId("radii-note").textContent = moved ? "Radii between two of the page's are shown at the larger." : "";
  drawTable();
}

// A link into a closed list opens it.
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
}

function start() {
  for (const n of data.ns) make("option", { value: n }, byId("n"), n.toLocaleString("en").replaceAll(",", "\u202f"));
  for (const a of data.alphas) make("option", { value: a }, byId("alpha"), a);
  byId("alpha").value = data.own[0].alpha;
  state.alpha = data.own[0].alpha;
  byId("radii").value = data.chosen.map((i) => trimmed(data.radii[i])).join(", ");
  byId("budget").addEventListener("change", (event) => {
    // Choosing alpha alone means: at that alpha, with the draws that were made.
    if (event.target.id === "alpha" && byId("n").value === "own") byId("n").value = String(data.own[0].n);
    state.n = byId("n").value;
    if (state.n === "own") byId("alpha").value = data.own[0].alpha;
    state.alpha = byId("alpha").value;
    noteBudget(); drawAccuracy(); drawACR(); drawTable();
  });
  byId("columns").addEventListener("submit", chooseRadii);
  byId("stretch").addEventListener("change", drawPA);
  for (const table of document.querySelectorAll("table[data-sortable]")) wireSorting(table);
  window.addEventListener("hashchange", openTarget);
  openTarget();
  noteBudget(); drawPA(); drawAccuracy(); drawTable(); drawBest(); drawACR(); drawSensitivity();
  document.documentElement.dataset.ready = "yes";
}

start();
