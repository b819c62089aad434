// Charts: three kinds (lines, bars, points) on one frame. Each kind draws its marks and returns columns, one per
// place on the x axis, with the values there; hovering, the arrow keys and the table of values work on the columns.

const MARGIN = { top: 10, right: 10, bottom: 40, left: 58 };
const HEIGHT = 230;
const SHAPES = 6; // distinct line styles in the style sheet

const firstDraws = []; // called once the page stands and widths are known

/** A chart with its title, legend, caption and table of values; redrawn when its width changes. */
function chartFigure(chart) {
  const figure = el("figure", { class: "chart", id: `chart-${chart.id}` }, el("h3", {}, chart.title));
  if (chart.kind === "table") {
    figure.append(numberTable(chart), el("figcaption", {}, tidy(chart.caption)));
    return figure;
  }
  if (chart.missing) {
    figure.append(el("p", { class: "missing" }, chart.missing), el("figcaption", {}, tidy(chart.caption)));
    return figure;
  }
  const area = el("div", { class: "plot" });
  const values = el("details", { class: "values" }, el("summary", {}, "Values"));
  figure.append(legend(chart), area, el("figcaption", {}, tidy(chart.caption)), values);
  let columns = [];
  let width = 0;
  const draw = () => {
    if (area.clientWidth === width || !area.clientWidth) return;
    width = area.clientWidth;
    columns = drawChart(chart, area, width);
  };
  new ResizeObserver(draw).observe(area);
  firstDraws.push(draw);
  values.addEventListener("toggle", () => {
    if (values.open && !values.querySelector("table")) values.append(valueTable(chart, columns));
  });
  return figure;
}

function numberTable({ head, rows }) {
  return el(
    "table",
    { class: "numbers" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        head.map((name) => el("th", { scope: "col" }, name)),
      ),
    ),
    el(
      "tbody",
      {},
      rows.map(([name, ...cells]) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, name),
          cells.map((cell) => el("td", {}, cell)),
        ),
      ),
    ),
  );
}

function legend(chart) {
  const items =
    chart.kind === "bars"
      ? chart.levels.map((name, index) => [
          swatch((box) => (box.style.fill = shade(index, chart.levels.length))),
          name,
        ])
      : chart.series.map((series, index) => [lineSample(index, chart.kind === "points"), series.name]);
  const average = chart.average && `moving average over ${plural(chart.average, "step")}`;
  if (items.length === 1 && average) items[0][1] = average; // the title names it
  return el(
    "ul",
    { class: "legend" },
    items.map(([mark, name]) => el("li", {}, mark, name)),
    items.length > 1 && average && el("li", {}, average),
  );
}

function swatch(paint) {
  const box = svg("rect", { x: 0.5, y: 0.5, width: 11, height: 11, class: "level" });
  paint(box);
  return svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, box);
}

function lineSample(index, withPoint) {
  return svg(
    "svg",
    { width: 26, height: 12, "aria-hidden": "true", class: `s${index % SHAPES}` },
    svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, class: "line" }),
    withPoint && marker(index, 13, 6),
  );
}

/** The colour of level `index` of `count`: from the track's grey to the full accent. */
function shade(index, count) {
  return `color-mix(in oklab, var(--accent) ${Math.round((100 * index) / Math.max(1, count - 1))}%, var(--level))`;
}

function marker(index, x, y) {
  if (index % 3 === 1) return svg("rect", { x: x - 3.5, y: y - 3.5, width: 7, height: 7, class: "point" });
  if (index % 3 === 2) return svg("path", { d: `M${x} ${y - 5}l5 5l-5 5l-5 -5z`, class: "point" });
  return svg("circle", { cx: x, cy: y, r: 4, class: "point" });
}

// -- drawing ----------------------------------------------------------------------------------------------

