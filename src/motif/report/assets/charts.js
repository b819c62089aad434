// Charts, drawn by uPlot: lines, points with intervals, stacked shares. Each has a summary in words and a table of its
// values, and the arrow keys read single values.

const HEIGHT = 230;
const PER_RUN = new Set(["bars", "cells"]); // kinds of chart that show one run
const FEW = 12; // up to so many points, each gets a mark
const SECOND_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 432000];

// -- colours ----------------------------------------------------------------------------------------------

const probe = el("i", { hidden: true });
document.body.append(probe);
let inks = new Map();

/** A colour of the style sheet in the form that a canvas takes, for the present theme. */
function ink(colour) {
  if (!inks.has(colour)) {
    probe.style.color = colour.startsWith("--") ? `var(${colour})` : colour;
    inks.set(colour, getComputedStyle(probe).color);
  }
  return inks.get(colour);
}

const figures = new Set(); // the charts on the page

/** Redraws all charts in the present colours. */
function recolour() {
  inks = new Map();
  for (const figure of figures) figure.plot?.redraw(false);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

/** The colour of level `index` of `count`: from grey to the full accent. */
const shade = (index, count) =>
  `color-mix(in oklab, var(--accent) ${Math.round((100 * index) / Math.max(1, count - 1))}%, var(--level))`;

// -- a figure ---------------------------------------------------------------------------------------------

/** A chart of one or several runs. `update` takes new parts ({run, index, chart}), the axis, and whether there are several runs. */
class Figure {
  constructor(id) {
    this.element = el("figure", { class: "chart", id: `chart-${id}` });
    this.area = el("div", { class: "plot", tabindex: 0, role: "img" });
    this.log = el("button", { type: "button", "aria-pressed": "false", onclick: () => this.scale() }, "Log scale");
    this.values = el(
      "details",
      { class: "values" },
      el("summary", {}, "Values, scale, files"),
      el(
        "p",
        { class: "actions" },
        this.log,
        el("button", { type: "button", onclick: () => download(`${id}.csv`, "text/csv", csvOf(this)) }, "CSV"),
        el("button", { type: "button", onclick: () => pictureOf(this).toBlob((blob) => download(`${id}.png`, "image/png", blob)) }, "PNG"),
      ),
    );
    this.values.addEventListener("toggle", () => this.fillTable());
    this.place = -1;
    this.shape = "";
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.area.addEventListener("blur", () => this.leave());
    this.area.addEventListener("pointerleave", () => this.leave());
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(this.area);
    figures.add(this);
  }

  update(parts, axis, several) {
    const shown = parts.filter(({ chart }) => !chart.missing);
    const { chart } = shown[0] ?? parts[0];
    axis = chart.own ?? axis;
    Object.assign(this, { parts: shown, chart, axis, several });
    const title = PER_RUN.has(chart.kind) && several ? `${chart.title}: ${parts[0].run.name}` : chart.title;
    const shape = JSON.stringify([title, chart.kind, axis, shown.map(({ run, index, chart }) => [run.name, index, legendNames(chart)])]);
    const caption = tidy(chart.caption);
    if (!shown.length || chart.kind === "table") {
      this.forget();
      const tables = shown.map(({ run, chart }) => [several && el("p", { class: "sub" }, run.name), numberTable(chart)]);
      const none = el("p", { class: "missing" }, chart.missing);
      this.element.replaceChildren(el("h3", {}, title), ...(shown.length ? tables.flat() : [none]).filter(Boolean), el("figcaption", {}, caption));
      return;
    }
    if (chart.kind === "cells") {
      this.grid = gridOf(shown[0], axis);
      this.words = gridWords(shown[0], this.grid);
    } else if (chart.kind === "bars") {
      this.stack = stackOf(shown[0], axis);
      this.words = stackWords(shown[0], this.stack, axis);
    } else {
      this.columns = columnsOf(shown, axis, several);
      this.words = wordsOf(shown, this.columns, axis);
    }
    if (shape !== this.shape) {
      this.forget();
      this.shape = shape;
      this.caption = el("figcaption", {});
      this.element.replaceChildren(el("h3", {}, title), legend(shown, several), this.area, this.caption, this.values);
    }
    this.log.hidden = chart.kind !== "lines" || Boolean(chart.own);
    this.title = title;
    this.caption.textContent = caption;
    this.area.setAttribute("aria-label", summaryOf(chart, this.words, axis));
    this.fillTable();
    if (this.plot) this.plot.setData(this.table(), !this.zoomed());
    else this.draw();
  }

  forget() {
    this.plot?.destroy();
    this.plot = null;
    this.shape = "";
  }

  remove() {
    this.forget();
    this.watch.disconnect();
    figures.delete(this);
  }

  /** The data for uPlot: x, then a column per series of `options`. */
  table() {
    if (this.chart.kind === "cells") return [this.grid.x, this.grid.x.map(() => 0)];
    if (this.chart.kind === "bars") return [this.stack.x, ...[...this.stack.upTo].reverse()];
    const drawn = this.columns.lines.flatMap((line) => drawnKeys(this.chart, line).map((key) => line[key]));
    return [this.columns.x, ...(this.logarithmic ? drawn.map((values) => values.map((value) => (value > 0 ? value : null))) : drawn)];
  }

  /** Changes between a linear and a logarithmic scale. */
  scale() {
    this.logarithmic = !this.logarithmic;
    this.log.setAttribute("aria-pressed", String(this.logarithmic));
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  }

  draw() {
    const width = this.area.clientWidth;
    if (!width || !this.shape) return;
    if (this.plot) {
      if (this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT });
      return;
    }
    this.plot = new uPlot(optionsOf(this, width), this.table(), this.area);
  }

  zoomed() {
    const { min, max } = this.plot.scales.x;
    const [low, high] = rangeX(this.plot.data[0], this.chart.kind);
    return min > low || max < high;
  }

  fillTable() {
    if (!this.values.open || !this.words) return;
    const names = [...new Set(this.words.flatMap((place) => place.rows.map((row) => row.name)))];
    const value = (place, name) => place.rows.find((row) => row.name === name)?.value ?? NONE;
    const lines = this.words
      .filter((place) => place.rows.length)
      .map((place) => [place.title, ...names.map((name) => value(place, name))]);
    this.values.querySelector(".scroll")?.remove();
    this.values.append(scrolling(`Values of ${this.chart.title}`, plainTable([AXES[this.axis].name, ...names], lines)));
  }

  // -- reading values --

  key(event) {
    const there = this.words.flatMap((place, at) => (place.rows.length ? [at] : []));
    const now = there.indexOf(this.place);
    const target = {
      ArrowRight: there[Math.min(there.length - 1, now + 1)],
      ArrowLeft: there[Math.max(0, now - 1)],
      Home: there[0],
      End: there[there.length - 1],
    }[event.key];
    if (event.key === "Escape") this.leave();
    if (target === undefined) return;
    event.preventDefault();
    this.pick(target);
    const { title, rows } = this.words[target];
    announce(`${title}: ${rows.map((row) => `${row.name} ${row.value}`).join(", ")}`);
  }

  pick(at) {
    const place = this.words[at];
    if (!this.plot || !place?.rows.length) return this.leave();
    this.place = at;
    const left = this.plot.valToPos(place.x, "x");
    if (Math.abs(this.plot.cursor.left - left) > 0.5) this.plot.setCursor({ left, top: 0 }, false);
    const box = this.plot.over.getBoundingClientRect();
    showTip(tipContent(place), box.left + left, box.top);
  }

  /** After a move of the pointer: select the nearest place with values. */
  point(plot) {
    if (plot.cursor.left < 0 || !this.area.matches(":hover")) return;
    const x = plot.posToVal(plot.cursor.left, "x");
    let nearest = -1;
    this.words.forEach((place, at) => {
      if (place.rows.length && (nearest < 0 || Math.abs(place.x - x) < Math.abs(this.words[nearest].x - x))) nearest = at;
    });
    if (nearest >= 0) this.pick(nearest);
  }

  leave() {
    this.place = -1;
    this.plot?.setCursor({ left: -10, top: -10 }, false);
    hideTip();
  }
}

