// The list of trees: filtered, sorted, a page at a time, with the selected tree beside it.

const PAGE = 50; // trees listed at a time

const KINDS = { all: "All", mixed: "Mixed outcomes", never: "Never solved", always: "Always solved" };
const ORDERS = {
  spread: ["most to learn from", (one, other) => (other.spread ?? -1) - (one.spread ?? -1) || other.step - one.step || one.at - other.at],
  newest: ["newest first", (one, other) => other.step - one.step || one.at - other.at],
  oldest: ["oldest first", (one, other) => one.step - other.step || one.at - other.at],
  worst: ["lowest outcome rate", (one, other) => one.rate - other.rate || one.at - other.at],
  best: ["highest outcome rate", (one, other) => other.rate - one.rate || one.at - other.at],
};

/** mixed, never, always, or none where nothing is graded. */
function kindOf({ right, wrong, partial }) {
  if (partial) return "mixed";
  if (!right && !wrong) return "none";
  return right && wrong ? "mixed" : right ? "always" : "never";
}

class TreeBrowser {
  constructor() {
    this.items = [];
    this.state = { run: "all", step: "all", kind: "all", order: "spread", search: "", deep: false, page: 0 };
    this.chosen = null;
    this.kept = null;
    this.wanted = wantedTree(); // what the address of the page asks for, until it is found
    addEventListener("hashchange", () => ((this.wanted = wantedTree()), this.follow()));
    this.found = null; // places of the trees with the text, by run, when responses are searched too
    this.build();
  }

