// One tree: its question, its drawing, and a card for every first-round response.

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

const VERDICTS = { right: ["✓", "right"], wrong: ["✗", "wrong"], ungraded: ["?", "ungraded"] };
const verdictOf = (node) => VERDICTS[node.verdict] ?? ["·", "no verdict"];

/** The parts of a tree's drawing, with `actions` below the question; `narrow` for a small width. */
function drawTree(tree, actions, narrow) {
  const cards = tree.responses.map((response, index) => responseCard(response, index, tree.question.pieces ?? []));
  const open = (index, trajectory) => {
    cards[index].open = true;
    fillCard(cards[index]);
    const part = trajectory === undefined ? null : cards[index].querySelectorAll(".trajectory")[trajectory];
    if (part) part.open = true;
    (part ?? cards[index]).scrollIntoView({ block: "nearest" });
    (part ?? cards[index]).querySelector("summary").focus();
  };
  const rounds = Math.max(1, ...tree.responses.map(depth));
  return [
    el(
      "div",
      { class: "question" },
      el(
        "div",
        { class: "sub" },
        `step ${grouped(tree.step)} · question ${tree.question.id || NONE} · `,
        `${rateText(tree.responses)} trajectories right`,
      ),
      el("p", { class: "verbatim", dir: "auto" }, tree.question.text),
      el(
        "p",
        { class: "gold" },
        "Gold answer ",
        el("b", { class: "verbatim", dir: "auto" }, tree.question.gold || NONE),
      ),
      actions,
    ),
    diagram(tree, rounds, open, narrow),
    el(
      "ol",
      { class: "cards" },
      cards.map((card) => el("li", {}, card)),
    ),
  ];
}

const depth = (node) => 1 + Math.max(0, ...(node.children ?? []).map(depth));

/** The tree as a drawing: rounds from left to right, a mark with the verdict at the end of every trajectory. */
function diagram(tree, rounds, open, narrow) {
  const leaves = tree.responses.flatMap(leavesOf);
  if (!leaves.length || leaves.length > 400)
    return el(
      "p",
      { class: "missing" },
      leaves.length ? "Too many trajectories to draw." : "This tree has no responses.",
    );
  const row = leaves.length > 80 ? 10 : 17;
  const left = 14,
    first = narrow ? 50 : 76,
    stub = rounds > 1 ? 90 : 0,
    gap = narrow ? 46 : 84;
  const columnX = (level) =>
    level === 0 ? first : first + stub + (level - 1) * gap + (rounds > 1 ? gap : 0);
  const width = columnX(rounds - 1) + (narrow ? 90 : 130),
    height = leaves.length * row + 34;
  const drawing = svg("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "group",
    "aria-label": `Tree of ${plural(tree.responses.length, "response")} and ${plural(leaves.length, "trajectory", "trajectories")} over ${plural(rounds, "round")}`,
  });
  for (let level = 0; level < rounds; level++) {
    drawing.append(
      svg(
        "text",
        { x: columnX(level), y: 12, "text-anchor": "middle", class: "head" },
        narrow && level ? level + 1 : `round ${level + 1}`,
      ),
    );
  }
  const edges = svg("g", { class: "edges" });
  drawing.append(edges);
  let nextRow = 0;
  const place = (node, level, root) => {
    const x = columnX(level);
    if (!node.children) {
      const y = 30 + nextRow * row,
        trajectory = root.seen++;
      nextRow += 1;
      const [mark, word] = verdictOf(node);
      const leaf = svg(
        "g",
        { class: `leaf ${word}`, transform: `translate(${x} ${y})` },
        svg("circle", { r: row > 12 ? 7 : 4.5 }),
        row > 12 && svg("text", { y: 4, "text-anchor": "middle", "aria-hidden": "true" }, mark),
        row > 12 &&
          rounds > 1 &&
          svg("text", { x: 14, y: 4, class: "answer" }, (node.answer ?? "no answer").slice(0, 16)),
        svg(
          "title",
          {},
          `${word}${node.answer === null ? ", no answer" : `, answer ${node.answer.slice(0, 80)}`}${node.truncated ? ", cut off" : ""}`,
        ),
      );
      if (rounds > 1) leaf.addEventListener("click", () => open(root.index, trajectory));
      drawing.append(leaf);
      return { x, y };
    }
    const below = node.children.map((child) => place(child, level + 1, root));
    const y = (below[0].y + below[below.length - 1].y) / 2;
    const start = level === 0 ? x + stub : x;
    if (start > x) edges.append(svg("path", { d: `M${x} ${y}H${start}` }));
    for (const child of below) edges.append(curve(start, y, child.x, child.y));
    if (level > 0) {
      drawing.append(
        svg(
          "circle",
          { cx: x, cy: y, r: 3.5, class: "inner" },
          svg(
            "title",
            {},
            `value ${points(node.value)}${node.advantage === null ? "" : `, advantage ${signed(node.advantage)}`}`,
          ),
        ),
      );
    }
    return { x, y };
  };
  const middle = 30 + ((leaves.length - 1) * row) / 2;
  tree.responses.forEach((response, index) => {
    const { x, y } = place(response, 0, { index, seen: 0 });
    edges.prepend(curve(left, middle, x, y));
    const advantage = response.advantage === null ? "" : ` ${signed(response.advantage)}`;
    const label = response.children ? `${rateText([response])}${advantage}` : advantage;
    const node = svg(
      "g",
      {
        class: "root",
        tabindex: 0,
        role: "button",
        "aria-label": `Open response ${index + 1}: ${rateText([response])} right, advantage ${advantage || "none"}`,
      },
      response.children && svg("circle", { cx: x, cy: y, r: 8, class: "inner" }),
      svg("circle", { cx: x, cy: y, r: 11, class: "ring" }),
      response.children &&
        svg("text", { x, y: y + 3.5, "text-anchor": "middle", class: "number" }, index + 1),
      row > 12 && svg("text", { x: x + 14, y: y - 4, class: "rate" }, label),
    );
    node.addEventListener("click", () => open(index));
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      open(index);
    });
    drawing.append(node);
  });
  drawing.append(
    svg("circle", { cx: left, cy: middle, r: 6, class: "inner" }, svg("title", {}, "the question")),
  );
  return el(
    "div",
    { class: "diagram" },
    drawing,
    el(
      "p",
      { class: "sub" },
      "✓ right  ✗ wrong  ? ungraded. At each response: how many of its trajectories are right, and its advantage; at each end, the answer given.",
    ),
  );
}

