// The page of a study: arms, curves, contrasts, thresholds, cost, seeds.

function header() {
  const { study, about, arms, seeds, notes, versions } = data.summary;
  const runs = Object.values(arms).reduce((sum, arm) => sum + arm.runs, 0);
  const facts = [
    ["Runs", `${grouped(runs)}: ${plural(Object.keys(arms).length, "arm")} × ${plural(seeds.length, "seed")}`],
    ["Seeds", seeds.join(", ")],
    ["Versions", Object.entries(versions).map(([name, several]) => `${name} ${several.join(" / ")}`).join(", ")],
  ];
  document.getElementById("head").append(
    el("p", { class: "kicker" }, "motif study"),
    el("h1", { dir: "auto" }, study),
    about && el("p", { class: "about", dir: "auto" }, about),
    el("p", { class: "lead" }, tidy(data.method)),
    el(
      "dl",
      { class: "facts" },
      facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value || "not recorded"))),
    ),
  );
  if (notes.length)
    main.append(
      el(
        "aside",
        { class: "notices", "aria-label": "Notes" },
        notes.map((note) => el("p", {}, tidy(note))),
      ),
    );
}

// -- arms -------------------------------------------------------------------------------------------------

function armSection() {
  const { arms, rows, row, reference } = data.summary;
  const label = (key) => data.rows.find((one) => one.key === key).name;
  const cells = (name, arm) => [
    ...rows.map((key) => el("td", { "data-label": label(key) }, rowCell(arm.rows[key]))),
    reference &&
      el(
        "td",
        { "data-label": `against ${reference}` },
        name === reference ? el("span", { class: "sub" }, "reference") : differenceCell(arm.rows[arm.row]?.difference),
      ),
  ];
  section(
    "arms",
    "Arms",
    tidy(
      "Held-out accuracy at the end of training, mean over seeds with its 95 % interval." +
        (reference
          ? ` The last column is the difference from ${reference} in points, each arm in the row it is used in ` +
            `(${label(row)} unless its settings say otherwise).`
          : ""),
    ),
    scrolling(
      "Accuracy of every arm",
      el(
        "table",
        { class: "result arms" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ["Arm", ...rows.map(label), ...(reference ? [`Against ${reference}`] : [])].map((head) =>
              el("th", { scope: "col" }, head),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          Object.entries(arms).map(([name, arm]) =>
            el("tr", {}, el("th", { scope: "row" }, armCell(name, arm)), cells(name, arm)),
          ),
        ),
      ),
    ),
  );
}

function armCell(name, arm) {
  const settings = data.settings[name];
  return [
    armSample(name),
    " ",
    name,
    arm.about && el("div", { class: "sub", dir: "auto" }, arm.about),
    settings.length > 0 &&
      el(
        "details",
        { class: "sub" },
        el("summary", {}, plural(settings.length, "setting")),
        settings.map((setting) => el("div", { class: "verbatim" }, setting)),
      ),
  ];
}

function rowCell(found) {
  if (!found) return el("span", { class: "sub" }, "not tested");
  const { mean, low, high, n } = found.accuracy;
  return [
    el("b", {}, show(mean, "percent")),
    " ",
    low !== null && el("span", { class: "sub interval" }, `[${grouped(100 * low, 1)}–${grouped(100 * high, 1)}]`),
    el(
      "div",
      { class: "sub" },
      plural(n, "seed") +
        (found.mean_tokens === null ? "" : `, ${grouped(found.mean_tokens)} tokens per answer`) +
        (found.truncated > 0.005 ? `, ${show(found.truncated, "percent")} cut off` : ""),
    ),
  ];
}

function differenceCell(found) {
  if (!found) return NONE;
  const [value, interval] = signedInterval(found).split(" [");
  return [el("b", {}, value), interval && el("span", { class: "sub interval" }, ` [${interval}`)];
}

// -- thresholds, cost, seeds ------------------------------------------------------------------------------

function thresholdSection() {
  const { thresholds } = data.summary;
  if (!thresholds.length) return;
  section(
    "thresholds",
    "Thresholds",
    "How much each arm needs to reach an accuracy, read from each seed's curve after it is made monotone. A seed that " +
      "never reaches it counts with all it spent.",
    thresholds.map((found) =>
      el(
        "div",
        { class: "threshold" },
        el("h3", { dir: "auto" }, found.name),
        el("p", {}, tidy(found.sentence.replace(`${found.name} `, ""))),
        el(
          "details",
          { class: "values" },
          el("summary", {}, "Seed by seed"),
          scrolling("Seed by seed", thresholdTable(found)),
        ),
      ),
    ),
  );
}

function thresholdTable({ arms, currency }) {
  const { unit, name } = currencyOf(currency);
  const seeds = [...new Set(Object.values(arms).flatMap((arm) => Object.keys(arm.by_seed)))];
  const cell = (arm, seed) => {
    if (!(seed in arm.by_seed)) return null;
    const never = arm.not_reached.map(String).includes(seed);
    return `${never ? "not within " : ""}${show(arm.by_seed[seed], unit)}`;
  };
  return plainTable(
    [`seed (${name})`, ...Object.keys(arms)],
    seeds.map((seed) => [seed, ...Object.values(arms).map((arm) => cell(arm, seed))]),
  );
}

function costSection() {
  section(
    "cost",
    "Cost",
    "What a run spent on training, without evaluation, mean over seeds. Seconds are comparable only where each run had " +
      "the same machine to itself.",
    scrolling("Cost of every arm", plainTable(data.costs.heads, data.costs.lines, "numbers")),
  );
}

function seedSection() {
  const { arms, rows, seeds } = data.summary;
  const tables = rows.map((row) => [
    el("h3", {}, data.rows.find((one) => one.key === row).name),
    scrolling(
      "Final accuracy of every run",
      plainTable(
        ["arm", ...seeds.map((seed) => `seed ${seed}`)],
        Object.entries(arms).map(([name, arm]) => [
          name,
          ...seeds.map((seed) => (arm.rows[row] ? show(arm.rows[row].by_seed[seed], "percent") : null)),
        ]),
        "numbers",
      ),
    ),
  ]);
  section("seeds", "Seeds", "Final held-out accuracy of every run.", tables);
}

header();
armSection();
curveSection();
contrastSection();
thresholdSection();
costSection();
seedSection();
navigation();
for (const draw of firstDraws) draw();
document.documentElement.dataset.ready = "true";
