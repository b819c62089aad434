// Differences as a forest plot: a line per contrast on one scale, with a point per seed.

const FOREST = { height: 46, pad: 14 };

function forestScale(contrasts) {
  const values = contrasts.flatMap(({ difference, margin }) => [
    ...(difference ? [difference.low, difference.high, ...Object.values(difference.by_seed)] : []),
    margin,
  ]);
  const there = [0, ...values.filter((value) => value !== null && value !== undefined)];
  const low = Math.min(...there),
    high = Math.max(...there);
  const step = (high - low || 0.02) * 0.04;
  return [low - step, high + step];
}

function forestPlot({ difference, margin, name }, [low, high], width) {
  const x = (value) => FOREST.pad + ((value - low) / (high - low)) * (width - 2 * FOREST.pad);
  const y = FOREST.height / 2;
  const plot = svg("svg", {
    width,
    height: FOREST.height,
    viewBox: `0 0 ${width} ${FOREST.height}`,
    role: "img",
    "aria-label": difference ? `${name}: ${signedInterval(difference)} points` : `${name}: no value`,
  });
  plot.append(svg("line", { x1: x(0), x2: x(0), y1: 0, y2: FOREST.height, class: "axis" }));
  if (margin !== null)
    plot.append(svg("line", { x1: x(margin), x2: x(margin), y1: 0, y2: FOREST.height, class: "guide" }));
  if (!difference) return plot;
  Object.values(difference.by_seed).forEach((value) =>
    plot.append(svg("circle", { cx: x(value), cy: y + 11, r: 3, class: "seed" })),
  );
  if (difference.low !== null)
    plot.append(svg("path", { d: `M${x(difference.low)} ${y - 6}H${x(difference.high)}`, class: "span" }));
  plot.append(svg("path", { d: `M${x(difference.mean)} ${y - 12}l6 6l-6 6l-6 -6z`, class: "mean" }));
  return plot;
}

function forestAxis([low, high], width) {
  const x = (value) => FOREST.pad + ((value - low) / (high - low)) * (width - 2 * FOREST.pad);
  return svg(
    "svg",
    { width, height: 20, "aria-hidden": "true", class: "marks" },
    ticks(100 * low, 100 * high, Math.max(2, Math.floor(width / 80))).map((tick) =>
      svg("text", { x: x(tick / 100), y: 14, "text-anchor": "middle" }, significant(tick).replace("-", "−")),
    ),
  );
}

const sign = (value) => {
  const text = grouped(Math.abs(100 * value), 1);
  return text === "0.0" ? text : `${value > 0 ? "+" : "−"}${text}`;
};
const signedInterval = ({ mean, low, high }) =>
  low === null ? sign(mean) : `${sign(mean)} [${sign(low)}, ${sign(high)}]`;

function contrastSection() {
  const { contrasts } = data.summary;
  if (!contrasts.length) return;
  const range = forestScale(contrasts);
  const items = contrasts.map((contrast) => {
    const area = el("div", { class: "forest" });
    return { area, contrast, item: contrastItem(contrast, area) };
  });
  const axis = el("div", { class: "forest" });
  const draw = () => {
    for (const { area, contrast } of items)
      if (area.clientWidth) area.replaceChildren(forestPlot(contrast, range, area.clientWidth));
    if (axis.clientWidth) axis.replaceChildren(forestAxis(range, axis.clientWidth));
  };
  section(
    "contrasts",
    "Contrasts",
    tidy(
      "Differences in points of accuracy, paired by seed. The diamond is the mean with its 95 % interval, the dots are " +
        "single seeds, the solid line is no difference, and a dotted line is the margin.",
    ),
    el(
      "ol",
      { class: "contrasts" },
      items.map(({ item }) => item),
    ),
    el("div", { class: "axis-line" }, axis),
  );
  new ResizeObserver(draw).observe(axis);
  firstDraws.push(draw);
}

function contrastItem(contrast, area) {
  const { name, difference, sentence, finding } = contrast;
  return el(
    "li",
    { class: finding.replace(" ", "-") },
    el("h3", { dir: "auto" }, name),
    el("div", { class: "line" }, area, el("b", {}, difference ? signedInterval(difference) : NONE)),
    el("p", { class: "sub" }, tidy(sentence.replace(`${name}: `, ""))),
    contrast.notes.map((note) => el("p", { class: "sub" }, tidy(note))),
    difference && contrastDetails(contrast),
  );
}

function contrastDetails({ a, b, difference, mcnemar, over_questions }) {
  const tested = mcnemar ?? {};
  const heads = ["seed", a.words, b.words, "difference"];
  if (mcnemar) heads.push("only first right", "only second right", "McNemar p");
  const rows = Object.entries(difference.by_seed).map(([seed, gap]) => {
    const test = tested[seed];
    const counts = test ? [grouped(test.only_a), grouped(test.only_b), significant(test.p)] : mcnemar ? [null, null, null] : [];
    return [seed, show(a.by_seed[seed], "percent"), show(b.by_seed[seed], "percent"), sign(gap), ...counts];
  });
  return el(
    "details",
    { class: "values" },
    el("summary", {}, "Seed by seed"),
    difference.method !== difference.student.method &&
      el("p", {}, `By ${difference.method}; by Student's t: ${signedInterval(difference.student)} points.`),
    over_questions &&
      el(
        "p",
        {},
        `Over seeds and questions: ${signedInterval(over_questions)} points (${over_questions.method}). ` +
          "McNemar's exact test is about one pair of runs, not about the methods.",
      ),
    el(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Seed by seed" },
      plainTable(heads, rows),
    ),
  );
}
