"""The trees of a run: a light index of all, single trees on demand, and those that go into a saved page."""

from __future__ import annotations

import base64
import math
import statistics
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from motif.method.tree import Verdict, outcome_of
from motif.report.page import to_json
from motif.runs.disk import open_plain
from motif.runs.read import MAX_LINE, Record, Tail, number, parse, whole

BUDGET = 8_000_000  # characters of a saved page for its compressed trees, roughly
TEXT_LIMITS = (8_000, 2_000, 500)  # characters of a text in it; the shorter ones only where not one tree would fit
LIVE_LIMIT = 200_000  # characters of a text in a tree that is requested by itself
INDEX_TEXT = 400  # characters of a question in the index
MOST_WEIGHT = 1000  # trajectories that one early leaf counts for
MOST_UNUSED = 64  # rounds left out by an early answer that count
FEWEST_STEPS = 8  # a saved page drops questions of each step rather than show fewer steps
SAMPLE = 60  # trees that are compressed to estimate how well trees compress


class Forest:
    """The trees of a trees.jsonl that may still be growing.

    `heads` is the index, with an entry per tree. As long as `epoch` is the same, the index only gets longer; when
    trees in it are gone from the file, `epoch` changes.
    """

    def __init__(self, path: Path, explain: Callable[[Record], Record] = lambda tree: tree):
        """`explain` adds to each tree what the page shows beside what was recorded."""
        self.heads: list[Record] = []
        self.credit: list[tuple[list[float], list[float]]] = []  # rewards and advantages of the responses of each tree
        self._path, self._explain = path, explain
        self._offsets: list[int] = []
        self._tail = Tail(path)
        self._seen = 0  # the epoch of the file that is indexed
        self._cuts = 0

    @property
    def epoch(self) -> str:
        """The name of the index, the same as long as entries are only added."""
        return f"{self._seen}.{self._cuts}"

    def refresh(self) -> None:
        """Take in what was appended since the last time."""
        for offset, record in self._tail.records():
            self._forget_another_file()
            head = index_entry(record) if record else None
            if head is None:
                continue
            if self.heads and head["step"] < self.heads[-1]["step"]:
                # The run resumed from a checkpoint and grew the steps since then again.
                kept = [place for place, entry in enumerate(self.heads) if entry["step"] < head["step"]]
                self.heads = [self.heads[place] for place in kept]
                self.credit = [self.credit[place] for place in kept]
                self._offsets = [self._offsets[place] for place in kept]
                self._cuts += 1
            self.heads.append(head)
            responses = record["responses"] if record else []
            self.credit.append((numbers_of(responses, "reward"), numbers_of(responses, "advantage")))
            self._offsets.append(offset)
        self._forget_another_file()

    def tree(self, place: int, limit: int = LIVE_LIMIT) -> Record | None:
        """The tree at a place of the index, with texts cut to `limit` characters; None if there is none."""
        if not 0 <= place < len(self.heads):
            return None
        return next((tree for tree, _ in self._read([place], limit)), None)

    def containing(self, text: str) -> list[int]:
        """The places of the trees with a text in question, gold answer, responses, notes, answers or reasons."""
        wanted, places = text.casefold(), range(len(self.heads))
        trees = zip(places, self._read(places, LIVE_LIMIT), strict=False)
        return [place for place, (tree, _) in trees if any(wanted in part.casefold() for part in texts(tree))]

    def pack(self, budget: int = BUDGET) -> Record:
        """The trees of a saved page, compressed one by one, and their index.

        All trees if they fit into about `budget` characters; else those of evenly spaced steps, with the first and the
        last.
        """
        chosen: list[int] = []
        limit = TEXT_LIMITS[0]
        for limit in TEXT_LIMITS:
            chosen = choose(self._sizes(limit), budget)
            if chosen or not self.heads:
                break
        packed, cuts = [], 0
        for tree, cut in self._read(chosen, limit):
            packed.append(pack_tree(tree))
            cuts += cut
        heads = [self.heads[place] for place in chosen[: len(packed)]]
        return {
            "heads": heads,
            "packed": packed,
            "all_trees": len(self.heads),
            "steps": len({head["step"] for head in heads}),
            "all_steps": len({head["step"] for head in self.heads}),
            "text_limit": limit,
            "cut_texts": cuts,
        }

    def _sizes(self, limit: int) -> list[tuple[int, int]]:
        """The step of each tree, and its size when compressed, in characters, estimated from the length of its line."""
        ends = [*self._offsets[1:], self._tail.offset]
        lengths = [end - start for start, end in zip(self._offsets, ends, strict=False)]
        sample = spaced(len(lengths), min(SAMPLE, len(lengths)))
        packed = [len(pack_tree(tree)) for tree, _ in self._read(sample, limit)]
        share = sum(packed) / max(1, sum(lengths[place] for place in sample))
        return [(head["step"], round(length * share)) for head, length in zip(self.heads, lengths, strict=True)]

    def _read(self, places: Sequence[int], limit: int) -> Iterator[tuple[Record, int]]:
        """The trees at these places with long texts cut, each with the number of cuts."""
        try:
            file = open_plain(self._path)
        except OSError:
            return
        with file:
            for place in places:
                file.seek(self._offsets[place])
                cutter = Cutter(limit)
                tree = cutter.tree(parse(file.readline(MAX_LINE)) or {})
                if tree is None:  # the file was rewritten since the last refresh
                    return
                yield self._explain(tree), cutter.cuts

    def _forget_another_file(self) -> None:
        if self._seen != self._tail.epoch:
            self._seen, self.heads, self.credit, self._offsets = self._tail.epoch, [], [], []


