// What stands above a drawing: its legend, with a sample of every line.

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
