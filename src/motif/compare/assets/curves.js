// Learning curves of all arms against any currency: a line for the mean, a band for its interval, a thin line per seed.

const PLOT_HEIGHT = 400;
const COLOURS = 8;

const armIndex = (name) => Object.keys(data.curves).indexOf(name);
const armClass = (name) => `arm a${armIndex(name) % COLOURS} d${Math.floor(armIndex(name) / COLOURS) % 3}`;

function armSample(name) {
  return svg(
    "svg",
    { width: 26, height: 12, "aria-hidden": "true", class: armClass(name) },
    svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, class: "line" }),
    marker(armIndex(name), 13, 6),
  );
}

function curveSection() {
  const state = { currency: data.currencies[0]?.key, row: data.summary.row, hidden: new Set(), seeds: true };
  const lead =
    "Mean over seeds with its 95 % interval (band); thin lines are single seeds. Every point is an evaluation on the " +
    "held-out questions; step 0 is the model before training. The accuracy axis does not start at 0.";
  if (!state.currency) {
    section("curves", "Curves", null, el("p", { class: "missing" }, "No arm has been trained, so there is no curve."));
    return;
  }
  const area = el("div", { class: "plot large" });
  const values = el("details", { class: "values" }, el("summary", {}, "Values"));
  const draw = () => {
    if (!area.clientWidth) return;
    const columns = drawCurves(area, area.clientWidth, state);
    values.replaceChildren(values.firstChild, curveTable(state, columns));
  };
  const choose = (name, key, options) =>
    el(
      "label",
      {},
      name,
      el(
        "select",
        { id: `choose-${key}`, onchange: (event) => ((state[key] = event.target.value), draw()) },
        options.map((option) =>
          el("option", { value: option.key, selected: option.key === state[key] }, option.name),
        ),
      ),
    );
  const toggle = (name) =>
    el(
      "label",
      {},
      el("input", {
        type: "checkbox",
        checked: true,
        onchange: (event) => {
          if (event.target.checked) state.hidden.delete(name);
          else state.hidden.add(name);
          draw();
        },
      }),
      el("span", {}, armSample(name), " ", name),
    );
  const seeds = el(
    "label",
    {},
    el("input", { type: "checkbox", checked: true, onchange: (event) => ((state.seeds = event.target.checked), draw()) }),
    el("span", {}, "single seeds"),
  );
  section(
    "curves",
    "Curves",
    tidy(lead),
    el(
      "div",
      { class: "controls" },
      choose("Against", "currency", [...data.currencies, { key: "step", name: "training steps" }]),
      choose("Tested at", "row", data.rows),
    ),
    el(
      "fieldset",
      { class: "kinds arms" },
      el("legend", { class: "unseen" }, "Shown"),
      Object.keys(data.curves).map(toggle),
      seeds,
    ),
    el("figure", {}, area, values),
  );
  new ResizeObserver(draw).observe(area);
  firstDraws.push(draw);
}

/** Amounts of the chosen currency: of each seed at each step, and their means over seeds. */
function amounts(curve, currency) {
  const bySeed = currency === "step" ? curve.seeds.map(() => curve.steps) : curve.spent[currency];
  const means = curve.steps.map(
    (_, at) => bySeed.reduce((sum, amounts) => sum + amounts[at], 0) / bySeed.length,
  );
  return { bySeed, means };
}

function shownArms(state) {
  return Object.entries(data.curves)
    .filter(
      ([name, curve]) =>
        !state.hidden.has(name) &&
        curve.rows[state.row] &&
        (state.currency === "step" || curve.spent[state.currency]),
    )
    .map(([name, curve]) => ({
      name,
      ...amounts(curve, state.currency),
      steps: curve.steps,
      accuracies: curve.rows[state.row].means,
      by_seed: curve.rows[state.row].by_seed,
    }));
}

function drawCurves(area, width, state) {
  const arms = shownArms(state);
  const plot = svg("svg", {
    width,
    height: PLOT_HEIGHT,
    viewBox: `0 0 ${width} ${PLOT_HEIGHT}`,
    tabindex: 0,
    role: "img",
  });
  area.replaceChildren(plot);
  if (!arms.length) {
    area.replaceChildren(el("p", { class: "missing" }, "None of the shown arms has this row."));
    return [];
  }
  const scale = curveFrame(plot, width, arms, state);
  for (const arm of [...arms].reverse()) plot.append(curveMarks(arm, scale, state));
  const columns = curveColumns(arms, scale, state);
  plot.setAttribute("aria-label", curveWords(arms, state));
  interact(plot, columns, width, PLOT_HEIGHT);
  return columns;
}

