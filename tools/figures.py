"""Draws the figures of docs/method.md and README.md from the data beside them, as SVG without any library.

    python tools/figures.py [--check]        # --check changes nothing; exit status 1 if a figure differs from its data
    python tools/figures.py --grow           # grows the tree of the first figures again (docs/figures/tree.json)
    python tools/figures.py --collect RUNS   # takes the curves from RUNS/ARM/seed-0, as `motif compare` leaves them

The curves of docs/figures/runs.json are those of

    motif compare studies/sample_efficiency/study.toml --arms single,long-8,paper,recommended --seeds 0 --out RUNS
"""

from __future__ import annotations

import argparse
import html
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
ARMS = {
    "recommended": "all rounds trained, [4, 2, 1]",
    "long-8": "one window of 87 tokens, [8]",
    "paper": "MOTIF, round 1 trained, [8, 4, 1]",
    "single": "one window of 29 tokens, [8]",
}
STYLE = """
text{font-family:ui-sans-serif,system-ui,sans-serif;font-size:13px;fill:#1d2024}
.small{font-size:11px}.soft{fill:#5b616a}.bold{font-weight:600}
.mono{font-family:ui-monospace,Menlo,Consolas,monospace}
.paper{fill:#fcfbf9}.card{fill:#fff;stroke:#c9c5bd}.good{fill:#e6f1f1;stroke:#0b6a70}.bad{fill:#faeee6;stroke:#9c3d12}
.rule{stroke:#e4e1db}.edge{stroke:#8a8f97;fill:none}.line{fill:none;stroke-width:2}
.l0{stroke:#0b6a70}.l1{stroke:#c44e00}.l2{stroke:#a34a80}.l3{stroke:#7a6400}
@media (prefers-color-scheme:dark){text{fill:#e9e7e3}.soft{fill:#a4a8af}.paper{fill:#15171a}
.card{fill:#1c1f23;stroke:#4a4f57}.good{fill:#1a3234;stroke:#63c3c6}.bad{fill:#38261c;stroke:#f0a077}
.rule{stroke:#30343a}.l0{stroke:#63c3c6}.l1{stroke:#f5a623}.l2{stroke:#e39cc3}.l3{stroke:#f0e442}}
""".strip().replace("\n", "")
Lines = Iterator[str]


def svg(width: int, height: int, about: str, parts: Iterator[str] | Sequence[str]) -> str:
    """A picture; `about` says what it shows to those who do not see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"><title>{html.escape(about)}'
    )
    return f'{head}</title><style>{STYLE}</style><rect class="paper" width="100%" height="100%" rx="8"/>' + (
        "\n".join(["", *parts]) + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text."""
    place = f'x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}" xml:space="preserve"'
    return f"<text {place}>{html.escape(words)}</text>"


def box(x: float, y: float, width: float, height: float, kind: str = "card") -> str:
    """A rectangle with round corners."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{kind}"/>'


def edge(x: float, y: float, to_x: float, to_y: float) -> str:
    """A curve from a node to the next."""
    middle = (x + to_x) / 2
    return f'<path class="edge" d="M{x:g} {y:g}C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}"/>'


def signed(value: float) -> str:
    """With a true minus."""
    return f"{value:+.2f}".replace("-", "−")


# -- the tree ----------------------------------------------------------------------------------------------------------


def tree_figure(tree: dict[str, Any]) -> Lines:
    """A question, its responses with their notes, and what became of them."""
    columns = (20, 170, 420, 620)  # question, rounds 1 to 3
    heads = ("question", "round 1: response and note", "round 2: note", "round 3: answer")
    for x, head in zip(columns, heads, strict=True):
        yield text(x, 26, head, "small soft")
    leaves = [leaf for root in tree["responses"] for child in root["children"] for leaf in child["children"]]
    gap = 46
    middle = 40 + gap * len(leaves) / 2
    yield box(20, middle - 20, 118, 40)
    yield text(79, middle + 5, tree["question"]["text"], "bold", "middle")
    y = 40.0
    for root in tree["responses"]:
        span = gap * len(root["children"])
        centre = y + span / 2
        kind = "good" if (root["advantage"] or 0) > 0 else "bad" if (root["advantage"] or 0) < 0 else "card"
        yield edge(138, middle, 170, centre)
        yield box(170, centre - 24, 200, 48, kind)
        yield text(180, centre - 5, f"“{root['note']}”", "mono")
        reward = f"reward {root['reward']:.2f}   advantage {signed(root['advantage'] or 0)}"
        yield text(180, centre + 14, reward, "small")
        for number, child in enumerate(root["children"]):
            row = y + gap * (number + 0.5)
            [leaf] = child["children"]
            right = leaf["verdict"] == "right"
            yield edge(370, centre, 420, row)
            yield box(420, row - 15, 160, 30)
            yield text(430, row + 5, f"“{child['note']}”", "mono")
            yield edge(580, row, 620, row)
            yield box(620, row - 15, 150, 30, "good" if right else "bad")
            yield text(630, row + 5, f"{leaf['answer'] or 'no answer'}  {'✓ right' if right else '✗ wrong'}", "mono")
        y += span


# -- one step ----------------------------------------------------------------------------------------------------------


def step_figure(tree: dict[str, Any]) -> Lines:
    """The four parts of a step, with the numbers of the tree."""
    roots = tree["responses"]
    values = ", ".join(f"{root['value']:.2f}" for root in roots)
    rewards = ", ".join(f"{root['reward']:.2f}" for root in roots)
    advantages = ", ".join(signed(root["advantage"] or 0) for root in roots)
    mean = statistics.fmean(root["reward"] for root in roots)
    count = len(roots)
    nodes = sum(1 + 2 * len(root["children"]) for root in roots)
    parts = {
        "1  grow": f"""m = {count} responses to the question,