  build() {
    const changing = (key, read = (input) => input.value) => (event) => this.change({ [key]: read(event.target) });
    this.runBox = el("select", { id: "tree-run", onchange: changing("run") });
    this.stepBox = el("select", { id: "tree-step", onchange: changing("step") });
    this.orderBox = el(
      "select",
      { id: "tree-order", onchange: changing("order") },
      Object.entries(ORDERS).map(([key, [name]]) => el("option", { value: key }, name)),
    );
    this.searchBox = el("input", { id: "tree-search", type: "search", autocomplete: "off", oninput: changing("search") });
    this.deepBox = el("input", { type: "checkbox", id: "tree-deep", onchange: changing("deep", (input) => input.checked) });
    this.kinds = el(
      "fieldset",
      { class: "kinds", onchange: changing("kind") },
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
    this.list = el("ul", { class: "questions", "aria-label": "Trees" });
    this.count = el("span", { class: "sub", id: "tree-count" });
    this.before = el("button", { type: "button", onclick: () => this.turn(-1) }, "‹ Previous");
    this.after = el("button", { type: "button", onclick: () => this.turn(1) }, "Next ›");
    this.detail = el("div", { class: "trees-shown", id: "tree", tabindex: -1, "aria-label": "The selected tree", role: "region" });
    this.list.addEventListener("keydown", (event) => this.key(event));
    const labelled = (box, name, kind = "") => el("label", { for: box.id, class: kind }, name, box);
    this.runLabel = labelled(this.runBox, "Run ");
    this.element = el(
      "div",
      {},
      el(
        "div",
        { class: "controls" },
        this.runLabel,
        labelled(this.stepBox, "Step "),
        labelled(this.orderBox, "Order "),
        labelled(this.searchBox, "Contains ", "grow"),
        el("label", { class: "check" }, this.deepBox, " also in responses"),
        this.kinds,
      ),
      el(
        "div",
        { class: "browser" },
        el("div", {}, this.list, el("div", { class: "pager" }, this.before, this.count, this.after)),
        this.detail,
      ),
    );
  }

  /** Reads the current index. */
  update(runs) {
    this.several = runs.length > 1;
    const known = new Map(this.items.map((item) => [item.head, item]));
    this.items = runs.flatMap((run, index) =>
      source.heads(index).map((head, place) => known.get(head) ?? itemOf(head, index, place, run.name)),
    );
    this.items.forEach((item, at) => (item.at = at));
    this.elsewhere = new Map();
    for (const item of this.items) {
      const key = sameQuestion(item);
      if (!this.elsewhere.has(key)) this.elsewhere.set(key, []);
      this.elsewhere.get(key).push(item);
    }
    const steps = [...new Set(this.items.map((item) => item.step))].sort((one, other) => one - other);
    const tenth = Math.max(1, Math.ceil(steps.length / 10));
    this.early = steps[tenth - 1];
    this.late = steps[steps.length - tenth];
    options(this.runBox, [["all", "all runs"], ...runs.map((run, index) => [String(index), run.name])], this.state.run);
    options(
      this.stepBox,
      [
        ["all", "all steps"],
        ["early", `early (up to step ${grouped(this.early ?? 0)})`],
        ["late", `late (from step ${grouped(this.late ?? 0)})`],
        ...steps.map((step) => [String(step), `step ${grouped(step)}`]),
      ],
      this.state.step,
    );
    this.runLabel.hidden = !this.several;
    this.refresh();
    if (this.wanted) this.follow();
    if (!this.chosen && this.listed.length) this.choose(this.listed[0]);
  }

  change(update) {
    Object.assign(this.state, update, { page: 0 });
    this.refresh();
    this.showListed();
    announce(plural(this.listed.length, "tree"));
    const { deep, search } = this.state;
    if (deep && search.trim()) this.searchDeep(search.trim());
  }

  /** Shows the first tree of the list, where it is now in another order, or no longer holds the shown one. */
  showListed() {
    const first = this.listed[0];
    if (first && (this.order !== this.state.order || !this.listed.includes(this.chosen))) this.choose(first);
    this.order = this.state.order;
  }

  /** Opens the tree and the response that the address of the page names. */
  async follow() {
    const { run, step, id, path } = this.wanted ?? {};
    const item = this.items.find((known) => known.run === run && known.step === step && known.head.id === id);
    if (!item) return;
    this.wanted = null;
    await this.choose(item, path);
    this.detail.scrollIntoView({ block: "start" });
  }

  /** Searches responses too; the list fills when all trees have been searched. */
  searchDeep(text) {
    clearTimeout(this.waiting);
    this.count.textContent = "searching…";
    this.waiting = setTimeout(async () => {
      const runs = [...new Set(this.items.map((item) => item.run))];
      const found = new Map(await Promise.all(runs.map(async (run) => [run, await source.containing(run, text)])));
      if (this.state.search.trim() !== text || !this.state.deep) return;
      this.found = { text, places: found };
      this.refresh();
      this.showListed();
      announce(plural(this.listed.length, "tree"));
    }, 250);
  }

  within() {
    const { run, step, search, deep } = this.state;
    const wanted = search.trim().toLowerCase();
    const found = deep && this.found?.text === search.trim() ? this.found.places : null;
    return this.items.filter(
      (item) =>
        (run === "all" || item.run === Number(run)) &&
        (step === "all" ||
          (step === "early" ? item.step <= this.early : step === "late" ? item.step >= this.late : item.step === Number(step))) &&
        (!wanted || item.lower.includes(wanted) || found?.get(item.run)?.has(item.place)),
    );
  }

  refresh() {
    const { kind, order } = this.state;
    const within = this.within();
    for (const mark of this.kinds.querySelectorAll("b"))
      mark.textContent = grouped(within.filter((item) => mark.dataset.kind === "all" || item.kind === mark.dataset.kind).length);
    this.listed = within.filter((item) => kind === "all" || item.kind === kind).sort(ORDERS[order][1]);
    this.showPage();
  }

  showPage() {
    const pages = Math.max(1, Math.ceil(this.listed.length / PAGE));
    const page = (this.state.page = Math.min(this.state.page, pages - 1));
    const shown = this.listed.slice(page * PAGE, (page + 1) * PAGE);
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.tree : null;
    this.list.replaceChildren(...shown.map((item) => el("li", {}, this.button(item))));
    if (focused) this.list.querySelector(`[data-tree="${focused}"]`)?.focus();
    const from = page * PAGE;
    this.count.textContent = this.listed.length
      ? `${grouped(from + 1)}–${grouped(from + shown.length)} of ${grouped(this.listed.length)}`
      : "no tree matches";
    this.before.disabled = page === 0;
    this.after.disabled = page === pages - 1;
  }

  turn(by) {
    this.state.page += by;
    this.showPage();
    this.list.scrollTop = 0;
    announce(this.count.textContent);
  }

  button(item) {
    const { head } = item;
    return el(
      "button",
      { type: "button", "data-tree": item.name, "aria-current": String(item === this.chosen), onclick: () => this.choose(item).then(() => remembering(addressOf(item))) },
      el("span", { class: "q" }, head.text || "(empty question)"),
      el(
        "span",
        { class: "sub" },
        `${head.right}/${head.total} right · step ${grouped(head.step)}`,
        head.spread > 0 && ` · spread ${grouped(head.spread, 2)}`,
        head.dropped && " · dropped",
        this.several && ` · ${item.runName}`,
      ),
    );
  }

  key(event) {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...this.list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + move];
    if (!move || !next) return;
    event.preventDefault();
    next.focus();
    next.click();
  }

