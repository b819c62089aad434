// One tree: its question, its drawing, and the path to the chosen response, with prompts and rewards spelled out.

const MOST_ROWS = 400; // of a drawing
const LINE = 12; // pixels of a line of a note
const LETTER = 5.9; // pixels of a letter, roughly

const leavesOf = (node) => (node.children ? node.children.flatMap(leavesOf) : [node]);

function outcome(nodes) {
  const leaves = nodes.flatMap(leavesOf);
  const count = (verdict) => leaves.filter((leaf) => leaf.verdict === verdict).length;
  return { right: count("right"), wrong: count("wrong"), total: leaves.length };
}

function rateText(nodes) {
  const { right, total } = outcome(nodes);
  return `${right}/${total}`;
}

const VERDICTS = {
  right: ["✓", "right"],
  wrong: ["✗", "wrong"],
  partial: ["◐", "partial"],
  ungraded: ["?", "ungraded"],
};
const verdictOf = (node) => VERDICTS[node.verdict] ?? ["·", "no verdict"];

/** A text in one line, without characters that could turn or hide what stands around it. */
const plain = (text) => text.replace(/[\p{C}\s]+/gu, " ").trim();

/** The colour of a value between 0 and 1: the fuller, the more ends right. */
const tint = (value) => (value === null || value === undefined ? "var(--level)" : shade(Math.round(10 * value), 11));

/** A tree on the page. `link` makes the address of a response, `chosen` is told when one is chosen. */
class TreeView {
  constructor(tree, { actions, width, link, chosen }) {
    Object.assign(this, { tree, width, link, chosen });
    this.nodes = new Map(); // by path, such as "2.0"
    tree.responses.forEach((node, place) => this.add(node, [place], null));
    this.path = el("div", { class: "path" });
    this.element = el("article", { class: "tree" }, this.question(actions), this.diagram(), this.path);
    const first = [...tree.responses].sort((one, other) => (other.advantage ?? 0) - (one.advantage ?? 0))[0];
    if (first) this.choose(first.key);
  }

  add(node, path, parent) {
    Object.assign(node, { key: path.join("."), path, parent, siblings: parent ? parent.children : this.tree.responses });
    this.nodes.set(node.key, node);
    (node.children ?? []).forEach((child, place) => this.add(child, [...path, place], node));
  }

  question(actions) {
    const { step, question, responses } = this.tree;
    return el(
      "div",
      { class: "question" },
      el("div", { class: "sub" }, `step ${grouped(step)} · question ${question.id || NONE} · ${rateText(responses)} trajectories right`),
      el("p", { class: "verbatim", dir: "auto" }, question.text),
      el("p", { class: "gold" }, "Gold answer ", el("b", { class: "verbatim", dir: "auto" }, question.gold || NONE)),
      actions,
    );
  }

  /** Shows a response, with the rounds before it; `focus`: in the drawing. */
  choose(key, focus = false) {
    const node = this.nodes.get(key);
    if (!node) return;
    this.key = key;
    for (const [known, mark] of this.marks ?? []) {
      const on = key === known || key.startsWith(`${known}.`);
      mark.classList.toggle("on", on);
      mark.edge?.classList.toggle("on", on);
      mark.setAttribute("tabindex", key === known ? 0 : -1);
      if (key === known) mark.setAttribute("aria-current", "true");
      else mark.removeAttribute("aria-current");
    }
    if (focus) this.marks.get(key)?.focus();
    const way = [];
    for (let at = node; at; at = at.parent) way.unshift(at);
    this.path.replaceChildren(...way.map((step) => this.part(step, step === node)), ...[this.onward(node)].filter(Boolean));
    this.chosen?.(this);
  }

  // -- the drawing ----------------------------------------------------------------------------------------