// -- options for uPlot ------------------------------------------------------------------------------------

const drawnKeys = (chart, line) => (chart.kind === "points" ? ["raw"] : line.keys);

function optionsOf(figure, width) {
  const { chart, axis } = figure;
  const bars = chart.kind === "bars",
    cells = chart.kind === "cells";
  const log = figure.logarithmic ? { distr: 3, range: (plot, low, high) => logRange(low, high) } : {};
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
    scales: {
      x: { time: false, range: (plot, low, high) => spread(low, high, chart.kind) },
      y: { range: (plot, low, high) => rangeY(figure, low, high), ...log },
    },
    axes: [axisOptions(AXES[axis].unit, AXES[axis].name, true, axis === "step"), cells ? { ...axisOptions("count", chart.y, false), values: () => [], grid: { show: false } } : axisOptions(chart.unit, chart.y, false)],
    series: [{}, ...(cells ? [{ stroke: "transparent", points: { show: false } }] : bars ? stackSeries(chart) : figure.columns.lines.flatMap((line) => lineSeries(chart, line)))],
    hooks: {
      setCursor: [(plot) => figure.point(plot)],
      draw: chart.kind === "points" ? [(plot) => drawWhiskers(plot, figure)] : cells ? [(plot) => drawCells(plot, figure)] : [],
    },
  };
}

