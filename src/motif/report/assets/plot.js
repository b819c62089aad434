// How uPlot draws a chart: colours, axes, the look of lines, points with intervals, stacked shares, cells, and ranges.

const HEIGHT = 230;
const FEW = 12; // up to so many points, each gets a mark
const SECOND_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 432000];

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

/** The colour of level `index` of `count`: from grey to the full accent. */
const shade = (index, count) =>
  `color-mix(in oklab, var(--accent) ${Math.round((100 * index) / Math.max(1, count - 1))}%, var(--level))`;

// -- options for uPlot ------------------------------------------------------------------------------------

const drawnKeys = (chart, line) => (chart.kind === "points" ? ["raw"] : line.keys);

function optionsOf(figure, width, height = HEIGHT) {
  const { chart, axis } = figure;
  const bars = chart.kind === "bars",
    cells = chart.kind === "cells";
  const log = figure.logarithmic ? { distr: 3, range: (plot, low, high) => logRange(low, high) } : {};
  return {
    width,
    height,
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
    scales: {
      x: { time: false, range: (plot, low, high) => spread(low, high, chart.kind) },
      y: { range: (plot, low, high) => rangeY(figure, low, high), ...log },
    },
    axes: [axisOptions(AXES[axis].unit, AXES[axis].name, true, countsSteps(axis)), cells ? { ...axisOptions("count", chart.y, false), values: () => [], grid: { show: false } } : axisOptions(chart.unit, chart.y, false)],
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
  const apart = Math.min(5, 30 / columns.lines.length);
  columns.lines.forEach((line, index) => {
    const shift = (index - (columns.lines.length - 1) / 2) * apart * px;
    ctx.strokeStyle = ctx.fillStyle = ink(line.look.colour);
    ctx.lineWidth = 1.5 * px;
    ctx.setLineDash([]); // that of the line before is still in force
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
    return [Math.min(0, Math.floor(Math.min(...ends) * 10) / 10), chart.unit === "percent" ? Math.min(1, top) : top];
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