  /** Rounds from left to right; on every edge the note that it carries, at every end the verdict and the answer. */
  diagram() {
    const { responses } = this.tree;
    let rows = responses,
      rounds = 1;
    while (rows.some((node) => node.children)) {
      const below = rows.flatMap((node) => node.children ?? [node]);
      if (below.length > MOST_ROWS) break;
      rows = below;
      rounds += 1;
    }
    if (!rows.length || rows.length > MOST_ROWS)
      return el("p", { class: "missing" }, rows.length ? "Too many responses to draw." : "This tree has no responses.");
    const place = this.layout(rows.length, rounds);
    const drawing = svg("svg", {
      width: place.width,
      height: place.height,
      viewBox: `0 0 ${place.width} ${place.height}`,
      role: "group",
      "aria-label": `Tree of ${plural(responses.length, "response")} and ${plural(responses.flatMap(leavesOf).length, "trajectory", "trajectories")} over ${plural(rounds, "round")}. Arrow keys move from response to response.`,
    });
    for (let level = 0; level < rounds; level++)
      drawing.append(svg("text", { x: place.x(level), y: 12, class: "head" }, `round ${level + 1}`));
    const edges = svg("g", { class: "edges" });
    drawing.append(edges);
    this.marks = new Map();
    let row = 0;
    const draw = (node, level) => {
      const end = level === rounds - 1 || !node.children;
      const below = end ? [] : node.children.map((child) => draw(child, level + 1));
      const y = end ? 32 + row++ * place.row : (below[0].y + below[below.length - 1].y) / 2;
      const x = place.x(level);
      const fork = x + place.note;
      if (below.length) edges.append(svg("path", { d: `M${x} ${y}H${fork}`, style: { stroke: tint(node.value) } }));
      for (const child of below) this.edge(edges, fork, y, child);
      return { node, x, y, mark: this.mark(drawing, node, x, y, end, place, below) };
    };
    const drawn = responses.map((node) => draw(node, 0));
    const middle = (drawn[0].y + drawn[drawn.length - 1].y) / 2;
    for (const child of drawn) this.edge(edges, 14, middle, child);
    drawing.append(svg("circle", { cx: 14, cy: middle, r: 6, class: "start" }, svg("title", {}, "the question")));
    drawing.addEventListener("keydown", (event) => this.press(event));
    const legend =
      "✓ right  ✗ wrong  ? ungraded. On each line stands the note that it carries; the fuller its colour, the more trajectories behind it end right. " +
      "At each response: how many of its trajectories are right, and its advantage; at each end, the answer, and its advantage if it was trained.";
    return el("div", { class: "diagram" }, el("div", { class: "drawing" }, drawing), el("p", { class: "sub" }, legend));
  }

  layout(rows, rounds) {
    const row = rows > 80 ? 11 : rows > 40 ? 17 : 21;
    const first = 50,
      fork = 34,
      answer = 96;
    const room = rounds > 1 ? (this.width - first - answer) / (rounds - 1) - fork : 0;
    const note = Math.max(76, Math.min(300, room));
    return {
      row,
      note,
      x: (level) => first + level * (note + fork),
      width: first + (rounds - 1) * (note + fork) + answer,
      height: rows * row + 34,
    };
  }

  edge(edges, x0, y0, { node, x, y, mark }) {
    const half = (x0 + x) / 2;
    mark.edge = svg("path", { d: `M${x0} ${y0}C${half} ${y0} ${half} ${y} ${x} ${y}`, style: { stroke: tint(node.value) } });
    edges.append(mark.edge);
  }

  /** A response in the drawing: a circle that can be chosen, with its words. */
  mark(drawing, node, x, y, end, place, below) {
    const [sign, word] = verdictOf(node);
    const advantage = node.advantage === null ? "" : signed(node.advantage);
    const leaf = !node.children;
    const says = [
      `Round ${node.path.length}, ${node.path.length > 1 ? "continuation" : "response"} ${node.path[node.path.length - 1] + 1} of ${node.siblings.length}`,
      leaf ? `${word}, ${node.answer === null ? "no answer" : `answer ${plain(node.answer).slice(0, 80)}`}` : `${rateText([node])} right`,
      advantage && `advantage ${advantage}`,
    ];
    const small = place.row < 14;
    const mark = svg(
      "g",
      { class: `node ${leaf ? `leaf ${word}` : "inner"}`, role: "button", tabindex: -1, "data-path": node.key, "aria-label": says.filter(Boolean).join(", ") },
      svg("circle", { cx: x, cy: y, r: small ? 9 : 12, class: "ring" }),
      svg("circle", { cx: x, cy: y, r: small ? 4 : 7.5, class: "dot", style: leaf ? {} : { fill: tint(node.value) } }),
      leaf && !small && svg("text", { x, y: y + 3.5, "text-anchor": "middle", class: "sign", "aria-hidden": "true" }, sign),
      svg("title", {}, leaf ? says.filter(Boolean).join(", ") : `${says.filter(Boolean).join(", ")}; note: ${plain(node.note).slice(0, 300) || "empty"}`),
      small ? null : this.words(node, x + 14, y, end, place, below, advantage),
    );
    mark.addEventListener("click", () => this.choose(node.key, true));
    this.marks.set(node.key, mark);
    drawing.append(mark);
    return mark;
  }