function axisOptions(unit, label, across, whole = false) {
  const wide = (plot, texts) => Math.max(46, 14 + 6.6 * Math.max(...(texts ?? []).map((text) => text.length), 0));
  return {
    label,
    size: across ? 30 : wide,
    labelSize: 20,
    gap: 6,
    labelGap: 2,
    font: "12px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
    stroke: () => ink("--soft"),
    grid: { stroke: () => ink("--rule"), width: 1 },
    ticks: { show: false },
    space: across ? 50 : 36,
    ...(unit === "seconds" && { incrs: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, ...SECOND_STEPS] }),
    ...(whole && { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 1e6] }),
    values: (plot, splits) => splits.map((value) => (value === null ? "" : brief(value, unit))),
  };
}

function lineSeries(chart, line) {
  const stroke = () => ink(line.look.colour);
  return drawnKeys(chart, line).map((key) => {
    const faint = key === "raw" && (line.smooth || chart.kind === "points");
    const marked = key === "raw" && !line.smooth && chart.kind === "lines" && line.raw.length <= FEW;
    return {
      stroke,
      width: faint ? 1 : 2,
      alpha: faint ? 0.4 : 1,
      dash: faint && chart.kind !== "points" ? [] : line.look.dash,
      points: { show: marked, size: 6, fill: stroke, stroke },
    };
  });
}

function stackSeries({ levels }) {
  const stepped = uPlot.paths.stepped({ align: 1 });
  return levels
    .map((_, level) => ({
      fill: () => ink(shade(level, levels.length)),
      stroke: () => ink("--card"),
      width: 1,
      paths: stepped,
      points: { show: false },
    }))
    .reverse();
}

/** Markers with their intervals; those of several lines stand side by side. */
function drawWhiskers(plot, { columns }) {
  const { ctx } = plot;
  const px = devicePixelRatio;
  ctx.save();
  columns.lines.forEach((line, index) => {
    const shift = (index - (columns.lines.length - 1) / 2) * 5 * px;
    ctx.strokeStyle = ctx.fillStyle = ink(line.look.colour);
    ctx.lineWidth = 1.5 * px;
    columns.x.forEach((x, at) => {
      const value = line.raw[at];
      if (value === null || value === undefined || x < plot.scales.x.min || x > plot.scales.x.max) return;
      const left = plot.valToPos(x, "x", true) + shift;
      const y = (height) => plot.valToPos(height, "y", true);
      const low = line.low[at],
        high = line.high[at];
      if (low !== null && low !== undefined && high !== null) {
        ctx.beginPath();
        ctx.moveTo(left, y(low));
        ctx.lineTo(left, y(high));
        for (const end of [y(low), y(high)]) ctx.moveTo(left - 4 * px, end), ctx.lineTo(left + 4 * px, end);
        ctx.stroke();
      }
      ctx.beginPath();
      ctx.translate(left, y(value));
      ctx.scale(px, px);
      markPath(ctx, line.look.mark);
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      ctx.fill();
    });
  });
  ctx.restore();
}