function drawChart(chart, area, width) {
  const plot = svg("svg", {
    width,
    height: HEIGHT,
    viewBox: `0 0 ${width} ${HEIGHT}`,
    tabindex: 0,
    role: "img",
  });
  const columns = { lines: drawLines, bars: drawBars, points: drawPoints }[chart.kind](chart, plot, width);
  plot.setAttribute("aria-label", describe(chart, columns));
  interact(plot, columns, width);
  area.replaceChildren(plot);
  return columns;
}

function describe(chart, columns) {
  const says = (column) =>
    `${column.title}: ${column.rows.map((row) => `${row.name} ${row.value}`).join(", ")}`;
  const ends = columns.length > 1 ? [columns[0], columns[columns.length - 1]] : columns;
  return `${chart.title}, ${chart.y}. ${ends.map(says).join(". ")}. Arrow keys read single values.`;
}

/** Axes with ticks and titles; returns the two scales. */
function frame(chart, plot, width, [x0, x1], [y0, y1]) {
  const left = MARGIN.left,
    right = width - MARGIN.right,
    top = MARGIN.top,
    bottom = HEIGHT - MARGIN.bottom;
  const x = (value) => (x1 === x0 ? (left + right) / 2 : left + ((value - x0) / (x1 - x0)) * (right - left));
  const y = (value) => bottom - ((value - y0) / (y1 - y0)) * (bottom - top);
  // Tiny values are told in a power of ten, once, in the title of the axis.
  const power = y1 < 0.001 ? Math.floor(Math.log10(y1)) : 0;
  const scale = chart.unit === "percent" ? 100 : 10 ** -power;
  for (const tick of ticks(y0 * scale, y1 * scale, 5)) {
    const height = y(tick / scale);
    plot.append(
      svg("line", { x1: left, x2: right, y1: height, y2: height, class: "grid" }),
      svg(
        "text",
        { x: left - 8, y: height + 4, "text-anchor": "end" },
        chart.unit === "count" ? grouped(tick) : significant(tick),
      ),
    );
  }
  const places =
    x1 === x0 ? [x0] : ticks(x0, x1, Math.max(2, Math.floor(width / 90))).filter(Number.isInteger);
  for (const tick of places)
    plot.append(svg("text", { x: x(tick), y: bottom + 18, "text-anchor": "middle" }, grouped(tick)));
  plot.append(
    svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    svg(
      "text",
      { x: (left + right) / 2, y: HEIGHT - 4, "text-anchor": "middle", class: "axis-title" },
      "training step",
    ),
    svg(
      "text",
      {
        transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)`,
        "text-anchor": "middle",
        class: "axis-title",
      },
      power ? `${chart.y}, × ${tenTo(power)}` : chart.y,
    ),
  );
  return { x, y };
}

function ticks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

/** The y range: the chart's own limits, else that of the values, rounded outwards to a tick. */
function range(values, [low, high]) {
  let bottom = low ?? Math.min(...values);
  let top = high ?? Math.max(...values);
  if (low !== null && bottom > Math.min(...values)) bottom = Math.min(...values);
  if (top <= bottom) top = bottom + (Math.abs(bottom) || 1);
  if (high === null) {
    const marks = ticks(bottom, top, 5);
    const step = marks.length > 1 ? marks[1] - marks[0] : top - bottom;
    top = Math.ceil(top / step - 1e-9) * step;
  }
  return [bottom, top];
}

function drawLines(chart, plot, width) {
  const { steps, series } = chart;
  const drawn = series
    .flatMap((line) => [...(chart.faint ? line.raw : []), ...(line.smooth ?? [])])
    .filter((v) => v !== null);
  const scale = frame(chart, plot, width, [steps[0], steps[steps.length - 1]], range(drawn, chart.limits));
  const path = (values, name) => {
    let d = "",
      pen = "M";
    values.forEach((value, index) => {
      if (value === null) return void (pen = "M");
      d += `${pen}${scale.x(steps[index]).toFixed(1)} ${scale.y(value).toFixed(1)}`;
      pen = "L";
    });
    return svg("path", { d, class: name });
  };
  // The first series last, so that the accent lies on top.
  series
    .map((line, index) => [line, index])
    .reverse()
    .forEach(([line, index]) => {
      const group = svg("g", { class: `s${index % SHAPES}` });
      if (line.smooth && chart.faint) group.append(path(line.raw, "raw"));
      group.append(path(line.smooth ?? line.raw, "line"));
      if (!line.smooth)
        line.raw.forEach(
          (v, at) => v !== null && group.append(marker(index, scale.x(steps[at]), scale.y(v))),
        );
      plot.append(group);
    });
  return steps
    .map((step, at) => ({
      x: scale.x(step),
      title: `step ${grouped(step)}`,
      rows: series
        .filter((line) => line.raw[at] !== null || line.smooth?.[at] != null)
        .map((line) => ({
          name: line.name,
          value:
            show(line.raw[at], chart.unit) +
            (line.smooth ? ` (average ${show(line.smooth[at], chart.unit)})` : ""),
        })),
    }))
    .filter((column) => column.rows.length);
}

function drawPoints(chart, plot, width) {
  const all = chart.series.flatMap((series) => series.points);
  const steps = [...new Set(all.map((point) => point.step))].sort((a, b) => a - b);
  const values = all.flatMap((point) => [point.low ?? point.value, point.high ?? point.value]);
  const top = Math.min(1, Math.ceil(Math.max(...values) * 10 + 0.2) / 10);
  const bottom = Math.min(0, Math.floor(Math.min(...values) * 10) / 10);
  const pad = (steps[steps.length - 1] - steps[0]) * 0.04;
  const scale = frame(chart, plot, width, [steps[0] - pad, steps[steps.length - 1] + pad], [bottom, top]);
  chart.series.forEach((series, index) => {
    const group = svg("g", { class: `s${index % SHAPES}` });
    const shift = (index - (chart.series.length - 1) / 2) * 5; // so that whiskers at one step stand side by side
    const at = (point) => scale.x(point.step) + shift;
    group.append(
      svg("path", {
        d: series.points
          .map((point, place) => `${place ? "L" : "M"}${at(point)} ${scale.y(point.value)}`)
          .join(""),
        class: "raw",
      }),
    );
    for (const point of series.points) {
      if (point.low !== null && point.high !== null) {
        const low = scale.y(point.low),
          high = scale.y(point.high);
        group.append(
          svg("path", {
            d: `M${at(point)} ${low}V${high}m-4 0h8M${at(point) - 4} ${low}h8`,
            class: "whisker",
          }),
        );
      }
      group.append(marker(index, at(point), scale.y(point.value)));
    }
    plot.append(group);
  });
  return steps.map((step) => ({
    x: scale.x(step),
    title:
      all.find((point) => point.step === step).title ??
      (step === 0 ? "before training" : `step ${grouped(step)}`),
    rows: chart.series.flatMap((series) =>
      series.points
        .filter((point) => point.step === step)
        .map((point) => ({
          name: series.name,
          value: within(point, chart.unit) + (point.n === null ? "" : `, n ${grouped(point.n)}`),
        })),
    ),
  }));
}

function interval({ accuracy, low, high }) {
  return within({ value: accuracy, low, high }, "percent");
}

/** A value with its interval. */
function within({ value, low, high }, unit) {
  const text = show(value, unit);
  if (low === null || high === null) return text;
  const ends = unit === "percent" ? [grouped(100 * low, 1), grouped(100 * high, 1)] : [low, high].map(points);
  return `${text} [${ends.join(low < 0 ? ", " : "–").replaceAll("-", "−")}]`;
}

function drawBars(chart, plot, width) {
  const { bars, levels } = chart;
  const first = bars[0].first,
    last = bars[bars.length - 1].last;
  const scale = frame(chart, plot, width, [first - 0.5, last + 0.5], [0, 1]);
  return bars.map((bar, at) => {
    const from = scale.x(bar.first - 0.5);
    const to = scale.x(at + 1 < bars.length ? bars[at + 1].first - 0.5 : bar.last + 0.5);
    const total = bar.counts.reduce((sum, count) => sum + count, 0);
    let below = 0;
    bar.counts.forEach((count, index) => {
      if (!count) return;
      const top = scale.y((below + count) / total);
      plot.append(
        svg("rect", {
          x: from,
          y: top,
          width: Math.max(1, to - from - (to - from > 4 ? 1 : 0)),
          height: scale.y(below / total) - top,
          class: "level",
          style: { fill: shade(index, levels.length) },
        }),
      );
      below += count;
    });
    const rows = levels.map((name, index) => ({
      name,
      value: total ? `${show(bar.counts[index] / total, "percent")} (${bar.counts[index]})` : NONE,
    }));
    const title =
      bar.first === bar.last
        ? `step ${grouped(bar.first)}`
        : `steps ${grouped(bar.first)}–${grouped(bar.last)}`;
    return { x: (from + to) / 2, title, rows };
  });
}

// -- reading values ---------------------------------------------------------------------------------------

function interact(plot, columns, width, height = HEIGHT) {
  const guide = svg("line", {
    y1: MARGIN.top,
    y2: height - MARGIN.bottom,
    class: "guide",
    visibility: "hidden",
  });
  plot.append(guide);
  let current = -1;
  const pick = (index) => {
    current = index;
    const column = columns[index];
    guide.setAttribute("x1", column.x);
    guide.setAttribute("x2", column.x);
    guide.setAttribute("visibility", "visible");
    const box = plot.getBoundingClientRect();
    showTip(tipContent(column), box.left + column.x * (box.width / width), box.top + MARGIN.top);
  };
  const leave = () => {
    guide.setAttribute("visibility", "hidden");
    hideTip();
  };
  plot.addEventListener("pointermove", (event) => {
    const x = event.clientX - plot.getBoundingClientRect().left;
    let nearest = 0;
    columns.forEach((column, index) => {
      if (Math.abs(column.x - x) < Math.abs(columns[nearest].x - x)) nearest = index;
    });
    pick(nearest);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const last = columns.length - 1;
    const target = {
      ArrowRight: Math.min(last, current + 1),
      ArrowLeft: Math.max(0, current - 1),
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === "Escape") leave();
    if (target === undefined) return;
    event.preventDefault();
    pick(target);
    announce(
      `${columns[target].title}: ${columns[target].rows.map((row) => `${row.name} ${row.value}`).join(", ")}`,
    );
  });
}

function tipContent(column) {
  return [
    el("strong", {}, column.title),
    el(
      "dl",
      {},
      column.rows.map((row) => [el("dt", {}, row.name), el("dd", {}, row.value)]),
    ),
  ];
}

function showTip(content, x, y) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...content);
  tip.hidden = false;
  const left = x + 14 + tip.offsetWidth > innerWidth ? x - 14 - tip.offsetWidth : x + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y, innerHeight - tip.offsetHeight - 4))}px`;
}

window.addEventListener("scroll", () => hideTip(), { passive: true });

function hideTip() {
  document.getElementById("tip").hidden = true;
}

function valueTable(chart, columns) {
  const names = [...new Set(columns.flatMap((column) => column.rows.map((row) => row.name)))];
  const cell = (column, name) => column.rows.find((row) => row.name === name)?.value ?? NONE;
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `Values of ${chart.title}` },
    el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col" }, ""),
          names.map((name) => el("th", { scope: "col" }, name)),
        ),
      ),
      el(
        "tbody",
        {},
        columns.map((column) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, column.title),
            names.map((name) => el("td", {}, cell(column, name))),
          ),
        ),
      ),
    ),
  );
}
