"""Which trees go into the page, and in what form: a page that cannot be opened helps nobody, so there is a limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from motif.report.files import number, parse, records, whole
from motif.report.page import to_json

BUDGET = 4_000_000  # bytes of JSON
TEXT_LIMITS = (4_000, 1_000, 250)  # characters per text; the shorter ones only where not one tree would fit
MOST_STEPS = 300
FEWEST_STEPS = 8  # below this, rather show fewer questions of each step


def select_trees(path: Path, budget: int = BUDGET) -> dict[str, Any]:
    """Trees of evenly spaced steps, first and last included, within `budget` bytes; and how many there are."""
    chosen: list[int] = []
    entries: list[tuple[int, int, int]] = []
    for limit in TEXT_LIMITS:
        entries = _index(path, limit)
        chosen = choose([(step, size) for _, step, size in entries], budget)
        if chosen or not entries:
            break
    trees, cutter = [], Cutter(limit)
    if chosen:
        with path.open("rb") as file:
            for index in chosen:
                file.seek(entries[index][0])
                tree = cutter.tree(parse(file.readline()) or {})
                if tree is not None:
                    trees.append(tree)
    return {
        "trees": trees,
        "all_trees": len(entries),
        "steps": len({tree["step"] for tree in trees}),
        "all_steps": len({step for _, step, _ in entries}),
        "text_limit": limit,
        "cut_texts": cutter.cuts,
    }


def choose(sizes: list[tuple[int, int]], budget: int) -> list[int]:
    """Indices of the (step, bytes) entries to show: as many evenly spaced steps as fit, whole if possible."""
    by_step: dict[int, list[int]] = {}
    for index, (step, _) in enumerate(sizes):
        by_step.setdefault(step, []).append(index)
    steps = list(by_step.values())
    if not steps:
        return []
    most = min(len(steps), MOST_STEPS)
    fewest = min(len(steps), FEWEST_STEPS)
    for count in range(most, fewest - 1, -1):
        chosen = [index for place in spaced(len(steps), count) for index in steps[place]]
        if sum(sizes[index][1] for index in chosen) <= budget:
            return chosen
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
    if count == 1:
        return [total - 1]
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]


class Cutter:
    """Copies a tree record with known keys and types only and long texts cut; counts the cuts."""

    def __init__(self, limit: int):
        self.limit = limit
        self.cuts = 0

    def tree(self, record: dict[str, Any]) -> dict[str, Any] | None:
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

    def _nodes(self, nodes: Any) -> list[dict[str, Any]]:
        return [self._node(node) for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []

    def _node(self, node: dict[str, Any]) -> dict[str, Any]:
        copy: dict[str, Any] = {
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


def _index(path: Path, limit: int) -> list[tuple[int, int, int]]:
    """Offset, step and size in the page of every tree; the trees themselves may not fit in memory."""
    entries: list[tuple[int, int, int]] = []
    cutter = Cutter(limit)
    for offset, record in records(path):
        tree = cutter.tree(record) if record else None
        if tree is None:
            continue
        step = tree["step"]
        if entries and step < entries[-1][1]:  # resumed from a checkpoint: the steps since then were grown again
            entries = [entry for entry in entries if entry[1] < step]
        entries.append((offset, step, len(to_json(tree).encode("utf-8", errors="replace"))))
    return entries
