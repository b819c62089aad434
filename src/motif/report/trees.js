// The tree browser: choose a step and a question, see the tree drawn, open any response down to its full text.

const PAGE = 100; // questions listed at a time

const leavesOf = (node) => (node.children ? node.children.flatMap(leavesOf) : [node]);

function outcome(nodes) {
  const leaves = nodes.flatMap(leavesOf);
  const count = (verdict) => leaves.filter((leaf) => leaf.verdict === verdict).length;
  return { right: count("right"), wrong: count("wrong"), total: leaves.length };
}

/** mixed, never, always, or none where nothing is graded. */
function kindOf(tree) {
  const { right, wrong } = outcome(tree.responses);
  if (!right && !wrong) return "none";
  return right && wrong ? "mixed" : right ? "always" : "never";
}

const KINDS = { all: "All", mixed: "Mixed outcomes", never: "Never solved", always: "Always solved" };
const VERDICTS = { right: ["✓", "right"], wrong: ["✗", "wrong"], ungraded: ["?", "ungraded"] };
const verdictOf = (node) => VERDICTS[node.verdict] ?? ["·", "no verdict"];

function treeBrowser(forest) {
  const trees = forest.trees.map((tree, index) => ({ ...tree, index, kind: kindOf(tree) }));
  const steps = [...new Set(trees.map((tree) => tree.step))];
  const state = { step: steps[steps.length - 1], kind: "all", search: "", shown: PAGE, chosen: null };

  const stepBox = el(
    "select",
    { id: "tree-step" },
    el("option", { value: "all" }, "all shown steps"),
    steps.map((step) =>
      el("option", { value: step, selected: step === state.step }, `step ${grouped(step)}`),
    ),
  );
  const search = el("input", { id: "tree-search", type: "search", autocomplete: "off" });
  const kinds = el(
    "fieldset",
    { class: "kinds" },
    el("legend", { class: "unseen" }, "Outcomes of the question"),
    Object.entries(KINDS).map(([kind, name]) =>
      el(
        "label",
        {},
        el("input", { type: "radio", name: "kind", value: kind, checked: kind === "all" }),
        el("span", {}, name, " ", el("b", { "data-kind": kind })),
      ),
    ),
  );
  const list = el("ul", { class: "questions", "aria-label": "Questions" });
  const detail = el("div", { class: "tree", id: "tree", "aria-live": "off" });

  const inStep = () => trees.filter((tree) => state.step === "all" || tree.step === state.step);
  const matching = () => {
    const wanted = state.search.trim().toLowerCase();
    return inStep().filter(
      (tree) =>
        (state.kind === "all" || tree.kind === state.kind) &&
        (!wanted || tree.question.text.toLowerCase().includes(wanted)),
    );
  };

  const choose = (tree) => {
    state.chosen = tree;
    for (const button of list.querySelectorAll("button[data-tree]")) {
      button.setAttribute("aria-current", String(Number(button.dataset.tree) === tree?.index));
    }
    detail.replaceChildren(
      ...(tree ? drawTree(tree) : [el("p", { class: "missing" }, "No question matches.")]),
    );
  };

  const refresh = (keep) => {
    for (const mark of kinds.querySelectorAll("b")) {
      mark.textContent = grouped(
        inStep().filter((tree) => mark.dataset.kind === "all" || tree.kind === mark.dataset.kind).length,
      );
    }
    const found = matching();
    list.replaceChildren(
      ...found
        .slice(0, state.shown)
        .map((tree) =>
          el(
            "li",
            {},
            el(
              "button",
              { type: "button", "data-tree": tree.index, onclick: () => choose(tree) },
              el("span", { class: "q" }, tree.question.text.slice(0, 200) || "(empty question)"),
              el(
                "span",
                { class: "sub" },
                `${rateText(tree.responses)} right${state.step === "all" ? ` · step ${grouped(tree.step)}` : ""}`,
              ),
            ),
          ),
        ),
    );
    if (found.length > state.shown) {
      const more = el(
        "button",
        { type: "button", class: "more" },
        `Show more (${grouped(found.length - state.shown)} left)`,
      );
      more.addEventListener("click", () => ((state.shown += PAGE), refresh(true)));
      list.append(el("li", {}, more));
    }
    choose(keep && found.includes(state.chosen) ? state.chosen : (found[0] ?? null));
    announce(plural(found.length, "question"));
  };

  const change = (update) => () => {
    update();
    state.shown = PAGE;
    refresh(true);
  };
  stepBox.addEventListener(
    "change",
    change(() => (state.step = stepBox.value === "all" ? "all" : Number(stepBox.value))),
  );
  search.addEventListener(
    "input",
    change(() => (state.search = search.value)),
  );
  kinds.addEventListener(
    "change",
    change(() => (state.kind = kinds.querySelector("input:checked").value)),
  );
  list.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + move];
    if (!move || !next) return;
    event.preventDefault();
    next.focus();
    if (next.dataset.tree) next.click();
  });
  // A step with something to see: the last one whose questions are not all alike.
  const telling = trees.filter((tree) => tree.kind === "mixed").pop();
  if (telling) {
    state.step = telling.step;
    state.chosen = telling;
    stepBox.value = String(telling.step);
  }
  refresh(true);
  return [
    el(
      "div",
      { class: "controls" },
      el("label", { for: "tree-step" }, "Step ", stepBox),
      el("label", { for: "tree-search", class: "grow" }, "Question contains ", search),
      kinds,
    ),
    el("div", { class: "browser" }, list, detail),
  ];
}

function rateText(nodes) {
  const { right, total } = outcome(nodes);
  return `${right}/${total}`;
}