/** A rectangle for every time a question was grown, as full as its rate. */
function drawCells(plot, { chart, grid }) {
  const { ctx } = plot;
  const place = (value, scale) => plot.valToPos(value, scale, true);
  const wide = Math.max(2, Math.abs(place(grid.width, "x") - place(0, "x")) - 1);
  ctx.save();
  grid.rates.forEach((rates, row) => {
    const top = place(chart.rows.length - row, "y"),
      high = place(chart.rows.length - row - 1, "y") - top;
    for (const [at, step] of grid.steps.entries()) {
      if (!rates.has(step)) continue;
      ctx.fillStyle = ink(shade(Math.round(10 * rates.get(step)), 11));
      ctx.fillRect(place(grid.x[at], "x") - wide / 2, top, wide, Math.max(1, high - 1));
    }
  });
  ctx.restore();
}

function markPath(ctx, mark) {
  if (mark === 1) ctx.rect(-3.5, -3.5, 7, 7);
  else if (mark === 2) ctx.moveTo(0, -5), ctx.lineTo(5, 0), ctx.lineTo(0, 5), ctx.lineTo(-5, 0);
  else ctx.arc(0, 0, 4, 0, 2 * Math.PI);
}

function spread(low, high, kind) {
  if (low === null || low === undefined) return [0, 1];
  if (low === high) return [low - 1, high + 1];
  const pad = kind === "points" || kind === "cells" ? 0.04 * (high - low) : 0;
  return [low - pad, high + pad];
}

const rangeX = (x, kind) => spread(x[0], x[x.length - 1], kind);

/** The y range: the chart's own limits, else those of the values, up to the next round number. */
function rangeY({ chart, columns }, low, high) {
  if (chart.kind === "bars") return [0, 1];
  if (chart.kind === "cells") return [0, chart.rows.length];
  if (low === null || low === undefined) return [0, 1];
  if (chart.kind === "points") {
    const ends = columns.lines.flatMap((line) => [...line.low, ...line.high, ...line.raw]).filter(Number.isFinite);
    const top = Math.ceil(Math.max(...ends) * 10 + 0.2) / 10;
    return [Math.min(0, Math.floor(Math.min(...ends) * 10) / 10), Math.min(1, top)];
  }
  const [least, most] = chart.limits;
  const bottom = Math.min(least ?? low, low);
  let top = most ?? high;
  if (top <= bottom) top = bottom + (Math.abs(bottom) || 1);
  return most === null ? [bottom, bottom + roundUp(top - bottom)] : [bottom, top];
}

const logRange = (low, high) => (low > 0 ? [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 1e-9)] : [0.1, 1]);

function roundUp(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((factor) => factor * power >= size * 0.9999) * power;
}

// -- around the drawing -----------------------------------------------------------------------------------

const legendNames = (chart) => chart.levels ?? (chart.series ?? []).map((series) => series.name);