def index_entry(record: Record) -> Record | None:
    """A tree as the list shows, filters and sorts it; None if the record is not a tree.

    `right`, `wrong`, `partial` (if any is) and `total` count leaves. `spread` is the standard deviation of the rewards
    of its first-round responses (of their outcome rates, where no rewards are recorded): 0 where all are alike, and
    nothing is learnt. `dropped`: not trained on (`rollout.refill`).
    """
    question, responses, step = record.get("question"), record.get("responses"), whole(record.get("step"))
    if step is None or not isinstance(question, dict) or not isinstance(responses, list):
        return None
    cut = Cutter(INDEX_TEXT).text
    groups = [[leaf.get("verdict") for leaf in leaves_below(response)] for response in responses]
    weighed = [
        [outcome for leaf in trajectories_below(response) if (outcome := worth(leaf)) is not None]
        for response in responses
    ]
    rates = [math.fsum(outcomes) / len(outcomes) for outcomes in weighed if outcomes]
    rewards, partial = numbers_of(responses, "reward"), sum(verdicts.count("partial") for verdicts in groups)
    more: Record = {"partial": partial} if partial else {}
    return (more | {"dropped": True} if record.get("dropped") is True else more) | {
        "step": step,
        "id": cut(question.get("id")),
        "text": cut(question.get("text")),
        "right": sum(verdicts.count("right") for verdicts in groups),
        "wrong": sum(verdicts.count("wrong") for verdicts in groups),
        "total": sum(map(len, groups)),
        "spread": number(statistics.pstdev(rewards or rates)) if rewards or rates else None,
    }


def numbers_of(nodes: list[Any], key: str) -> list[float]:
    """A number of each node, as far as it is recorded."""
    found = [number(node.get(key)) for node in nodes if isinstance(node, dict)]
    return [value for value in found if value is not None]


def leaves_below(node: Any) -> Iterator[Record]:
    """The final responses below a node (itself, if it has no children)."""
    if not isinstance(node, dict):
        return
    children = node.get("children")
    if not isinstance(children, list) or not children:
        yield node
        return
    for child in children:
        yield from leaves_below(child)


def trajectories_below(node: Any) -> Iterator[Record]:
    """The same, a leaf that ended early as often as there would have been trajectories below it; none counts
    for more than `MOST_WEIGHT`."""
    for leaf in leaves_below(node):
        yield from [leaf] * min(MOST_WEIGHT, math.prod(unused_rounds(leaf)))


def unused_rounds(leaf: Record) -> list[int]:
    """The branching of the rounds that a leaf left out, because it gave the answer early."""
    unused = leaf.get("unused")
    return [max(1, whole(forks) or 1) for forks in unused[:MOST_UNUSED]] if isinstance(unused, list) else []


def worth(leaf: Record) -> float | None:
    """What a recorded final response is worth, from 0 to 1; None: it is not graded."""
    verdict = leaf.get("verdict")
    outcome = outcome_of(verdict if isinstance(verdict, str) else None, number(leaf.get("score")))
    return None if outcome is None else min(1.0, max(0.0, outcome))


