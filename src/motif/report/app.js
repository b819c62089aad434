// The page: header, result, chart sections, cost, trees, recipe, in the order of reading.

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");

function section(id, title, lead, ...content) {
  document.getElementById("nav").append(el("a", { href: `#${id}` }, title));
  main.append(
    el(
      "section",
      { id, "aria-labelledby": `${id}-title` },
      el("h2", { id: `${id}-title` }, title),
      lead && el("p", { class: "lead" }, lead),
      ...content,
    ),
  );
}

function header() {
  const { name, about, facts } = data.head;
  document.getElementById("head").append(
    el("p", { class: "kicker" }, "motif run report"),
    el("h1", { dir: "auto" }, name),
    about && el("p", { class: "about", dir: "auto" }, about),
    el("p", { class: "reading" }, tidy(data.result.reading)),
    data.result.best && el("p", { class: "lead" }, tidy(data.result.best)),
    el(
      "dl",
      { class: "facts" },
      facts.map((fact) => el("div", {}, el("dt", {}, fact.name), el("dd", {}, fact.value))),
    ),
  );
  if (data.warnings.length) {
    main.append(
      el(
        "aside",
        { class: "warnings", "aria-label": "Warnings" },
        data.warnings.map((warning) => el("p", {}, el("b", {}, `⚠ ${warning.title}. `), tidy(warning.text))),
      ),
    );
  }
  if (data.notices.length) {
    main.append(
      el(
        "aside",
        { class: "notices", "aria-label": "Notices" },
        data.notices.map((notice) => el("p", {}, notice)),
      ),
    );
  }
}

// -- result -----------------------------------------------------------------------------------------------

const FINDINGS = {
  overlap: "intervals overlap: no difference shown",
  "no intervals": "no intervals recorded",
  incomplete: "not evaluated on both sides",
};

function resultSection() {
  const { rows } = data.result;
  const lead =
    "Held-out questions, with 95 % intervals. The hollow bar is before training, the filled one after.";
  if (!rows.length)
    return section(
      "result",
      "Result",
      lead,
      el("p", { class: "missing" }, "No evaluation before or after training has been recorded."),
    );
  section(
    "result",
    "Result",
    lead,
    el(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Accuracy before and after" },
      el(
        "table",
        { class: "result" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ["Rounds", "Before", "After", "0 to 100 %", "Change", "Questions"].map((name) =>
              el("th", { scope: "col" }, name),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          rows.map((row) =>
            el(
              "tr",
              {},
              el("th", { scope: "row", "data-label": "Rounds" }, row.rounds),
              el("td", { "data-label": "Before" }, accuracyCell(row.before)),
              el("td", { "data-label": "After" }, accuracyCell(row.after)),
              el("td", { class: "bars", "data-label": "0 to 100\u00a0%" }, intervalBars(row)),
              el("td", { "data-label": "Change" }, changeCell(row)),
              el("td", { "data-label": "Questions" }, questionsCell(row)),
            ),
          ),
        ),
      ),
    ),
  );
}

function accuracyCell(result) {
  if (!result) return el("span", { class: "sub" }, "not evaluated");
  const [value, ...rest] = interval(result).split(" [");
  return [
    el("b", { class: "interval" }, value),
    " ",
    rest.length > 0 && el("span", { class: "sub interval" }, `[${rest[0]}`),
    result.mean_tokens !== null &&
      el("div", { class: "sub" }, `${grouped(result.mean_tokens)} tokens an answer`),
    result.truncated > 0 && el("div", { class: "sub" }, `${show(result.truncated, "percent")} cut off`),
  ];
}

function changeCell({ before, after, finding }) {
  if (!before || !after) return el("span", { class: "sub" }, FINDINGS.incomplete);
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

function intervalBars({ before, after }) {
  const width = 260;
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

// -- trees ------------------------------------------------------------------------------------------------

function treeSection() {
  const { trees, all_trees, steps, all_steps, text_limit, cut_texts } = data.forest;
  if (!trees.length) {
    const why = all_trees
      ? `The ${plural(all_trees, "tree")} of this run are too large to be shown in a page; they are in trees.jsonl.`
      : "No tree has been recorded.";
    return section("trees", "Trees", null, el("p", { class: "missing" }, why));
  }
  const lead =
    `Showing ${grouped(trees.length)} of ${plural(all_trees, "tree")}, from ${grouped(steps)} of ${plural(all_steps, "step")}` +
    `${trees.length < all_trees ? ", evenly spaced" : ""}; trees.jsonl has them all.` +
    (cut_texts
      ? ` ${plural(cut_texts, "text")} longer than ${grouped(text_limit)} characters ${cut_texts === 1 ? "is" : "are"} cut, with a mark at the place.`
      : "");
  section("trees", "Trees", lead, treeBrowser(data.forest));
}

function recipeSection() {
  if (!data.recipe) return;
  section(
    "recipe",
    "Recipe",
    null,
    el(
      "details",
      {},
      el("summary", {}, "All settings of this run (recipe.toml)"),
      el("pre", { class: "verbatim", tabindex: 0, "aria-label": "recipe.toml" }, data.recipe),
    ),
  );
}

header();
resultSection();
for (const part of data.sections)
  section(
    part.id,
    part.title,
    part.lead,
    (part.text ?? []).map((sentence) => el("p", { class: "says" }, tidy(sentence))),
    el("div", { class: "charts" }, part.charts.map(chartFigure)),
  );
costSection();
treeSection();
recipeSection();
for (const draw of firstDraws) draw();
document.documentElement.dataset.ready = "true";
