"""Why nothing can be learnt from responses: what they have in common, and settings that may mend it.

The causes, in the order in which they are looked for: the grader cannot read the answers; the token limit cuts off
responses that have begun well; responses do not keep to the form; there is nothing to grade between the answer marks;
all are wrong; all are right; or all answers to a question are worth the same. A setting is suggested only if the
recipe is accepted with it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif import tasks
from motif.config import Recipe, load_recipe
from motif.errors import MotifError
from motif.evaluation.accuracy import Accuracy
from motif.method.rounds import Rounds
from motif.method.tree import Tree
from motif.text import whole_percent

MOST, FEW = 0.9, 0.1
"""Shares from which on nearly all responses, or hardly any, are alike."""
ENOUGH = 10
"""Evaluated answers from which on it says something that all are wrong, or right."""
REFILL = 4
"""Questions tried for each one, where that is suggested."""
WORKED = ("gsm8k", "math")
"""Tasks whose data has worked solutions."""
SELF_NEEDS = (
    "The model learns from questions that it solves in one long round. If there are none, give it demonstrations: "
    "docs/start.md"
)
"""What is said beside a warm start on the model's own answers."""
FALLBACKS = {"numeric": "last_number", "math": "last_number", "exact": "text"}
"""What may be graded without answer marks, by grader."""
TASK_SIZE = {"arithmetic": ("digits", 1, 6), "chain": ("longest", 1, 16), "circuit": ("inputs", 2, 4)}
"""The setting that makes a task's questions harder, its smallest and its largest value."""

Changes = Mapping[str, Any]
"""Settings by their dotted names."""


@dataclass
class Seen:
    """Counts of responses, and of the final ones among them.

    `begun`: of those cut off, how many began in the form. Where no form is asked for (`rounds.carry = "tail"`): how
    many final ones were cut off before they answered, since what is cut off earlier is carried on.
    """

    responses: int = 0
    well_formed: int = 0
    cut_off: int = 0
    begun: int = 0
    finals: int = 0
    answered: int = 0
    right: int = 0
    partial: int = 0
    ungraded: int = 0
    reason: str = ""

    def add(self, trees: Sequence[Tree], rounds: Rounds) -> None:
        """Count the responses of graded trees."""
        nodes = [node for tree in trees for node in tree.walk()]
        leaves = [leaf for tree in trees for leaf in tree.leaves() if leaf.verdict]
        self.responses += len(nodes)
        self.well_formed += sum(node.well_formed for node in nodes)
        self.cut_off += sum(node.truncated for node in nodes)
        if rounds.tail:
            self.begun += sum(leaf.truncated and leaf.answer is None for leaf in leaves)
        else:
            self.begun += sum(node.truncated and rounds.begins_in_form(node.text) for node in nodes)
        self.finals += len(leaves)
        self.answered += sum(leaf.answer is not None for leaf in leaves)
        self.right += sum(leaf.verdict == "right" for leaf in leaves)
        self.partial += sum(leaf.verdict == "partial" for leaf in leaves)
        reasons = Counter(leaf.reason for leaf in leaves if leaf.verdict == "ungraded")
        self.ungraded += reasons.total()
        self.reason = reasons.most_common(1)[0][0] if reasons else self.reason


@dataclass
class Standstill(Seen):
    """Counts over the steps in a row that made no update because every group was dead; an update begins another."""

    steps: int = 0

    def too_long(self, limit: int) -> bool:
        """Whether the run has to stop: after every `limit` dead steps in a row, so that it can be resumed."""
        return limit > 0 and self.steps > 0 and self.steps % limit == 0


@dataclass(frozen=True)
class Diagnosis:
    """A cause by its name, the same in words that follow "because", and the settings that may mend it."""

    cause: str
    because: str
    changes: Changes

    @property
    def lines(self) -> list[str]:
        """The changes as lines of a recipe."""
        sections: dict[str, list[str]] = {}
        for key, value in self.changes.items():
            section, _, name = key.rpartition(".")
            sections.setdefault(section, []).append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
        return [line for section, lines in sections.items() for line in (f"[{section}]", *lines)]

    @property
    def options(self) -> str:
        """The changes as options of `motif train`."""
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.changes.items()}
        return " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in values.items())

    def advice(self) -> str:
        """What to try, on lines of their own."""
        lines = "\n".join(f"    {line}" for line in self.lines)
        needs = f"\n{SELF_NEEDS}" if self.changes.get("warmstart.source") == "self" else ""
        return f"Try, in a new run:\n{lines}\nor, added to the command: {self.options}{needs}"

    def to_dict(self, text: str) -> dict[str, Any]:
        """For metrics, summary and page, with the sentence that tells it."""
        return {"cause": self.cause, "text": text, "lines": self.lines, "options": self.options}