k = {len(roots[0]["children"])} trajectories of each,
n = 3 rounds:
{nodes} responses in all""",
        "2  grade": f"""Only final answers are graded.
Value of a response: the share
of its trajectories that end right:
{values}""",
        "3  credit": f"""Reward: value + 0.2 for the form:
{rewards}
Advantage: (reward − {mean:.2f}) / std:
{advantages}""",
        "4  update": """Tokens of a response with a
positive advantage become more
likely, the others less likely.
The next step has new trees.""",
    }
    for number, (title, lines) in enumerate(parts.items()):
        x = 20 + number * 240
        yield box(x, 20, 218, 126)
        yield text(x + 12, 46, title, "bold")
        for place, line in enumerate(lines.splitlines()):
            yield text(x + 12, 70 + 19 * place, line, "small")
        if number:
            yield edge(x - 22, 83, x, 83)


# -- the algorithm -----------------------------------------------------------------------------------------------------

ALGORITHM = """
for each training step:
    for each question q of the step:
        sample m responses o_1 … o_m to q                  # round 1, one window
        for each response o_i, k times:                    # its trajectories
            for rounds t = 2 … n:
                show q and the note of round t − 1, and nothing else
                sample the response of round t
            grade the answer in the last response          # right 1, wrong 0
        value  v_i = mean outcome of the trajectories of o_i
        reward r_i = v_i + w · [o_i keeps to the form]
        advantage A_i = (r_i − mean r) / std r             # over the m siblings
        all rounds trained: the same for every node below, among its own siblings
    one step on the clipped objective, every token of a response weighted by its A