  async choose(item, path = "") {
    [this.chosen, this.path] = [item, path];
    for (const button of this.list.querySelectorAll("button"))
      button.setAttribute("aria-current", String(button.dataset.tree === item?.name));
    await this.show();
  }

  /** Keeps a tree in view while another one is selected; null releases it. */
  async keep(item) {
    this.kept = item;
    await this.show();
  }

  async show() {
    const pair = [this.kept, this.chosen].filter((item, at, all) => item && all.indexOf(item) === at);
    pair.sort((one, other) => one.step - other.step || one.at - other.at); // early left, late right
    const request = (this.request = Symbol());
    const drawn = await Promise.all(pair.map((item) => this.draw(item, pair.length)));
    if (request !== this.request) return; // another tree was selected meanwhile
    this.detail.className = pair.length > 1 ? "trees-shown pair" : "trees-shown";
    this.detail.replaceChildren(...drawn);
  }

  async draw(item, count) {
    try {
      const tree = await source.tree(item.run, item.place);
      const width = (this.detail.clientWidth || 800) / (innerWidth > 760 ? count : 1);
      const link = (key) => addressOf(item, key);
      const view = new TreeView(tree, { actions: this.actions(item), width, link });
      if (item === this.chosen && this.path) view.choose(this.path);
      view.chosen = () => remembering(link(view.key));
      return view.element;
    } catch (error) {
      return el("p", { class: "missing" }, `This tree cannot be shown: ${error.message}.`);
    }
  }

  /** The same question in other trees, and the button that keeps a tree for comparison. */
  actions(item) {
    const others = this.elsewhere.get(sameQuestion(item)).filter((other) => other !== item);
    const keeping = this.kept === item;
    const beside = el("select", {
      "aria-label": "The same question in other trees",
      onchange: (event) => event.target.value && this.compare(item, others[Number(event.target.value)]),
    });
    const label = (other) => `step ${grouped(other.step)}: ${other.head.right}/${other.head.total} right${this.several ? `, ${other.runName}` : ""}`;
    options(beside, [["", `same question in ${plural(others.length, "other tree")}…`], ...others.map((other, at) => [String(at), label(other)])], "");
    return el(
      "div",
      { class: "actions" },
      this.several && el("span", { class: "sub" }, item.runName),
      others.length > 0 && beside,
      el(
        "button",
        { type: "button", "aria-pressed": String(keeping), onclick: () => this.keep(keeping ? null : item) },
        keeping ? "Stop comparing" : "Compare with the next one",
      ),
    );
  }

  async compare(item, other) {
    this.kept = item;
    await this.choose(other);
    this.showPage();
    announce(`Step ${grouped(item.step)} beside step ${grouped(other.step)}`);
  }
}

/** The address of a tree, or of a response in it, within the page. */
const addressOf = ({ run, step, head }, path = "") => `#tree/${[run, step, encodeURIComponent(head.id), path].join("/")}`;

function wantedTree() {
  const [, run, step, id, path] = /^#tree\/(\d+)\/(\d+)\/([^/]*)\/([\d.]*)$/.exec(location.hash) ?? [];
  try {
    return run === undefined ? null : { run: Number(run), step: Number(step), id: decodeURIComponent(id), path };
  } catch {
    return null; // not an address that this page writes
  }
}

/** Keeps an address where a reader can copy it, without a step in the history of the browser. */
function remembering(address) {
  try {
    history.replaceState(null, "", address);
  } catch {
    // A page opened from a disk may not.
  }
}

const sameQuestion = ({ head }) => `${head.id}\n${head.text}`;

function itemOf(head, run, place, runName) {
  const graded = head.right + head.wrong;
  return {
    head,
    run,
    place,
    runName,
    name: `${run}-${place}`,
    step: head.step,
    kind: kindOf(head),
    spread: head.spread,
    rate: graded ? head.right / graded : 2,
    lower: `${head.text}\n${head.id}`.toLowerCase(),
  };
}

/** Sets the options of a select box and keeps the current choice. */
function options(box, pairs, chosen) {
  const signature = JSON.stringify(pairs);
  if (box.signature !== signature) {
    box.signature = signature;
    box.replaceChildren(...pairs.map(([value, name]) => el("option", { value }, name)));
  }
  box.value = pairs.some(([value]) => value === chosen) ? chosen : pairs[0][0];
}
