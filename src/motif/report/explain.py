"""What a recorded tree leaves out: the prompt of each round, and how each reward and advantage came about."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from motif.config import CreditConfig, RoundsConfig
from motif.errors import RecipeError
from motif.method.credit import STD_FLOOR
from motif.method.prompts import Prompts, prompt_text
from motif.method.tree import Question
from motif.runs.read import Record, section
from motif.text import counted

CLOSE = 0.006
"""By how much a sum may differ from the recorded one: numbers are recorded in full, and shown with two decimals."""

OTHER_RULES = {
    "mixed": "compared for {rest:.0f} % with its siblings and for {round:.0f} % with its round",
    "progress": "less the mean of all trajectories from its prompt",
    "chain": "less the mean of the trajectories from its prompt that others began",
}
"""Comparisons that are told without their numbers."""


class Explainer:
    """Adds to the trees of one run what its recipe says of them; what cannot be told is left out.

    A tree gets `prompts`: `system`, and what each round is `asked`. The tree and every response with children get
    `next`, the rest of the prompt of the responses that follow: `earlier` notes, and what is `new` in this round.
    Every response with a reward gets `why`, the sum that led to it.
    """

    def __init__(self, recipe: Record):
        self.credit = _credit(section(recipe, "credit"))
        branching = section(recipe, "rollout").get("branching")
        self.rounds = len(branching) if isinstance(branching, list) else 0
        self.prompts = _prompts(section(recipe, "rounds")) if recipe and self.rounds else None

    def explain(self, tree: Record) -> Record:
        """The same tree with more in it."""
        if self.prompts:
            self._tell_prompts(tree, self.prompts)
        if self.credit:
            for path, node in nodes_of(tree["responses"]):
                if node["reward"] is not None:
                    node["why"] = f"{self._sum(node)}{self._comparison(path, node, tree)}"
        return tree

    # -- prompts ---------------------------------------------------------------------------------------------------

    def _tell_prompts(self, tree: Record, prompts: Prompts) -> None:
        told = tree["question"]
        question = Question(told["id"], told["text"], told["gold"], pieces=tuple(told.get("pieces", ())))
        rounds = question.rounds or told.get("rounds") or self.rounds
        deepest = max((len(path) for path, _ in nodes_of(tree["responses"])), default=0)
        numbers = range(1, min(rounds, deepest) + 1)
        counts = [prompts.turn(prompts.asked(question, number), [""] * (number - 1), rounds) for number in numbers]
        tree["prompts"] = {"system": prompts.system(rounds), "asked": [turn.asked for turn in counts]}

        def tell(node: Record, notes: list[str]) -> None:
            turn = prompts.turn("", notes, rounds)
            node["next"] = {"earlier": turn.earlier, "new": turn.new}
            for child in node.get("children", ()):
                if "children" in child:
                    tell(child, [*notes, child["note"]])

        tell(tree | {"children": tree["responses"]}, [])
        tree["next"] = dict(zip(("earlier", "new"), prompts.turn("", [], rounds)[1:], strict=True))

    # -- rewards ---------------------------------------------------------------------------------------------------

    def _sum(self, node: Record) -> str:
        """`0.75 + 0.2 × form = 0.95`; the reward alone, where the parts do not add up to it."""
        reward, value, credit = node["reward"], node["value"], self.credit
        assert credit is not None
        if value is None:
            return f"{reward:.2f}"
        parts = f"{value:.2f}{_right(node)}"
        total = value
        if credit.format_weight:
            parts += f" + {credit.format_weight:g} × form" + ("" if node["well_formed"] else " (broken: 0)")
            total += credit.format_weight * node["well_formed"]
        if credit.efficiency and reward - total > CLOSE:
            parts += f" + {reward - total:.2f} for rounds saved"
            total = reward
        same = abs(total - reward) <= CLOSE and credit.reward == "indicator"
        return f"{parts} = {reward:.2f}" if same else f"{reward:.2f}"

    def _comparison(self, path: tuple[int, ...], node: Record, tree: Record) -> str:
        """`; mean of 8 responses 1.14, standard deviation 0.12: advantage −1.58`."""
        if node["advantage"] is None:
            return "; not compared, not trained"
        credit = self.credit
        assert credit is not None
        if credit.group in OTHER_RULES:
            words = OTHER_RULES[credit.group].format(
                round=100 * credit.round_weight, rest=100 - 100 * credit.round_weight
            )
            return f"; {words}: advantage {signed(node['advantage'])}"
        others, alone = self._group(path, tree)
        compared = others if alone else [*others, node["reward"]]
        if len(compared) < 1 + (not alone):
            return f"; advantage {signed(node['advantage'])}"
        mean, spread = statistics.fmean(compared), [*others, node["reward"]]
        deviation = statistics.stdev(spread)
        scale = len(spread) / (len(spread) - 1) if credit.baseline == "leave_one_out" and not alone else 1.0
        whose = (
            f"{counted(len(compared), 'other response')} of its round" if alone else counted(len(compared), "response")
        )
        if credit.baseline == "leave_one_out" and not alone:
            mean, scale = statistics.fmean(others), 1.0
            whose = f"the {counted(len(others), 'other response')}"
        words = f"; mean of {whose} {mean:.2f}"
        if credit.divide_by_std:
            scale /= deviation + STD_FLOOR
            words += f", standard deviation {deviation:.2f}"
        expected = (node["reward"] - mean) * scale if deviation > 1e-9 else 0.0
        if abs(expected - node["advantage"]) > CLOSE * max(1.0, abs(expected)):
            words = ""  # compared with something else, such as responses that ended early
        return f"{words}; advantage {signed(node['advantage'])}"

    def _group(self, path: tuple[int, ...], tree: Record) -> tuple[list[float], bool]:
        """The rewards that a response is compared with, its own left out, and whether it has no siblings."""
        assert self.credit is not None
        graded = {p: n["reward"] for p, n in nodes_of(tree["responses"]) if n["reward"] is not None}
        level = [other for other in graded if len(other) == len(path) and other != path]
        if self.credit.group == "round":
            return [graded[other] for other in level], False
        for depth in range(len(path) - 1, -1, -1):
            near = [graded[other] for other in level if other[:depth] == path[:depth]]
            if near:
                return near, depth < len(path) - 1
        return [], False


def nodes_of(responses: list[Record], path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Record]]:
    """All nodes with their paths, parents before children."""
    for place, node in enumerate(responses):
        yield (*path, place), node
        yield from nodes_of(node.get("children", []), (*path, place))


def signed(value: float) -> str:
    """`+0.52`, with a true minus sign."""
    return f"{value:+.2f}".replace("-", "−")


def _right(node: Record) -> str:
    """How many of the trajectories are right, where that is the value."""
    leaves = [leaf for _, leaf in nodes_of([node]) if not leaf.get("children")]
    right = sum(leaf.get("verdict") == "right" for leaf in leaves)
    alike = len(leaves) > 1 and abs(right / len(leaves) - node["value"]) <= CLOSE
    return f" ({right} of {len(leaves)} right)" if alike else ""


def _credit(settings: Record) -> CreditConfig | None:
    try:
        return CreditConfig.model_validate(settings)
    except ValidationError:
        return None


def _prompts(settings: Record) -> Prompts | None:
    """The prompts of a recipe; a folder may be a stranger's, so no file that it names is read."""
    file: Any = settings.get("system_prompt_file")
    plain = {key: value for key, value in settings.items() if key != "system_prompt_file"}
    try:
        config = RoundsConfig.model_validate(plain)
        return Prompts(config, f"(the text of {Path(str(file)).name})" if file else prompt_text(config))
    except (ValidationError, RecipeError):
        return None
