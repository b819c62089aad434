// The page: header, result, chart sections, cost, trees, recipe, in the order of reading; kept up to date while live.

const EVERY = 2000; // milliseconds between requests to the server
const QUIET = 10000; // milliseconds between announcements to screen readers

const view = { data, axis: "step", hidden: new Set(), paused: false, announced: 0 };
const shownRuns = () => view.data.runs.map((run, index) => ({ run, index })).filter(({ index }) => !view.hidden.has(index));

/** A part of the page that is rewritten when the data that it shows has changed, and only then. */
function region(element, select, write) {
  let before = "";
  return () => {
    const now = JSON.stringify(select(view.data));
    if (now === before) return;
    before = now;
    const focused = element.contains(document.activeElement);
    const open = [...element.querySelectorAll("details")].map((part) => part.open);
    element.replaceChildren(...write(view.data).flat(Infinity).filter(Boolean));
    [...element.querySelectorAll("details")].forEach((part, at) => (part.open = open[at] ?? part.open));
    if (focused) element.querySelector("[tabindex], button, summary")?.focus();
  };
}

const regions = [
  region(document.getElementById("head"), ({ runs }) => runs.map((run) => [run.name, run.head, run.state, run.now, run.result]), headerParts),
];

function fixedSection(id, title, lead, select, write) {
  const body = el("div", {});
  section(id, title, lead, body);
  regions.push(region(body, select, write));
  return body;
}

// -- charts -----------------------------------------------------------------------------------------------

const FIRST = ["learning", "warmstart"]; // sections of charts before the trees
const firstBox = el("div", {}),
  chartBox = el("div", {});
let layout = "";
let drawn = []; // {id, run (of a figure per run), key, figure}

/** The sections of all runs, each with the ids of its charts, in order. */
function sectionsOf(runs) {
  const found = new Map();
  for (const { sections } of runs)
    for (const part of sections) {
      if (!found.has(part.id)) found.set(part.id, { ...part, charts: new Map() });
      for (const chart of part.charts) found.get(part.id).charts.set(chart.id, chart.kind);
    }
  return [...found.values()];
}

function chartSections() {
  const runs = view.data.runs;
  const parts = sectionsOf(runs);
  const signature = JSON.stringify([parts.map(({ id, charts }) => [id, [...charts]]), runs.map((run) => run.name)]);
  if (signature === layout) return;
  layout = signature;
  const kept = new Map(drawn.flatMap(({ key, figure }) => (figure ? [[key, figure]] : []))); // with their scales and open tables
  drawn = [];
  const drawnSections = parts.map((part) => {
    const box = el("div", { class: "charts" });
    for (const [id, kind] of part.charts)
      for (const run of PER_RUN.has(kind) ? runs.keys() : [null]) {
        const key = runs.length > 1 && run !== null ? `${id}-${run}` : id;
        const figure = kept.get(key) ?? new Figure(key);
        kept.delete(key);
        box.append(figure.element);
        drawn.push({ id, run, key, figure });
      }
    const words = el("div", { class: "words" });
    drawn.push({ id: part.id, words });
    return el(
      "section",
      { id: part.id, "aria-labelledby": `${part.id}-title` },
      el("h2", { id: `${part.id}-title` }, part.title),
      el("p", { class: "lead" }, part.lead),
      words,
      box,
      part.id === "cost" && costBox,
    );
  });
  for (const figure of kept.values()) figure.remove();
  firstBox.replaceChildren(...drawnSections.filter(({ id }) => FIRST.includes(id)));
  chartBox.replaceChildren(...drawnSections.filter(({ id }) => !FIRST.includes(id)));
  navigation();
}

const chartOf = (run, id) => run.sections.flatMap((part) => part.charts).find((chart) => chart.id === id);

function drawCharts() {
  const several = view.data.runs.length > 1;
  for (const { id, run, figure, words } of drawn) {
    if (words) {
      words.replaceChildren(
        ...view.data.runs.flatMap((one) =>
          (one.sections.find((part) => part.id === id)?.text ?? []).map((sentence) =>
            el("p", { class: "says" }, several && [runName(one), " "], tidy(sentence)),
          ),
        ),
      );
      continue;
    }
    const parts = shownRuns()
      .filter(({ index }) => run === null || index === run)
      .map((part) => ({ ...part, chart: chartOf(part.run, id) }))
      .filter(({ chart }) => chart);
    figure.element.hidden = !parts.length;
    if (parts.length) figure.update(parts, view.axis, several);
  }
}