def diagnose(seen: Seen, recipe: Recipe, room: int | None = None, what: str = "response") -> Diagnosis | None:
    """The first cause that holds for nearly all responses; None if none does.

    Args:
        room: the tokens that a response may have beside the longest prompt.
        what: what the counts are of.
    """
    plural = f"{what}s"
    finals = plural if what != "response" else "final responses"

    def shown(count: int, total: int) -> str:
        return whole_percent(count / total)

    if not seen.responses:
        return None
    cause, because, ends = "", "", seen.finals > 0
    if ends and seen.ungraded / seen.finals > MOST:
        cause = "ungraded"
        because = f"{shown(seen.ungraded, seen.finals)} of {finals} could not be graded ({seen.reason})"
    elif recipe.rounds.carry == "tail" and ends and _cut_before_answers(seen):
        cause = "cut off"
        because = f"{shown(seen.begun, seen.finals)} of the {finals} are cut off by the token limit before they answer"
    elif recipe.rounds.carry != "tail" and seen.begun / seen.responses > MOST:
        cause, because = "cut off", f"{shown(seen.cut_off, seen.responses)} of {plural} are cut off by the token limit"
    elif seen.well_formed / seen.responses < FEW:
        share = f"only {shown(seen.well_formed, seen.responses)} of the {plural} keep"
        cause, because = "no form", f"{share if seen.well_formed else f'none of the {plural} keeps'} to the form"
        if seen.cut_off / seen.responses > 0.5:
            because += f", and {shown(seen.cut_off, seen.responses)} run into the token limit"
    elif ends and seen.answered / seen.finals < FEW:
        marks = " and ".join(recipe.rounds.answer_marks)
        share = f"only {shown(seen.answered, seen.finals)} of the {finals} have"
        cause, because = (
            "no answer",
            f"{share if seen.answered else f'none of the {finals} has'} an answer between {marks}",
        )
    elif ends and seen.right == seen.partial == 0 and seen.ungraded < seen.finals:
        cause, because = "all wrong", f"all {seen.finals - seen.ungraded:,} graded answers are wrong"
    elif ends and seen.right + seen.ungraded == seen.finals:
        cause, because = "all right", f"all {seen.right:,} graded answers are right"
    return Diagnosis(cause, because, remedy(cause, recipe, seen.reason, room)) if cause else None


def _cut_before_answers(seen: Seen) -> bool:
    """Whether hardly any final response answers, and most of the others were cut off."""
    return seen.answered / seen.finals < FEW and seen.begun > (seen.finals - seen.answered) / 2


def of_dead_groups(seen: Seen, recipe: Recipe, room: int | None = None) -> Diagnosis:
    """The cause where in every group all rewards are equal."""
    found = diagnose(seen, recipe, room)
    alike = "all answers to a question are worth the same"
    if not seen.partial:
        alike = "each question is solved either always or never"
    return found or Diagnosis("alike", alike, remedy("alike", recipe))


def of_evaluation(accuracies: Mapping[str, Accuracy], recipe: Recipe) -> Diagnosis | None:
    """What is wrong with the answers of an evaluation at the training number of rounds, if anything is."""
    row = accuracies.get(recipe.main_row)
    if row is None or not row.answers:
        return None
    seen = Seen(
        responses=row.answers,
        well_formed=round(row.well_formed * row.answers),
        cut_off=(cut_off := round(row.truncated * row.answers)),
        begun=max(0, cut_off - row.answered) if recipe.rounds.carry == "tail" else 0,
        finals=row.answers,
        answered=row.answered,
        right=row.right,
        partial=row.partial,
        ungraded=row.ungraded,
        reason=row.reason,
    )
    found = diagnose(seen, recipe, what="evaluated answer")
    few = found is not None and found.cause in ("all wrong", "all right") and row.answers - row.ungraded < ENOUGH
    taught = found is not None and found.cause in ("no form", "no answer") and recipe.warmstart.source
    return None if few or taught else found