""".strip("\n").splitlines()


def algorithm_figure() -> Lines:
    """The method as a program."""
    for number, line in enumerate(ALGORITHM):
        code, mark, remark = line.partition("#")
        y = 34 + 21 * number
        yield text(20, y, code.rstrip(), "mono small")
        if mark:
            yield text(440, y, remark.strip(), "small soft")


# -- curves ------------------------------------------------------------------------------------------------------------


def smooth(values: Sequence[float | None], width: int = 7) -> list[float | None]:
    """Running means over the steps around each, of those that have a value."""
    near = [
        [value for value in values[max(0, at - width // 2) : at + width // 2 + 1] if value is not None]
        for at in range(len(values))
    ]
    return [statistics.fmean(some) if some else None for some in near]


def chart(
    x: float, title: str, unit: str, series: Sequence[tuple[str, str, Sequence[float | None]]], most: float, ticks: int
) -> Lines:
    """Lines over training steps: label, class, a value a step."""
    left, top, width, height = x + 46, 52, 300, 190
    yield text(x + 8, 28, title, "bold")
    for tick in range(ticks + 1):
        y = top + height * (1 - tick / ticks)
        yield f'<path class="rule" d="M{left:g} {y:g}h{width}"/>'
        yield text(left - 6, y + 4, f"{most * tick / ticks:g}{unit}", "small soft", "end")
    steps = max(len(values) for _, _, values in series)
    for step in (1, steps // 2, steps):
        at = left + width * (step - 1) / (steps - 1)
        yield text(at, top + height + 18, f"step {step}" if step == 1 else str(step), "small soft", "middle")
    for number, (label, kind, values) in enumerate(series):
        points = [
            f"{left + width * at / (steps - 1):.1f} {top + height * (1 - value / most):.1f}"
            for at, value in enumerate(smooth(values))
            if value is not None
        ]
        yield f'<path class="line l{kind}" d="M{"L".join(points)}"/>'
        y = top + height + 42 + 18 * number
        yield f'<path class="line l{kind}" d="M{left:g} {y - 4:g}h18"/>'
        yield text(left + 26, y, label, "small")


def rewards_figure(runs: dict[str, Any]) -> Lines:
    """How often final answers were right in training, arm by arm."""
    yield from chart(
        0,
        "Trajectories that end right, in training",
        " %",
        [
            (label, str(number), [100 * value for value in runs[arm]["outcome/mean"]])
            for number, (arm, label) in enumerate(ARMS.items())
        ],
        100,
        4,
    )


def lengths_figure(runs: dict[str, Any]) -> Lines:
    """Tokens of a response, round by round."""
    found = [(f"length/round_{number}", f"round {number}") for number in (1, 2, 3)]
    for place, arm in enumerate(("recommended", "paper")):
        series = [(label, str(number), runs[arm][key]) for number, (key, label) in enumerate(found)]
        yield from chart(380 * place, f"Tokens of a response: {arm}", "", series, 30, 3)


# -- the terminal ------------------------------------------------------------------------------------------------------

SHOWN, LINE, COLUMNS, SECONDS = 24, 18, 100, 24
PAUSE = 2.0
"""The longest wait between two lines that is shown, as a multiple of the mean one."""


def terminal_figure(lines: Sequence[tuple[float, str]]) -> Lines:
    """Lines as they came, in `SECONDS` altogether: the last is always at the bottom. It stands still for a while."""
    waits = [at - before for (at, _), (before, _) in zip(lines, [(0.0, ""), *lines], strict=False)]
    most = PAUSE * statistics.fmean(waits)
    sums = list(itertools.accumulate(min(wait, most) for wait in waits))
    moments = [0.85 * at / sums[-1] for at in sums]
    places = [f"0 {LINE * (SHOWN - count)}" for count in range(1, len(lines) + 1)]
    times = ";".join(f"{moment:.4f}" for moment in [0.0, *moments[1:]])
    yield f'<clipPath id="screen"><rect x="0" y="12" width="100%" height="{SHOWN * LINE}"/></clipPath>'
    yield f'<g clip-path="url(#screen)"><g transform="translate({places[-1]})">'
    yield (
        f'<animateTransform attributeName="transform" type="translate" calcMode="discrete" dur="{SECONDS}s" '
        f'repeatCount="indefinite" keyTimes="{times}" values="{";".join(places)}"/>'
    )
    for number, (_, line) in enumerate(lines):
        yield text(14, 25 + LINE * number, line[:COLUMNS], "mono small")
    yield "</g></g>"


# -- data --------------------------------------------------------------------------------------------------------------


def grow() -> None:
    """Grow one tree with the embedded model as it ships, and keep its record."""
    import motif
    from motif.grading.beside import grading_beside
    from motif.method.credit import assign

    recipe = motif.load_recipe("demo")
    session = motif.open_session(recipe)
    shape = recipe.rollout.model_copy(update={"branching": [4, 2, 1]})
    with grading_beside(session.grader) as on_leaf:
        trees = motif.grow(session.task.train[:8], session.sampler, session.rounds, shape, seed=3, on_leaf=on_leaf)
    session.close()
    for tree in trees:
        assign(tree, recipe.credit)
    spread = max(trees, key=lambda tree: len({root.value for root in tree.roots}))
    (FIGURES / "tree.json").write_text(json.dumps(spread.to_dict(), indent=1, ensure_ascii=False) + "\n")


KEPT = ("reward", "outcome/mean", "length/round_1", "length/round_2", "length/round_3")


def collect(folder: Path) -> None:
    """Keep the curves of the arms' runs of seed 0."""
    runs = {}
    for arm in ARMS:
        lines = (folder / arm / "seed-0" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [record for record in map(json.loads, lines) if "outcome/mean" in record]
        runs[arm] = {key: [_short(step[key]) for step in steps] for key in KEPT if key in steps[0]}
    (FIGURES / "runs.json").write_text(json.dumps(runs, indent=None, separators=(",", ":")) + "\n")


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def load(name: str) -> Any:
    """The data of a figure."""
    return json.loads((FIGURES / name).read_text(encoding="utf-8"))


def figures() -> dict[str, Callable[[], str]]:
    """Every figure by its file."""
    leaves = sum(len(root["children"]) for root in load("tree.json")["responses"])
    return {
        "tree.svg": lambda: svg(
            790,
            60 + 46 * leaves,
            "A tree of responses, with notes, rewards and advantages",
            tree_figure(load("tree.json")),
        ),
        "step.svg": lambda: svg(980, 166, "One training step", step_figure(load("tree.json"))),
        "rewards.svg": lambda: svg(400, 360, "Trajectories that end right, by step", rewards_figure(load("runs.json"))),
        "lengths.svg": lambda: svg(780, 342, "Tokens of a response, by round", lengths_figure(load("runs.json"))),
        "terminal.svg": lambda: svg(
            720, 24 + SHOWN * LINE, "motif train demo, in the terminal", terminal_figure(load("terminal.json"))
        ),
        "algorithm.svg": lambda: svg(690, 34 + 21 * len(ALGORITHM), "The algorithm", algorithm_figure()),
    }


def stale() -> list[str]:
    """The figures that are not as their data make them."""
    files = {name: FIGURES / name for name in figures()}
    return [
        name
        for name, draw in figures().items()
        if not files[name].is_file() or files[name].read_text(encoding="utf-8") != draw()
    ]


def main() -> None:
    """Draw, check, or make the data again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--collect", type=Path, metavar="RUNS")
    options = parser.parse_args()
    if options.grow:
        grow()
    if options.collect:
        collect(options.collect)
    old = stale()
    for name in [] if options.check else old:
        (FIGURES / name).write_text(figures()[name](), encoding="utf-8")
    print(*old, sep="\n")
    if old and options.check:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