  words(node, x, y, end, place, below, advantage) {
    const tags = [leavesOf(node).length > 1 && rateText([node]), advantage].filter(Boolean).join(" ");
    if (end) {
      const answer = node.children ? tags : `${plain(node.answer ?? "no answer").slice(0, 14)}${tags && ` ${tags}`}`;
      return svg("text", { x, y: y + 4, class: "answer" }, answer);
    }
    const free = place.note - 18;
    const high = below.length > 1 ? below[below.length - 1].y - below[0].y : 0;
    const note = plain(node.note) || "(empty note)";
    if (high < 2 * LINE) {
      const left = Math.floor(free / LETTER) - tags.length - 1;
      const cut = left < 4 ? "" : note.length > left ? `${note.slice(0, left - 1)}…` : note;
      return svg("text", { x, y: y - 4 }, svg("tspan", { class: "rate" }, tags), tags && " ", svg("tspan", {}, cut));
    }
    const lines = wrapped(note, Math.floor(free / LETTER), Math.min(4, Math.floor(high / 2 / LINE)));
    return [
      svg("text", { x, y: y - 4, class: "rate" }, tags),
      lines.map((line, at) => svg("text", { x, y: y + LINE + at * LINE }, line)),
    ];
  }

  /** Left and right change the round, up and down the response of the same round; Enter reads the chosen one. */
  press(event) {
    const node = this.nodes.get(event.target.closest("[data-path]")?.dataset.path);
    if (!node) return;
    const level = [...this.marks.keys()].filter((key) => key.split(".").length === node.path.length).sort(byPath);
    const at = level.indexOf(node.key);
    const target = {
      ArrowRight: `${node.key}.0`,
      ArrowLeft: node.parent?.key,
      ArrowDown: level[at + 1],
      ArrowUp: level[at - 1],
      Home: level[0],
      End: level[level.length - 1],
    }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const part = this.path.querySelector("details[open] > summary");
      part.scrollIntoView({ block: "nearest" });
      part.focus();
    } else if (this.marks.has(target)) {
      event.preventDefault();
      this.choose(target, true);
    }
  }

  // -- the path -------------------------------------------------------------------------------------------

  /** One response of the path: its facts, its prompt, its text, and what was read from it. */
  part(node, open) {
    const [mark, word] = verdictOf(node);
    const round = node.path.length;
    const title = `Round ${round} · ${round > 1 ? "continuation" : "response"} ${node.path[round - 1] + 1} of ${node.siblings.length}`;
    const inside = el("div", { class: "inside" });
    const details = el(
      "details",
      { class: "part" },
      el(
        "summary",
        {},
        el(
          "span",
          { class: "line" },
          el("b", {}, title),
          node.verdict && el("span", { class: `verdict ${word}` }, `${mark} ${word}${worthText(node)}`),
          node.children && el("span", {}, `${rateText([node])} right`),
          advantageChip(node.advantage),
        ),
        el("span", { class: "line" }, tags(node)),
        el("span", { class: "note verbatim", dir: "auto" }, el("span", { class: "sub" }, "Note "), node.note || "(empty)"),
      ),
    );
    const fill = () => details.open && !inside.hasChildNodes() && (inside.append(...this.inside(node, title)), details.append(inside));
    details.addEventListener("toggle", fill);
    details.open = open;
    fill();
    return details;
  }

  inside(node, title) {
    const read = (name, text) => text && [el("dt", {}, name), el("dd", { class: "verbatim", dir: "auto" }, text)];
    return [
      node.why && el("p", { class: "why" }, el("span", { class: "sub" }, "Reward "), node.why),
      this.prompt(node),
      el("pre", { class: "verbatim", dir: "auto", tabindex: 0, "aria-label": `${title}: text` }, node.text || "(empty)"),
      el(
        "dl",
        { class: "read" },
        read(node.children ? "Note passed on" : "Read as", node.note),
        node.answer !== null && read(node.children ? "Early answer" : "Answer", node.answer || "(empty)"),
        read("Grader", node.reason),
      ),
      el("p", { class: "sub" }, el("a", { href: this.link(node.key) }, "Link to this response")),
    ].filter(Boolean);
  }

  /** The prompt as the model saw it, with what is new in this round marked. */
  prompt(node) {
    const { prompts, question } = this.tree;
    const round = node.path.length;
    const told = (node.parent ?? this.tree).next;
    if (!prompts || !told) return null;
    const asked = prompts.asked[round - 1] ?? question.text;
    const piece = Boolean(question.pieces?.length);
    const fresh = (text, on) => text && (on ? el("mark", {}, text) : text);
    return el(
      "details",
      { class: "prompt", open: true },
      el("summary", {}, `Prompt${node.prompt_tokens === null ? "" : `, ${plural(node.prompt_tokens, "token")}`}`),
      prompts.system && [el("p", { class: "sub" }, "system"), el("pre", { class: "verbatim", dir: "auto", tabindex: 0, "aria-label": "System message" }, prompts.system)],
      el("p", { class: "sub" }, prompts.system ? "user" : "what the model saw", round > 1 && ", with what is new in this round marked"),
      el(
        "pre",
        { class: "verbatim", dir: "auto", tabindex: 0, "aria-label": "Prompt of this round" },
        fresh(asked, piece || round === 1),
        told.earlier,
        fresh(told.new, true),
      ),
      el("p", { class: "sub" }, "The model's chat template puts its own marks around these messages."),
    );
  }

  /** Buttons for the responses that continue the chosen one. */
  onward(node) {
    if (!node.children) return null;
    const button = (child, at) => {
      const [mark, word] = verdictOf(child);
      const says = child.children ? `${rateText([child])} right` : `${mark} ${plain(child.answer ?? "no answer").slice(0, 20)}`;
      return el("button", { type: "button", class: word, onclick: () => this.choose(child.key) }, `${at + 1}: ${says}`);
    };
    return el("div", { class: "onward" }, el("span", { class: "sub" }, `Round ${node.path.length + 1} continues with`), node.children.map(button));
  }
}

