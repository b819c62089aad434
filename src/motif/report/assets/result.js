// The header, the warnings, and the table of accuracies before and after: what was trained, and did it help?

const FINDINGS = {
  overlap: "intervals overlap: no difference shown",
  "no intervals": "no intervals recorded",
  incomplete: "not evaluated both times",
};

function headerParts({ runs }) {
  const several = runs.length > 1;
  const folder = data.live && /^\/(run|side)\//.test(location.pathname); // the server's table of runs is above
  return [
    el("p", { class: "kicker" }, several ? "motif runs side by side" : "motif run", folder && [" · ", el("a", { href: "/" }, "all runs")]),
    el("h1", { dir: "auto" }, runs.map((run) => run.name).join(", ")),
    !several && runs[0].head.about && el("p", { class: "about", dir: "auto" }, runs[0].head.about),
    runs.map((run) => [
      standing(run, several),
      el("p", { class: several ? "reading of-run" : "reading" }, tidy(run.result.reading)),
    ]),
  ];
}

/** How a run stands: its state, how far it is, and the numbers of now. */
function standing(run, several) {
  const { word, activity, step, steps } = run.state;
  const done = `${grouped(step)}${steps ? ` of ${plural(steps, "step")}` : ` ${step === 1 ? "step" : "steps"}`}`;
  return el(
    "div",
    { class: `standing ${word}` },
    el(
      "p",
      { class: "state" },
      several && [runName(run), " "],
      el("b", { class: "word" }, word),
      activity && ` · ${activity}`,
      ` · ${done}`,
      steps > 0 && el("progress", { max: steps, value: Math.min(step, steps), "aria-label": `Steps of ${run.name}` }),
    ),
    run.now.length > 0 &&
      el(
        "dl",
        { class: "now" },
        run.now.map(({ name, value, change }) =>
          el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, tidy(value)), change && el("span", { class: "sub" }, change))),
        ),
      ),
  );
}

/** The name of a run with the colour of its lines. */
const runName = (run, index = view.data.runs.indexOf(run)) =>
  el("b", { class: "run-name" }, lineSample(`--line${index % RUN_COLOURS}`, [], null), " ", run.name);

function warningParts({ runs }) {
  const several = runs.length > 1;
  const of = (run) => several && `${run.name}: `;
  const warnings = runs.flatMap((run) => run.warnings.map((warning) => el("div", {}, el("b", {}, "⚠ ", of(run), warning.title, ". "), tidy(warning.text), warning.lines?.length > 0 && el("pre", {}, warning.lines.join("\n")))));
  const notices = runs.flatMap((run) => run.notices.map((notice) => el("p", {}, of(run), notice)));
  return [
    warnings.length > 0 && el("aside", { class: "warnings", "aria-label": "Warnings" }, warnings),
    notices.length > 0 && el("aside", { class: "notices", "aria-label": "Notices" }, notices),
  ];
}

function resultParts({ runs }) {
  const several = runs.length > 1;
  const found = runs.flatMap((run) => run.result.rows.map((row) => ({ ...row, run })));
  const names = [...new Set(found.map(({ row }) => row))];
  const lines = names.flatMap((name) => found.filter(({ row }) => row === name));
  if (!lines.length)
    return [el("p", { class: "missing" }, "No evaluation has been recorded, before or after training.")];
  const heads = ["Tested with", ...(several ? ["Run"] : []), "Before", "After", "0 to 100 %", "Change", "Questions"];
  const cell = (name, content, kind) => el("td", { "data-label": name, class: kind }, content);
  return [
    scrolling(
      "Accuracy before and after",
      el(
        "table",
        { class: "result" },
        el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col" }, name)))),
        el(
          "tbody",
          {},
          lines.map((line) =>
            el(
              "tr",
              {},
              el("th", { scope: "row", "data-label": "Tested with" }, line.row),
              several && cell("Run", runName(line.run)),
              cell("Before", accuracyCell(line.before)),
              cell("After", accuracyCell(line.after, line.run.state.word === "running" ? "at the end of the run" : "not evaluated")),
              cell("0 to 100\u00a0%", intervalBars(line, several ? 160 : 260), "bars"),
              cell("Change", changeCell(line)),
              cell("Questions", questionsCell(line)),
            ),
          ),
        ),
      ),
    ),
    runs.map((run) => run.result.best && el("p", { class: "lead" }, several && [runName(run), " "], tidy(run.result.best))),
  ];
}

const interval = ({ accuracy, low, high }) => within({ value: accuracy, low, high }, "percent");

function accuracyCell(result, none = "not evaluated") {
  if (!result) return el("span", { class: "sub" }, none);
  const [value, ...rest] = interval(result).split(" [");
  return [
    el("b", { class: "interval" }, value),
    " ",
    rest.length > 0 && el("span", { class: "sub interval" }, `[${rest[0]}`),
    result.mean_tokens !== null &&
      el(
        "div",
        { class: "sub" },
        `${grouped(result.mean_tokens)} tokens per answer`,
        result.mean_rounds !== null && `, ${result.mean_rounds.toFixed(1)} rounds`,
      ),
    result.also.map((way) => el("div", { class: "sub" }, tidy(way))),
    result.truncated > 0 && el("div", { class: "sub" }, `${show(result.truncated, "percent")} cut off`),
  ];
}

function changeCell({ before, after, finding, run }) {
  if (!before || !after) return el("span", { class: "sub" }, run.state.word === "running" ? NONE : FINDINGS.incomplete);
  const points = 100 * (after.accuracy - before.accuracy);
  const sign = points > 0 ? "+" : points < 0 ? "−" : "";
  return [
    el("b", {}, `${sign}${grouped(Math.abs(points), 1)} points`),
    el("div", { class: "sub" }, FINDINGS[finding] ?? "intervals do not overlap"),
  ];
}

function questionsCell({ before, after }) {
  const counts = [before?.n, after?.n].filter((count) => count !== null && count !== undefined);
  return new Set(counts).size === 1
    ? grouped(counts[0])
    : counts.length
      ? counts.map((count) => grouped(count)).join(" / ")
      : NONE;
}

function intervalBars({ before, after }, width) {
  const says = [before && `before ${interval(before)}`, after && `after ${interval(after)}`]
    .filter(Boolean)
    .join(", ");
  const bar = (result, y, name) =>
    result &&
    svg(
      "g",
      { class: name },
      result.low !== null &&
        result.high !== null &&
        svg("rect", {
          x: result.low * width,
          y: y - 4,
          width: Math.max(2, (result.high - result.low) * width),
          height: 8,
          rx: 4,
        }),
      svg("line", { x1: result.accuracy * width, x2: result.accuracy * width, y1: y - 7, y2: y + 7 }),
    );
  return svg(
    "svg",
    { viewBox: `-2 0 ${width + 4} 44`, width: width + 4, height: 44, role: "img", "aria-label": says },
    [0, 0.25, 0.5, 0.75, 1].map((share) =>
      svg("line", { x1: share * width, x2: share * width, y1: 2, y2: 42, class: "grid" }),
    ),
    bar(before, 13, "before"),
    bar(after, 31, "after"),
  );
}