# -- what may mend it --------------------------------------------------------------------------------------------------


def remedy(cause: str, recipe: Recipe, reason: str = "", room: int | None = None) -> Changes:
    """The first change for a cause with which the recipe is still accepted."""
    return next((changes for changes in _candidates(cause, recipe, reason, room) if _fits(recipe, changes)), {})


def _candidates(cause: str, recipe: Recipe, reason: str, room: int | None) -> Iterator[Changes]:
    rollout = recipe.rollout
    wider = {"rollout.branching": [2 * rollout.branching[0], *rollout.branching[1:]]}
    if cause == "ungraded":
        yield from _gradable(recipe, reason)
    elif cause == "cut off":
        limits = {f"rollout.{name}": getattr(rollout, name) for name in ("tokens_first", "tokens_continue")}
        if rollout.rounds == 1:
            del limits["rollout.tokens_continue"]
        most = max(limits.values())
        longer = 2 * most if room is None else min(2 * most, room)
        if longer > most:
            yield dict.fromkeys(limits, longer)
        yield from _warm(recipe)
    elif cause == "no form":
        yield from _warm(recipe)
    elif cause == "no answer":
        grader = recipe.data.grader or tasks.grader_of(recipe.data.task)
        if recipe.rounds.fallback == "none" and grader in FALLBACKS:
            yield {"rounds.fallback": FALLBACKS[grader]}
        yield from _warm(recipe)
    elif cause == "all wrong":
        if has_solutions(recipe):
            yield from _warm(recipe)
        yield from _sized(recipe, harder=False)
    elif cause == "all right":
        yield from _sized(recipe, harder=True)
    if cause in ("all right", "alike"):
        yield {"rollout.refill": max(REFILL, 2 * rollout.refill)}
    yield wider


def _warm(recipe: Recipe) -> Iterator[Changes]:
    """A warm start, or a longer one; of a run with servers in a run without them."""
    warm = recipe.warmstart
    if warm.source:
        yield {"warmstart.steps": 2 * warm.steps}
        return
    changes = {"warmstart.source": "solutions" if has_solutions(recipe) else "self"}
    yield changes
    servers: dict[str, Any] = {"sampler.colocate": False} if recipe.sampler.colocate else {"sampler.urls": []}
    yield changes | servers | {"sampler.overlap": False}


def has_solutions(recipe: Recipe) -> bool:
    """Whether the data has worked solutions; of your own files they are looked up."""
    if recipe.data.task in WORKED:
        return True
    if not Path(recipe.data.train).is_file():
        return False
    try:
        return bool(tasks.solutions(recipe.data, recipe.warmstart.solution_column)[1])
    except MotifError:
        return False


def _sized(recipe: Recipe, harder: bool) -> Iterator[Changes]:
    """Larger or smaller questions, of a task that makes its own."""
    name, section = recipe.data.task, recipe.data.active_section
    if section is None or name not in TASK_SIZE:
        return
    key, least, most = TASK_SIZE[name]
    now = getattr(section, key)
    size = min(most, now + max(1, now // 2)) if harder else max(least, now - max(1, now // 2))
    if size != now:
        shortest = {"data.chain.shortest": min(section.shortest, size)} if name == "chain" else {}  # type: ignore[attr-defined]
        changed = {key: value for key, value in shortest.items() if value != section.shortest}  # type: ignore[attr-defined]
        yield {f"data.{name}.{key}": size} | changed


def _gradable(recipe: Recipe, reason: str) -> Iterator[Changes]:
    if re.search(r"timed out|did not start|in [\d.e+]+ s\b", reason):
        yield {"data.grader_seconds": 4 * recipe.data.grader_seconds}
    if recipe.data.grader != "math":
        yield {"data.grader": "math"}
    yield {"data.grader": "exact"}


def _fits(recipe: Recipe, changes: Changes) -> bool:
    """Whether the recipe is accepted with the changes."""
    try:
        load_recipe(recipe.model_dump(mode="json"), [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    except MotifError:
        return False
    return True