// -- the bar that stays in view ---------------------------------------------------------------------------

const axisBox = el("select", { id: "axis", onchange: () => ((view.axis = axisBox.value), drawCharts()) });
const runBoxes = el("fieldset", { class: "kinds runs" });
const news = el("span", { class: "sub", id: "status" });

function bar() {
  const theme = el("select", { id: "theme", "aria-label": "Colours", onchange: () => setTheme(theme.value) });
  options(theme, [["auto", "colours: system"], ["light", "light"], ["dark", "dark"]], remembered("theme") ?? "auto");
  setTheme(theme.value);
  const pause = el(
    "button",
    {
      type: "button",
      "aria-pressed": "false",
      onclick: () => {
        view.paused = !view.paused;
        pause.setAttribute("aria-pressed", String(view.paused));
        if (view.paused) tell("paused");
      },
    },
    "Pause",
  );
  document.getElementById("tools").append(
    el("label", { for: "axis" }, "Plot against ", axisBox),
    runBoxes,
    theme,
    ...(view.data.live ? [pause, el("a", { href: "report.html", download: "" }, "Save as file"), news] : []),
  );
}

function runToggles() {
  const { runs } = view.data;
  runBoxes.hidden = runs.length < 2;
  runBoxes.replaceChildren(
    el("legend", { class: "unseen" }, "Runs in the charts"),
    ...runs.map((run, index) =>
      el(
        "label",
        {},
        el("input", {
          type: "checkbox",
          checked: !view.hidden.has(index),
          onchange: (event) => {
            if (event.target.checked) view.hidden.delete(index);
            else view.hidden.add(index);
            update();
          },
        }),
        el("span", {}, runName(run, index)),
      ),
    ),
  );
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  remember("theme", theme);
  recolour();
}

/** An earlier choice, if the browser stores any for this page. */
function remembered(key) {
  try {
    return localStorage.getItem(`motif-${key}`);
  } catch {
    return null;
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(`motif-${key}`, value);
  } catch {
    // A page opened from a disk may not store anything.
  }
}

// -- trees, recipe ----------------------------------------------------------------------------------------

function treeLead({ runs, live }) {
  if (live) return ["All trees of the run so far. The list grows as the run does."];
  return runs.map(({ name, trees }) => {
    const { heads, all_trees, steps, all_steps, text_limit, cut_texts } = trees;
    const of = runs.length > 1 ? `${name}: ` : "";
    if (!heads.length && all_trees)
      return `${of}The ${plural(all_trees, "tree")} of this run are too large to be saved in a page. They are in trees.jsonl, and motif view shows them.`;
    if (heads.length === all_trees && !cut_texts) return `${of}All ${plural(all_trees, "tree")} of ${plural(all_steps, "step")}.`;
    return (
      `${of}${grouped(heads.length)} of ${plural(all_trees, "tree")}, from ${grouped(steps)} of ${plural(all_steps, "step")}` +
      `${heads.length < all_trees ? ", evenly spaced" : ""}. All are in trees.jsonl, and motif view shows them.` +
      (cut_texts
        ? ` ${plural(cut_texts, "text")} longer than ${grouped(text_limit)} characters ${cut_texts === 1 ? "is" : "are"} cut; a mark shows where.`
        : "")
    );
  });
}

const reading =
  "A question, its first-round responses, and the trajectories that continue them. The spread is the standard deviation of " +
  "the responses' rewards: where it is 0, none of them is better than another, and nothing is learnt.";

const browser = new TreeBrowser();
const noTrees = el("p", { class: "missing" });