def texts(tree: Record) -> Iterator[str]:
    """Every text of a tree."""
    question = tree["question"]
    yield from (question[key] for key in ("id", "text", "gold"))
    yield from question.get("pieces", ())
    nodes = list(tree["responses"])
    while nodes:
        node = nodes.pop()
        yield from (text for key in ("text", "note", "answer", "reason") if (text := node.get(key)))
        nodes += node.get("children", ())


def pack_tree(tree: Record) -> str:
    """A tree as compressed JSON in base64, which the page inflates when the tree is opened."""
    return base64.b64encode(zlib.compress(to_json(tree).encode("utf-8", errors="replace"), 6)).decode()


def choose(sizes: list[tuple[int, int]], budget: int) -> list[int]:
    """Indices of the (step, size) entries to keep: as many evenly spaced steps as fit, whole steps if possible."""
    by_step: dict[int, list[int]] = {}
    for index, (step, _) in enumerate(sizes):
        by_step.setdefault(step, []).append(index)
    steps = list(by_step.values())
    if not steps:
        return []
    fewest = min(len(steps), FEWEST_STEPS)

    def whole_steps(count: int) -> list[int]:
        return [index for place in spaced(len(steps), count) for index in steps[place]]

    def too_large(count: int) -> bool:
        return sum(sizes[index][1] for index in whole_steps(count)) > budget

    count = bisect_left(range(fewest, len(steps) + 1), True, key=too_large) + fewest - 1
    if count >= fewest:
        return whole_steps(count)
    chosen = []
    for place in spaced(len(steps), fewest):
        left = budget // fewest
        for index in steps[place]:
            if sizes[index][1] <= left:
                chosen.append(index)
                left -= sizes[index][1]
    return chosen


def spaced(total: int, count: int) -> list[int]:
    """`count` evenly spaced places out of `total`, both ends included."""
    if count == 0:
        return []
    if count == 1:
        return [total - 1]
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]


class Cutter:
    """Copies tree records, with known keys and types only and long texts cut; counts the cuts."""

    def __init__(self, limit: int):
        self.limit = limit
        self.cuts = 0

    def tree(self, record: dict[str, Any]) -> Record | None:
        """A record as the page needs it; None if it is not a tree."""
        question, responses = record.get("question"), record.get("responses")
        step = whole(record.get("step"))
        if step is None or not isinstance(question, dict) or not isinstance(responses, list):
            return None
        return {
            "step": step,
            "question": self._question(question),
            "responses": self._nodes(responses),
        } | ({"dropped": True} if record.get("dropped") is True else {})

    def _question(self, question: Record) -> Record:
        copy: Record = {key: self.text(question.get(key)) for key in ("id", "text", "gold")}
        if rounds := whole(question.get("rounds")):
            copy["rounds"] = rounds
        if isinstance(pieces := question.get("pieces"), list) and pieces:
            copy["pieces"] = [self.text(piece) for piece in pieces]
        return copy

    def text(self, value: Any) -> str:
        """A text; of a long one the beginning and the end, where the note and the answer are."""
        text = value if isinstance(value, str) else "" if value is None else str(value)
        if len(text) <= self.limit:
            return text
        self.cuts += 1
        tail = self.limit // 4
        return f"{text[: self.limit - tail]}\n[… {len(text) - self.limit:,} characters left out here …]\n{text[-tail:]}"

    def _nodes(self, nodes: Any) -> list[Record]:
        return [self._node(node) for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []

    def _node(self, node: Record) -> Record:
        copy: Record = {
            "text": self.text(node.get("text")),
            "note": self.text(node.get("note")),
            "answer": None if node.get("answer") is None else self.text(node["answer"]),
            "truncated": node.get("truncated") is True,
            "well_formed": node.get("well_formed") is True,
        }
        copy |= {key: number(node.get(key)) for key in ("tokens", "prompt_tokens", "value", "reward", "advantage")}
        if node.get("policy"):
            copy["policy"] = self.text(node["policy"])
        if node.get("verdict") in get_args(Verdict):
            copy |= {"verdict": node["verdict"], "reason": self.text(node.get("reason"))}
            if node["verdict"] == "partial":
                copy["score"] = worth(node)
            if isinstance(parts := node.get("parts"), dict):
                copy["parts"] = {self.text(name): number(value) for name, value in parts.items()}
        if unused := unused_rounds(node):
            copy["unused"] = len(unused)
        if children := self._nodes(node.get("children")):
            copy["children"] = children
        return copy