function byPath(one, other) {
  const [a, b] = [one, other].map((key) => key.split(".").map(Number));
  return a.map((part, at) => part - b[at]).find(Boolean) ?? 0;
}

/** A text in at most `most` lines of `width` letters, broken at blanks where there are any. */
function wrapped(text, width, most) {
  const lines = [""];
  for (const word of text.split(" ").flatMap((part) => part.match(new RegExp(`.{1,${Math.max(1, width)}}`, "gu")) ?? [])) {
    const line = lines[lines.length - 1];
    if (!line) lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  if (lines.length > most) lines[most - 1] = `${lines[most - 1].slice(0, Math.max(1, width - 1))}…`;
  return lines.slice(0, most);
}

/** What an answer is worth where it is neither right nor wrong, and the parts of its reward. */
function worthText(node) {
  const parts = Object.entries(node.parts ?? {}).map(([name, value]) => `${name} ${points(value)}`);
  const score = node.verdict === "partial" ? ` ${points(node.score)}` : "";
  return score + (parts.length ? ` (${parts.join(", ")})` : "");
}

function tags(node) {
  return [
    el("span", { class: node.well_formed ? "tag" : "tag bad" }, node.well_formed ? "well formed" : "✗ not well formed"),
    node.truncated && el("span", { class: "tag bad" }, "✂ cut off at the limit"),
    node.unused && el("span", { class: "tag" }, `answered ${plural(node.unused, "round")} early`),
    node.policy === "replayed" && el("span", { class: "tag" }, "a note from an earlier tree"),
    node.policy === "base" && el("span", { class: "tag" }, "by the base model"),
    node.tokens !== null && el("span", { class: "sub" }, plural(node.tokens, "token")),
    node.value !== null && node.children && el("span", { class: "sub" }, `value ${points(node.value)}`),
    node.reward !== null && el("span", { class: "sub" }, `reward ${points(node.reward)}`),
  ];
}

function advantageChip(advantage) {
  if (advantage === null) return el("span", { class: "advantage zero" }, "not trained");
  const sign = advantage > 0 ? "up" : advantage < 0 ? "down" : "zero";
  return el(
    "span",
    { class: `advantage ${sign}` },
    { up: "▲ ", down: "▼ ", zero: "" }[sign],
    "advantage ",
    el("b", {}, signed(advantage)),
  );
}
