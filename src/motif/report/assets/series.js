// Turns the charts of one or several runs into aligned columns of numbers, and gives each line its look.

const RUN_COLOURS = 6;
const DASHES = [[], [7, 4], [2, 4], [12, 4, 2, 4], [14, 6], [5, 2]];
const AXES = {
  step: { name: "training step", unit: "count" },
  generated_tokens: { name: "generated tokens", unit: "tokens" },
  seconds: { name: "time of training", unit: "seconds" },
  flops: { name: "floating-point operations", unit: "flops" },
  warmstart: { name: "step of the warm start", unit: "count" }, // of charts with an axis of their own, as are
  reward: { name: "reward", unit: "number" }, // those of histograms
  advantage: { name: "advantage", unit: "number" },
};

const countsSteps = (axis) => axis === "step" || axis === "warmstart";

/** The axes that all shown runs have. */
const axesOf = (runs) => Object.keys(AXES).filter((key) => runs.every((run) => run.axes[key]));

/** The position of a step on an axis of a run, interpolated between known steps. */
function placeOf(run, step, axis) {
  if (countsSteps(axis)) return step;
  const steps = run.axes.step,
    values = run.axes[axis] ?? [];
  if (!steps.length || step <= 0) return 0;
  const after = steps.findIndex((known) => known >= step);
  if (after < 0) return values[values.length - 1];
  const [s0, v0] = after ? [steps[after - 1], values[after - 1]] : [0, 0];
  return v0 + ((values[after] - v0) * (step - s0)) / (steps[after] - s0);
}

/** The look of a line: of one run, lines differ in colour and dash; of several runs, each has its colour. */
function lookOf(part, index, several) {
  const colour = several ? part.index : index;
  return {
    colour: `--line${colour % RUN_COLOURS}`,
    dash: DASHES[index % DASHES.length],
    mark: colour % 3,
  };
}

/**
 * The columns of a chart: `x` values, and lines over them with `values` aligned to `x`.
 * A missing value of a line is null; where only another run has a value, it is undefined.
 * `parts` are {run, index, chart}, one for each shown run.
 */
function columnsOf(parts, axis, several) {
  const lines = [];
  const tables = parts.flatMap((part) => {
    const { chart } = part;
    return chart.kind === "points" ? pointTables(part, axis, several, lines) : [lineTable(part, axis, several, lines)];
  });
  const [x, ...columns] = tables.length > 1 ? uPlot.join(tables) : tables[0];
  let next = 0;
  for (const line of lines) for (const key of line.keys) line[key] = columns[next++];
  return { x, lines };
}

function lineTable(part, axis, several, lines) {
  const { run, chart } = part;
  const table = [chart.x ?? run.axes[axis]];
  chart.series.forEach((series, index) => {
    const keys = [];
    if (!series.smooth || chart.faint) keys.push("raw"), table.push(series.raw);
    if (series.smooth) keys.push("smooth"), table.push(series.smooth);
    lines.push({ name: series.name, run: several ? run.name : "", look: lookOf(part, index, several), keys });
  });
  return table;
}

function pointTables(part, axis, several, lines) {
  const { run, chart } = part;
  return chart.series.map((series, index) => {
    const points = series.points.map((point) => ({ ...point, x: placeOf(run, point.step, axis) }));
    const titles = new Map(points.map((point) => [point.x, point.title ?? (point.step ? `step ${grouped(point.step)}` : "before training")]));
    const counts = new Map(points.map((point) => [point.x, point.n]));
    lines.push({
      name: series.name,
      run: several ? run.name : "",
      look: lookOf(part, index, several),
      keys: ["raw", "low", "high"],
      titles,
      counts,
    });
    return [
      points.map((point) => point.x),
      points.map((point) => point.value),
      points.map((point) => point.low),
      points.map((point) => point.high),
    ];
  });
}

/** Stacked shares: the edges of the bins on the axis, and for each level the cumulative share. */
function stackOf({ run, chart }, axis) {
  const { bars, levels } = chart;
  const edges = bars.map((bar) => placeOf(run, bar.first - 1, axis));
  edges.push(placeOf(run, bars[bars.length - 1].last, axis));
  const totals = bars.map((bar) => bar.counts.reduce((sum, count) => sum + count, 0));
  const upTo = levels.map((_, level) => {
    const shares = bars.map((bar, at) =>
      totals[at] ? bar.counts.slice(0, level + 1).reduce((sum, count) => sum + count, 0) / totals[at] : null,
    );
    return [...shares, shares[shares.length - 1]];
  });
  return { x: edges, upTo, totals };
}