function curve(x0, y0, x1, y1) {
  const middle = (x0 + x1) / 2;
  return svg("path", { d: `M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}` });
}

// -- responses --------------------------------------------------------------------------------------------

function responseCard(response, index, pieces) {
  const { right, wrong, total } = outcome([response]);
  const pips = leavesOf(response).map((leaf) => el("i", { class: `pip ${verdictOf(leaf)[1]}` }));
  const card = el(
    "details",
    { class: "response" },
    el(
      "summary",
      {},
      el(
        "span",
        { class: "line" },
        el("b", {}, `Response ${index + 1}`),
        el(
          "span",
          { class: "rate" },
          el("span", { class: "pips", "aria-hidden": "true" }, total <= 16 && pips),
          ` ${right}/${total} right`,
          right + wrong < total && `, ${total - right - wrong} ungraded`,
        ),
        response.value !== null && el("span", {}, "value ", el("b", {}, points(response.value))),
        el("span", {}, "reward ", el("b", {}, points(response.reward))),
        advantageChip(response.advantage),
      ),
      el("span", { class: "line" }, tags(response)),
      el(
        "span",
        { class: "note verbatim", dir: "auto" },
        el("span", { class: "sub" }, "Note "),
        response.note || "(empty)",
      ),
    ),
  );
  card.response = response;
  card.pieces = pieces;
  card.addEventListener("toggle", () => card.open && fillCard(card));
  return card;
}

/** Fills a card when it is first opened, so that a page of closed cards stays light. */
function fillCard(card) {
  if (card.querySelector(".inside")) return;
  const { response, pieces } = card;
  const inside = el("div", { class: "inside" }, part("Round 1, full response", response, false, pieces[0]));
  if (response.children) {
    const paths = response.children.flatMap((child) => pathsBelow(child));
    paths.forEach((path, index) => {
      const leaf = path[path.length - 1];
      const [mark, word] = verdictOf(leaf);
      inside.append(
        el(
          "details",
          { class: `trajectory ${word}` },
          el(
            "summary",
            {},
            el("b", {}, `Trajectory ${index + 1}`),
            " ",
            el("span", { class: `verdict ${word}` }, `${mark} ${word}`),
            " ",
            el(
              "span",
              { class: "sub" },
              "answer ",
              el("span", { class: "verbatim", dir: "auto" }, leaf.answer ?? "none given"),
            ),
          ),
          path.map((node, at) => part(`Round ${at + 2}`, node, true, pieces[at + 1])),
        ),
      );
    });
  }
  card.append(inside);
}

const pathsBelow = (node) =>
  node.children ? node.children.flatMap(pathsBelow).map((path) => [node, ...path]) : [[node]];

/** One response in full: its facts, the piece of a text that it read, its text, and what was read from it. */
function part(title, node, withAdvantage = true, piece = undefined) {
  const [mark, word] = verdictOf(node);
  return el(
    "section",
    { class: "part" },
    el(
      "div",
      { class: "line" },
      el("b", {}, title),
      tags(node),
      node.verdict && el("span", { class: `verdict ${word}` }, `${mark} ${word}`),
      withAdvantage && node.value !== null && el("span", { class: "sub" }, `value ${points(node.value)}`),
      withAdvantage && node.advantage !== null && advantageChip(node.advantage),
    ),
    piece !== undefined &&
      el("dl", { class: "read" }, el("dt", {}, "Piece shown"), el("dd", { class: "verbatim", dir: "auto" }, piece)),
    el(
      "pre",
      { class: "verbatim", dir: "auto", tabindex: 0, "aria-label": `${title}: text` },
      node.text || "(empty)",
    ),
    el(
      "dl",
      { class: "read" },
      node.note && [
        el("dt", {}, node.children ? "Note passed on" : "Read as"),
        el("dd", { class: "verbatim", dir: "auto" }, node.note),
      ],
      node.answer !== null && [
        el("dt", {}, node.children ? "Early answer" : "Answer"),
        el("dd", { class: "verbatim", dir: "auto" }, node.answer),
      ],
      node.reason && [el("dt", {}, "Grader"), el("dd", { class: "verbatim", dir: "auto" }, node.reason)],
    ),
  );
}

function tags(node) {
  return [
    el(
      "span",
      { class: node.well_formed ? "tag" : "tag bad" },
      node.well_formed ? "well formed" : "✗ not well formed",
    ),
    node.truncated && el("span", { class: "tag bad" }, "✂ cut off at the limit"),
    node.unused && el("span", { class: "tag" }, `answered ${plural(node.unused, "round")} early`),
    node.policy && el("span", { class: "tag" }, `by the ${node.policy} model`),
    node.tokens !== null &&
      el(
        "span",
        { class: "sub" },
        plural(node.tokens, "token"),
        node.prompt_tokens !== null && ` after a prompt of ${grouped(node.prompt_tokens)}`,
      ),
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