function recipeParts({ runs, differences }) {
  const several = runs.length > 1;
  const table = [
    el("h3", {}, "Settings that differ"),
    scrolling("Settings that differ", plainTable(["Setting", ...runs.map((run) => run.name)], differences.map((row) => [row.key, ...row.values]), "differences")),
  ];
  const facts = [...new Set(runs.flatMap((run) => run.head.facts.map(({ name }) => name)))];
  const fact = (run, name) => run.head.facts.find((one) => one.name === name)?.value ?? "not recorded";
  return [
    scrolling("Facts", plainTable(["Fact", ...(several ? runs.map((run) => run.name) : ["Value"])], facts.map((name) => [name, ...runs.map((run) => fact(run, name))]), "facts-table")),
    several && (differences.length ? table : el("p", {}, "The recipes are the same.")),
    runs.filter((run) => run.recipe).map((run) =>
      el(
        "details",
        {},
        el("summary", {}, `All settings of ${several ? run.name : "this run"} (recipe.toml)`),
        el("pre", { class: "verbatim", tabindex: 0, "aria-label": "recipe.toml" }, run.recipe),
      ),
    ),
  ];
}

// -- news -------------------------------------------------------------------------------------------------

function update() {
  for (const write of regions) write();
  chartSections();
  options(axisBox, axesOf(view.data.runs).map((key) => [key, AXES[key].name]), view.axis);
  view.axis = axisBox.value;
  drawCharts();
  document.title = titleOf(view.data);
  browser.update(view.data.runs);
  browser.element.hidden = !browser.items.length;
  noTrees.hidden = browser.items.length > 0;
  noTrees.textContent = view.data.live && !view.data.updated ? "Reading the trees…" : "No trees have been recorded.";
}

/** The title of the page; in a tab of its own it says how far the run is. */
function titleOf({ runs, live }) {
  const names = runs.map((run) => run.name).join(", ");
  const { word, step, steps } = runs[0].state;
  return `${live && word === "running" && runs.length === 1 ? `${grouped(step)}${steps ? `/${grouped(steps)}` : ""} · ` : ""}${names} – motif`;
}

const tell = (text) => (news.textContent = text);
const stepsOf = ({ runs }) => runs.map((run) => grouped(run.axes.step[run.axes.step.length - 1] ?? 0)).join(", ");

async function poll() {
  setTimeout(poll, EVERY);
  if (view.paused || document.hidden || view.asking) return;
  view.asking = true;
  let fresh = await source.next().catch(() => undefined);
  view.asking = false;
  if (fresh === undefined) return tell("no connection: is motif view still running?");
  fresh ??= view.pending;
  view.pending = view.paused ? fresh : null;
  if (view.paused) return;
  if (fresh) {
    view.data = { ...fresh, live: true, updated: true };
    update();
    const steps = stepsOf(fresh);
    if (steps !== view.steps && Date.now() - view.announced > QUIET) {
      view.announced = Date.now();
      announce(`Step ${steps}`);
    }
    view.steps = steps;
  }
  tell(`live · step ${stepsOf(view.data)}`);
}

const warningBox = el("div", {});
main.append(warningBox);
regions.push(region(warningBox, ({ runs }) => runs.map((run) => [run.warnings, run.notices]), warningParts));
// While a run trains its curves come first; afterwards, what it has come to.
const running = view.data.runs.some(({ state }) => state.word === "running");
if (running) main.append(firstBox);
fixedSection(
  "result",
  "Result",
  "Held-out questions, with 95 % intervals. The hollow bar is before training, the filled one after.",
  ({ runs }) => runs.map((run) => [run.name, run.result, run.state.word]),
  resultParts,
);
if (!running) main.append(firstBox);
const costBox = el("div", {});
regions.push(region(costBox, ({ runs }) => runs.map((run) => [run.name, run.ledger, run.time, run.tokens]), costParts));
section(
  "trees",
  "Trees",
  null,
  el("p", { class: "lead" }, reading),
  treeLead(view.data).map((sentence) => el("p", { class: "lead" }, tidy(sentence))),
  noTrees,
  browser.element,
);
main.append(chartBox);
fixedSection("recipe", "Settings", null, ({ runs, differences }) => [runs.map((run) => [run.recipe, run.head.facts]), differences], recipeParts);
bar();
runToggles();
update();
document.documentElement.dataset.ready = "true";
if (view.data.live) poll();