// -- the same in words ------------------------------------------------------------------------------------

/** Title and rows of each place on the x axis, for the tooltip, the arrow keys and the table of values. */
function wordsOf(parts, columns, axis) {
  const { unit } = parts[0].chart;
  const naming = (line) => [line.run, line.name].filter(Boolean).join(" · ");
  return columns.x.map((x, at) => {
    const rows = [];
    let title = countsSteps(axis) ? `step ${grouped(x)}` : show(x, AXES[axis].unit);
    for (const line of columns.lines) {
      const raw = line.raw?.[at],
        smooth = line.smooth?.[at];
      if ((raw === null || raw === undefined) && (smooth === null || smooth === undefined)) continue;
      if (line.titles) {
        if (countsSteps(axis)) title = line.titles.get(x) ?? title;
        const n = line.counts.get(x);
        const value = within({ value: raw, low: line.low[at] ?? null, high: line.high[at] ?? null }, unit);
        rows.push({ name: naming(line), value: value + (n === null || n === undefined ? "" : `, n ${grouped(n)}`) });
      } else {
        const average = smooth === null || smooth === undefined ? "" : show(smooth, unit);
        const value = raw === undefined ? average : show(raw, unit) + (average && ` (average ${average})`);
        rows.push({ name: naming(line), value });
      }
    }
    return { x, title, rows };
  });
}

function stackWords({ chart }, stack, axis) {
  return chart.bars.map((bar, at) => ({
    x: (stack.x[at] + stack.x[at + 1]) / 2,
    title: bar.first === bar.last ? `step ${grouped(bar.first)}` : `steps ${grouped(bar.first)}–${grouped(bar.last)}`,
    rows: chart.levels.map((name, level) => ({
      name,
      value: stack.totals[at]
        ? `${show(bar.counts[level] / stack.totals[at], "percent")} (${bar.counts[level]})`
        : NONE,
    })),
  }));
}

/** A grid of cells: where its columns lie on the axis, and how wide one is. */
function gridOf({ run, chart }, axis) {
  const steps = [...new Set(chart.rows.flatMap((row) => row.cells.map(([step]) => step)))].sort((one, other) => one - other);
  const x = steps.map((step) => placeOf(run, step, axis));
  const gaps = x.slice(1).map((place, at) => place - x[at]);
  const rates = chart.rows.map((row) => new Map(row.cells));
  return { x, steps, rates, width: Math.min(...gaps.filter((gap) => gap > 0), x[x.length - 1] || 1) };
}

const gridWords = ({ chart }, grid) =>
  grid.steps.map((step, at) => ({
    x: grid.x[at],
    title: `step ${grouped(step)}`,
    rows: chart.rows.flatMap(({ name }, row) => (grid.rates[row].has(step) ? { name, value: show(grid.rates[row].get(step), "percent") } : [])),
  }));

/** A value with its interval. */
function within({ value, low, high }, unit) {
  const text = show(value, unit);
  if (low === null || high === null) return text;
  const ends = unit === "percent" ? [grouped(100 * low, 1), grouped(100 * high, 1)] : [low, high].map(points);
  return `${text} [${ends.join(low < 0 ? ", " : "–").replaceAll("-", "−")}]`;
}

/** First and last value of each line, for those who do not see the drawing. */
function summaryOf(chart, words, axis) {
  if (chart.kind === "cells") return `${chart.title}: ${plural(chart.rows.length, "question")}, a column a step. Arrow keys read single steps.`;
  const names = [...new Set(words.flatMap((place) => place.rows.map((row) => row.name)))];
  const ends = names.map((name) => {
    const places = words.filter((place) => place.rows.some((row) => row.name === name));
    const value = (place) => place.rows.find((row) => row.name === name).value;
    const [first, last] = [places[0], places[places.length - 1]];
    return places.length > 1
      ? `${name} from ${value(first)} at ${first.title} to ${value(last)} at ${last.title}`
      : `${name} ${value(first)} at ${first.title}`;
  });
  return `${chart.title}, ${chart.y}, against ${AXES[axis].name}. ${ends.join("; ")}. Arrow keys read single values.`;
}