function legend(parts, several) {
  const { chart } = parts[0];
  if (chart.kind === "cells") return el("ul", { class: "legend" }, [0, 5, 10].map((tenth) => el("li", {}, swatch(shade(tenth, 11)), `${10 * tenth} % right`)));
  if (chart.kind === "bars")
    return el(
      "ul",
      { class: "legend" },
      chart.levels.map((name, level) => el("li", {}, swatch(shade(level, chart.levels.length)), name)),
    );
  const average = chart.average && `moving average over ${plural(chart.average, "step")}`;
  const names = legendNames(chart);
  const marked = chart.kind === "points";
  const lines = names.map((name, index) => [
    lineSample(several ? "--soft" : `--line${index % RUN_COLOURS}`, DASHES[index % DASHES.length], marked && !several ? index % 3 : null),
    name,
  ]);
  const runs = several ? parts.map(({ run, index }) => [lineSample(`--line${index % RUN_COLOURS}`, [], marked ? index % 3 : null), run.name]) : [];
  const items = [...runs, ...(several && names.length === 1 ? [] : lines)];
  if (!several && items.length === 1 && average) items[0][1] = average; // the title names it
  return el(
    "ul",
    { class: "legend" },
    items.map(([mark, name]) => el("li", {}, mark, name)),
    average && (several || items.length > 1) && el("li", {}, average),
  );
}

// -- files ------------------------------------------------------------------------------------------------

function download(name, type, content) {
  const link = el("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The numbers of a chart, unrounded: a line per place on the axis, or for each count and cell. */
function csvOf({ chart, columns, axis, parts }) {
  const quoted = (cell) => (/[",\n]/.test(cell ?? "") ? `"${String(cell).replaceAll('"', '""')}"` : (cell ?? ""));
  const text = (lines) => lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  if (chart.kind === "cells") return text([["question", "step", "rate"], ...chart.rows.flatMap(({ name, cells }) => cells.map((cell) => [name, ...cell]))]);
  if (chart.kind === "bars") return text([["first step", "last step", ...parts[0].chart.levels], ...chart.bars.map((bar) => [bar.first, bar.last, ...bar.counts])]);
  const named = ({ run, name }, key) => [run, name, key === "raw" ? "" : key].filter(Boolean).join(" ");
  const heads = columns.lines.flatMap((line) => line.keys.map((key) => named(line, key)));
  return text([[AXES[axis].name, ...heads], ...columns.x.map((x, at) => [x, ...columns.lines.flatMap((line) => line.keys.map((key) => line[key][at]))])]);
}

/** A canvas with the title, the legend and the drawing of a chart. */
function pictureOf({ plot, title, element }) {
  const drawn = plot.ctx.canvas,
    px = devicePixelRatio,
    head = 56;
  const canvas = el("canvas", { width: drawn.width, height: drawn.height + head * px });
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = ink("--card");
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(drawn, 0, head * px);
  ctx.scale(px, px);
  ctx.fillStyle = ink("--ink");
  ctx.font = "600 15px system-ui, sans-serif";
  ctx.fillText(title, 12, 22);
  ctx.font = "12px system-ui, sans-serif";
  let x = 12;
  for (const item of element.querySelectorAll(".legend li")) {
    const mark = item.querySelector("svg > *");
    const style = mark && getComputedStyle(mark);
    ctx.fillStyle = style ? (mark.tagName === "line" ? style.stroke : style.fill) : ink("--soft");
    if (mark) ctx.fillRect(x, 37, 12, 8);
    ctx.fillStyle = ink("--soft");
    ctx.fillText(item.textContent, x + 18, 45);
    x += 34 + ctx.measureText(item.textContent).width;
  }
  return canvas;
}

function swatch(colour) {
  const box = svg("rect", { x: 0.5, y: 0.5, width: 11, height: 11, class: "level", style: { fill: colour } });
  return svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, box);
}

function lineSample(colour, dash, mark) {
  const style = { stroke: `var(${colour})`, fill: `var(${colour})` };
  const marks = [
    () => svg("circle", { cx: 15, cy: 6, r: 4, style }),
    () => svg("rect", { x: 11.5, y: 2.5, width: 7, height: 7, style }),
    () => svg("path", { d: "M15 1l5 5l-5 5l-5 -5z", style }),
  ];
  return svg(
    "svg",
    { width: 30, height: 12, "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 30, y1: 6, y2: 6, "stroke-width": 2, "stroke-dasharray": dash.join(" ") || null, style }),
    mark !== null && marks[mark](),
  );
}

const numberTable = ({ head, rows }) => plainTable(head, rows, "numbers");
