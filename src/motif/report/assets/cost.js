// The cost: the ledger, and pictures of where the time and the tokens went.

function exactly({ value, unit }) {
  return `${value >= 1e12 ? scientific(value, 3) : grouped(value)}${unit === "seconds" ? " s" : ""}`;
}

/** Pictures of where the time and the tokens of each run went, and the ledger of all. */
function costParts({ runs }) {
  const several = runs.length > 1;
  return [
    runs.map((run, at) => [
      several && el("h3", { class: "of-run" }, runName(run)),
      el(
        "div",
        { class: "charts" },
        partsFigure(`time-${at}`, "Where the time went", run.time.parts, "seconds", {
          missing: "Not recorded in this run: metrics.jsonl has no time/…",
          caption: `Wall clock of ${plural(run.time.steps, "step")}, without evaluation and probes.`,
        }),
        partsFigure(`tokens-${at}`, "Where the tokens went", run.tokens, "tokens", {
          missing: "Neither summary.json nor metrics.jsonl counts the tokens.",
          caption:
            "All generated tokens, and the prompts of all responses. Parts of prompts that responses share are read " +
            "once; the hollow part is what reading them for each response would have added.",
        }),
      ),
    ]),
    el("h3", {}, "Ledger"),
    ledgerTable(runs),
    el("p", { class: "lead" }, "What training has consumed so far, without evaluation and probes."),
  ];
}

/** A stacked bar over a table of its parts; the table is also what a screen reader gets. */
function partsFigure(id, title, parts, unit, { missing, caption }) {
  const total = parts.reduce((sum, part) => sum + part.value, 0);
  const figure = el("figure", { id: `chart-${id}` }, el("h3", {}, title));
  if (!total) {
    figure.append(el("p", { class: "missing" }, missing));
    return figure;
  }
  const share = (part) => show(part.value / total, "percent");
  const rows = parts.map((part, index) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, partSwatch(index), part.name),
      el("td", {}, show(part.value, unit)),
      el("td", {}, share(part)),
    ),
  );
  const says = parts.map((part) => `${part.name} ${show(part.value, unit)}, ${share(part)}`).join("; ");
  figure.append(
    stackedBar(parts, total, `${title}: ${says}.`),
    el(
      "table",
      { class: "parts" },
      el(
        "thead",
        { class: "unseen" },
        el(
          "tr",
          {},
          ["Part", "Amount", "Share"].map((name) => el("th", { scope: "col" }, name)),
        ),
      ),
      el("tbody", {}, rows),
    ),
    el("figcaption", {}, caption),
  );
  return figure;
}

function stackedBar(parts, total, says) {
  let before = 0;
  const pieces = parts.map((part, index) => {
    const share = (100 * part.value) / total;
    const middle = before + share / 2;
    before += share;
    return [
      svg("rect", { x: `${middle - share / 2}%`, y: 1, width: `${share}%`, height: 32, class: `part${index}` }),
      share > 9 && // narrower than its number; the table has it
        svg("text", { x: `${middle}%`, y: 22, "text-anchor": "middle", class: `on${index}` }, `${grouped(share)} %`),
    ];
  });
  return svg("svg", { class: "stack", width: "100%", height: 34, role: "img", "aria-label": says }, pieces);
}

function partSwatch(index) {
  return svg(
    "svg",
    { width: 12, height: 12, "aria-hidden": "true" },
    svg("rect", { x: 0.5, y: 0.5, width: 11, height: 11, class: `part${index}` }),
  );
}

function ledgerTable(runs) {
  const names = [...new Set(runs.flatMap((run) => run.ledger.map((entry) => entry.name)))];
  if (!names.length) return el("p", { class: "missing" }, "Neither summary.json nor metrics.jsonl has a ledger.");
  const entry = (run, name) => run.ledger.find((one) => one.name === name);
  const amount = (found) => found && el("b", {}, FORMAT[found.unit](found.value));
  const heads = runs.length > 1 ? runs.map((run) => run.name) : ["Amount", "Exact"];
  const cells = (name) =>
    runs.length > 1
      ? runs.map((run) => amount(entry(run, name)))
      : [amount(entry(runs[0], name)), el("span", { class: "sub" }, exactly(entry(runs[0], name)))];
  return scrolling("Ledger", plainTable(["Quantity", ...heads], names.map((name) => [name, ...cells(name)]), "ledger"));
}
