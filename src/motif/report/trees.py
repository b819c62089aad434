"""The trees of a run: a light index of all of them, single ones on demand, and those that a saved page takes along."""

from __future__ import annotations

import base64
import statistics
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from motif.report.page import to_json
from motif.runs.read import Record, Tail, number, parse, whole

BUDGET = 8_000_000  # characters of a saved page that trees may take, compressed; roughly kept
TEXT_LIMITS = (8_000, 2_000, 500)  # characters of a text there; the shorter ones only where not one tree would fit
LIVE_LIMIT = 200_000  # characters of a text of a tree asked for by itself
INDEX_TEXT = 400  # characters of a question in the index
FEWEST_STEPS = 8  # below this, rather show fewer questions of each step
SAMPLE = 60  # trees compressed to learn how far trees can be


class Forest:
    """The trees of a trees.jsonl that may still be growing.

    `heads` is the index, a line per tree. `epoch` changes whenever trees that were in it are no longer there; until
    then it only gets longer.
    """

    def __init__(self, path: Path):
        self.heads: list[Record] = []
        self._path = path
        self._offsets: list[int] = []
        self._tail = Tail(path)
        self._seen = 0  # epoch of the file that the index is of
        self._cuts = 0

    @property
    def epoch(self) -> str:
        """The name of the index as long as it is only added to."""
        return f"{self._seen}.{self._cuts}"

    def refresh(self) -> None:
        """Take in what was appended since the last time."""
        for offset, record in self._tail.records():
            self._forget_another_file()
            head = index_entry(record) if record else None
            if head is None:
                continue
            if self.heads and head["step"] < self.heads[-1]["step"]:
                # Resumed from a checkpoint: the steps since then were grown again.
                kept = [place for place, known in enumerate(self.heads) if known["step"] < head["step"]]
                self.heads = [self.heads[place] for place in kept]
                self._offsets = [self._offsets[place] for place in kept]
                self._cuts += 1
            self.heads.append(head)
            self._offsets.append(offset)
        self._forget_another_file()

    def tree(self, place: int, limit: int = LIVE_LIMIT) -> Record | None:
        """The tree at a place of the index, texts cut to `limit` characters; None where there is none."""
        if not 0 <= place < len(self.heads):
            return None
        return next((tree for tree, _ in self._read([place], limit)), None)

    def containing(self, text: str) -> list[int]:
        """The places of the trees that hold a text in question, gold answer, responses, notes, answers or reasons."""
        wanted, places = text.casefold(), range(len(self.heads))
        trees = zip(places, self._read(places, LIVE_LIMIT), strict=False)
        return [place for place, (tree, _) in trees if any(wanted in found.casefold() for found in texts(tree))]

    def pack(self, budget: int = BUDGET) -> Record:
        """The trees for a saved page, compressed one by one, and the index of just these.

        All of them if they fit into about `budget` characters; else those of evenly spaced steps, first and last
        included.
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
        """Step of every tree, and its characters when compressed as the length of its line lets expect."""
        ends = [*self._offsets[1:], self._tail.offset]
        lengths = [end - start for start, end in zip(self._offsets, ends, strict=False)]
        sample = spaced(len(lengths), min(SAMPLE, len(lengths)))
        packed = [len(pack_tree(tree)) for tree, _ in self._read(sample, limit)]
        share = sum(packed) / max(1, sum(lengths[place] for place in sample))
        return [(head["step"], round(length * share)) for head, length in zip(self.heads, lengths, strict=True)]

    def _read(self, places: Sequence[int], limit: int) -> Iterator[tuple[Record, int]]:
        """The trees at these places with long texts cut, and how many texts were."""
        try:
            file = self._path.open("rb")
        except OSError:
            return
        with file:
            for place in places:
                file.seek(self._offsets[place])
                cutter = Cutter(limit)
                tree = cutter.tree(parse(file.readline()) or {})
                if tree is None:  # the file was written anew since the last look
                    return
                yield tree, cutter.cuts

    def _forget_another_file(self) -> None:
        if self._seen != self._tail.epoch:
            self._seen, self.heads, self._offsets = self._tail.epoch, [], []


def index_entry(record: Record) -> Record | None:
    """What the list shows of a tree, and filters and sorts by; None if the record is not one.

    `right`, `wrong` and `total` count leaves. `spread` is the variance of the values of its first-round responses, by
    which their advantages differ: 0 where all are alike, at most 0.25.
    """
    question, responses, step = record.get("question"), record.get("responses"), whole(record.get("step"))
    if step is None or not isinstance(question, dict) or not isinstance(responses, list):
        return None
    cut = Cutter(INDEX_TEXT).text
    groups = [[leaf.get("verdict") for leaf in leaves_below(response)] for response in responses]
    rates = [rate for verdicts in groups if (rate := outcome_rate(verdicts)) is not None]
    return {
        "step": step,
        "id": cut(question.get("id")),
        "text": cut(question.get("text")),
        "right": sum(verdicts.count("right") for verdicts in groups),
        "wrong": sum(verdicts.count("wrong") for verdicts in groups),
        "total": sum(map(len, groups)),
        "spread": number(statistics.pvariance(rates)) if rates else None,
    }


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


def outcome_rate(verdicts: Sequence[Any]) -> float | None:
    """The fraction right of those that were graded; None if none was."""
    right, wrong = verdicts.count("right"), verdicts.count("wrong")
    return right / (right + wrong) if right + wrong else None


def texts(tree: Record) -> Iterator[str]:
    """Every text of a tree."""
    yield from tree["question"].values()
    nodes = list(tree["responses"])
    while nodes:
        node = nodes.pop()
        yield from (text for key in ("text", "note", "answer", "reason") if (text := node.get(key)))
        nodes += node.get("children", ())


def pack_tree(tree: Record) -> str:
    """A tree as compressed JSON in base64, which the page inflates when it is opened."""
    return base64.b64encode(zlib.compress(to_json(tree).encode("utf-8", errors="replace"), 6)).decode()


def choose(sizes: list[tuple[int, int]], budget: int) -> list[int]:
    """Indices of the (step, size) entries to take: as many evenly spaced steps as fit, whole if possible."""
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
    """Copies a tree record with known keys and types only and long texts cut; counts the cuts."""

    def __init__(self, limit: int):
        self.limit = limit
        self.cuts = 0

    def tree(self, record: dict[str, Any]) -> Record | None:
        """The record as the page needs it; None if it is not a tree."""
        question, responses = record.get("question"), record.get("responses")
        step = whole(record.get("step"))
        if step is None or not isinstance(question, dict) or not isinstance(responses, list):
            return None
        return {
            "step": step,
            "question": {key: self.text(question.get(key)) for key in ("id", "text", "gold")},
            "responses": self._nodes(responses),
        }

    def text(self, value: Any) -> str:
        """The text; of a long one its beginning and its end, where the note and the answer stand."""
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
        if node.get("verdict") in ("right", "wrong", "ungraded"):
            copy |= {"verdict": node["verdict"], "reason": self.text(node.get("reason"))}
        if children := self._nodes(node.get("children")):
            copy["children"] = children
        return copy