function curveFrame(plot, width, arms, state) {
  const drawn = arms
    .flatMap((arm) => [
      ...arm.accuracies.flatMap((found) => (found ? [found.mean, found.low, found.high] : [])),
      ...(state.seeds ? arm.by_seed.flat() : []),
    ])
    .filter((value) => value !== null);
  const y0 = Math.max(0, Math.floor(Math.min(...drawn) * 20 - 0.2) / 20);
  const y1 = Math.min(1, Math.ceil(Math.max(...drawn) * 20 + 0.2) / 20);
  const x1 = Math.max(...arms.flatMap((arm) => (state.seeds ? arm.bySeed.flat() : arm.means))) || 1;
  const left = MARGIN.left,
    right = width - 2 * MARGIN.right, // room for half of the last number
    bottom = PLOT_HEIGHT - MARGIN.bottom;
  const x = (value) => left + (value / x1) * (right - left);
  const y = (value) => bottom - ((value - y0) / (y1 - y0)) * (bottom - MARGIN.top);
  for (const tick of ticks(100 * y0, 100 * y1, 6))
    plot.append(
      svg("line", { x1: left, x2: right, y1: y(tick / 100), y2: y(tick / 100), class: "grid" }),
      svg("text", { x: left - 8, y: y(tick / 100) + 4, "text-anchor": "end" }, significant(tick)),
    );
  const unit = axisUnit(state.currency, x1);
  for (const tick of ticks(0, x1 / unit.size, Math.max(2, Math.floor(width / 90))))
    plot.append(
      svg("text", { x: x(tick * unit.size), y: bottom + 18, "text-anchor": "middle" }, significant(tick)),
    );
  plot.append(
    svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    svg("text", { x: (left + right) / 2, y: PLOT_HEIGHT - 4, "text-anchor": "middle" }, unit.name),
    svg(
      "text",
      { transform: `translate(12 ${(MARGIN.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
      "held-out accuracy (%)",
    ),
  );
  return { x, y, right };
}

const currencyOf = (key) =>
  data.currencies.find((one) => one.key === key) ?? { key: "step", name: "training steps", unit: "count" };

/** The unit of an axis that keeps its numbers short. */
function axisUnit(key, most) {
  const { name, unit } = currencyOf(key);
  const sizes = {
    seconds: [
      [7200, "hours"],
      [120, "minutes"],
      [0, "seconds"],
    ],
    flops: FLOPS.map(([size, word]) => [size, word]),
    tokens: MANY,
    count: MANY,
  }[unit];
  const [size, word] = sizes.find(([size]) => most >= size) ?? [1, ""];
  if (unit === "seconds") {
    const base = name === "seconds" ? "" : `${name.replace(" seconds", "")}, `;
    return { size: size === 7200 ? 3600 : size === 120 ? 60 : 1, name: base + word };
  }
  return { size, name: word ? `${name} (${word})` : name };
}

function curveMarks(arm, scale, state) {
  const group = svg("g", { class: armClass(arm.name) });
  const index = armIndex(arm.name);
  const there = arm.accuracies.flatMap((found, at) => (found ? [[found, scale.x(arm.means[at])]] : []));
  const closed = there.filter(([found]) => found.low !== null);
  if (closed.length > 1) {
    const up = closed.map(([found, x]) => `${x.toFixed(1)} ${scale.y(found.high).toFixed(1)}`);
    const down = closed.map(([found, x]) => `${x.toFixed(1)} ${scale.y(found.low).toFixed(1)}`).reverse();
    group.append(svg("path", { d: `M${[...up, ...down].join("L")}Z`, class: "band" }));
  }
  if (state.seeds)
    arm.by_seed.forEach((values, seed) => {
      const line = values.flatMap((value, at) =>
        value === null ? [] : [`${scale.x(arm.bySeed[seed][at]).toFixed(1)} ${scale.y(value).toFixed(1)}`],
      );
      if (line.length > 1) group.append(svg("path", { d: `M${line.join("L")}`, class: "raw" }));
    });
  if (there.length > 1)
    group.append(
      svg("path", {
        d: `M${there.map(([found, x]) => `${x.toFixed(1)} ${scale.y(found.mean).toFixed(1)}`).join("L")}`,
        class: "line",
      }),
    );
  if (arm.accuracies.length === 1 && there.length) {
    // Nothing was trained: the accuracy stands beside every amount.
    const y = scale.y(there[0][0].mean);
    group.append(svg("line", { x1: there[0][1], x2: scale.right, y1: y, y2: y, class: "guide" }));
  }
  for (const [found, x] of there) group.append(marker(index, x, scale.y(found.mean)));
  return group;
}

function curveColumns(arms, scale, state) {
  const { unit, name } = currencyOf(state.currency);
  const byPlace = new Map();
  for (const arm of arms)
    arm.accuracies.forEach((found, at) => {
      if (!found) return;
      const x = scale.x(arm.means[at]);
      const key = Math.round(x);
      const title = unit === "seconds" ? show(arm.means[at], unit) : `${show(arm.means[at], unit)} ${name}`;
      const column = byPlace.get(key) ?? { x, title, rows: [] };
      column.rows.push({ name: `${arm.name}, step ${grouped(arm.steps[at])}`, value: meanInterval(found) });
      byPlace.set(key, column);
    });
  return [...byPlace.values()].sort((one, other) => one.x - other.x);
}

function meanInterval({ mean, low, high }) {
  if (low === null) return show(mean, "percent");
  return `${show(mean, "percent")} [${grouped(100 * low, 1)}–${grouped(100 * high, 1)}]`;
}

function curveWords(arms, state) {
  const ends = arms.map((arm) => {
    const last = arm.accuracies[arm.accuracies.length - 1];
    return last ? `${arm.name} ends at ${meanInterval(last)}` : `${arm.name} has no last evaluation`;
  });
  return `Held-out accuracy against ${currencyOf(state.currency).name}. ${ends.join(", ")}. Arrow keys read single points.`;
}

/** The curves as a table: a line per arm and evaluation. */
function curveTable(state) {
  const { unit, name } = currencyOf(state.currency);
  const rows = shownArms(state).flatMap((arm) =>
    arm.accuracies.map((found, at) => [arm.name, grouped(arm.steps[at]), show(arm.means[at], unit), found && meanInterval(found)]),
  );
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Values of the curves" },
    plainTable(["arm", "step", name, "accuracy"], rows),
  );
}
