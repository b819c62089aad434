"""A look before training (`motif train --try`): the trees of two questions are grown, and told in plain words.

Nothing is written. The trees are those of the first step: the same questions, prompts and random numbers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from motif.config import Recipe
from motif.display import Display
from motif.distributed import launched_process
from motif.errors import UsageError
from motif.grading.beside import grading_beside
from motif.method.credit import CreditCounts, assign
from motif.method.tree import Node, Tree
from motif.planning.forecast import Forecast
from motif.planning.lengths import lengths_of
from motif.planning.plan import Plan, make_plan
from motif.sampling.grow import continue_from
from motif.session import Session, open_session, with_examples
from motif.text import counted, duration, whole_percent
from motif.training.diagnosis import Diagnosis, Seen, diagnose, of_dead_groups
from motif.training.schedule import Course, draw_rounds
from motif.training.standstill import room

QUESTIONS = 2
SHOWN = 700
"""Characters of a response that are shown."""
NOTE = 200
"""Characters of a note or an answer that are shown."""
FORM = ("no form", "no answer")
"""Causes that a warm start is there for."""


@dataclass(frozen=True)
class Trial:
    """Grown and graded trees, and what they took. `complete`: they were not interrupted."""

    session: Session
    plan: Plan
    trees: list[Tree]
    tokens: int
    seconds: float
    complete: bool

    def seen(self) -> Seen:
        """Counts of the responses."""
        seen = Seen()
        seen.add(self.trees, self.session.rounds)
        return seen

    def groups(self) -> CreditCounts:
        """Counts of the groups of all trees; none, if they were interrupted."""
        total = CreditCounts()
        for tree in self.trees if self.complete else []:
            counts = assign(tree, self.session.recipe.credit)
            total.groups += counts.groups
            total.dead_groups += counts.dead_groups
        return total

    @cached_property
    def _room(self) -> int:
        return room(self.session)

    def diagnosis(self) -> Diagnosis | None:
        """What is wrong, if anything is."""
        seen, groups, recipe = self.seen(), self.groups(), self.session.recipe
        if self.complete and groups.dead:
            return of_dead_groups(seen, recipe, self._room)
        found = diagnose(seen, recipe, self._room)
        # While groups differ, wrong answers alone do not keep the form from being learnt.
        return None if found and found.cause in ("all wrong", "all right") and self.complete else found

    def to_dict(self) -> dict[str, Any]:
        """All of it as numbers and texts, for JSON."""
        groups, seen, found = self.groups(), self.seen(), self.diagnosis()
        leaves = [leaf for tree in self.trees for leaf in tree.leaves() if leaf.verdict]
        return {
            "recipe": self.session.recipe.name,
            "model": self.session.recipe.model.name,
            "complete": self.complete,
            "questions": len(self.trees),
            "sample": self._sample(),
            "rounds": list(self._rounds()),
            "final": {
                "responses": len(leaves),
                "answered": seen.answered,
                "right": seen.right,
                "wrong": sum(leaf.verdict == "wrong" for leaf in leaves),
                **({"partial": seen.partial} if seen.partial else {}),
                "ungraded": seen.ungraded,
                "reason": seen.reason,
            },
            "groups": {"compared": groups.groups, "dead": groups.dead_groups} if self.complete else None,
            "step": self._step() if self.complete else None,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "diagnosis": found.to_dict(f"{found.because}.") if found else None,
        }

    def _sample(self) -> dict[str, Any]:
        """The first trajectory: a question, and a response of each round."""
        tree = next((tree for tree in self.trees if tree.roots), self.trees[0])
        chain = list(tree.roots[:1])
        while chain and chain[-1].children:
            chain.append(chain[-1].children[0])
        return {
            "question": tree.question.text,
            "gold": tree.question.gold,
            "rounds": [
                {
                    "round": node.round,
                    "text": node.text,
                    "tokens": len(node.token_ids),
                    "well_formed": node.well_formed,
                    "cut_off": node.truncated,
                    "note": node.note,
                    "answer": node.answer,
                    "verdict": node.verdict,
                    "reason": node.reason,
                    "score": node.score,
                }
                for node in chain
            ],
        }

    def _rounds(self) -> Iterator[dict[str, Any]]:
        levels: dict[int, list[Node]] = {}
        for tree in self.trees:
            for node in tree.walk():
                levels.setdefault(node.round, []).append(node)
        rollout = self.session.recipe.rollout
        for number, nodes in sorted(levels.items()):
            yield {
                "round": number,
                "responses": len(nodes),
                "well_formed": statistics.fmean(node.well_formed for node in nodes),
                "cut_off": statistics.fmean(node.truncated for node in nodes),
                "tokens": statistics.fmean(len(node.token_ids) for node in nodes),
                "limit": rollout.tokens_first if number == 1 else rollout.tokens_continue,
            }

    def _step(self) -> dict[str, Any]:
        """Tokens and seconds of a step and of the run: sampling as measured here, the update estimated from lengths."""
        recipe, count = self.session.recipe, len(self.trees)
        lengths = lengths_of((tree.to_dict() for tree in self.trees), "these trees")
        forecast = replace(self.plan.forecast, lengths=lengths)
        whole = forecast.local(1)
        alike = _of_questions(forecast, count).local(1).sampling
        slower = self.seconds / alike if alike else 1.0
        step = {"tokens": forecast.tokens, "sampling_seconds": whole.sampling * slower}
        step["update_seconds"] = 0.0 if self.groups().dead else whole.training
        step["seconds"] = step["sampling_seconds"] + step["update_seconds"]
        evaluating = self.plan.workload.evaluations * whole.evaluation * slower
        warm = whole.warm[0] * slower + whole.warm[1]
        return step | {"run_seconds": warm + recipe.train.steps * step["seconds"] + evaluating}


def _of_questions(forecast: Forecast, count: int) -> Forecast:
    """The same for steps of so many questions, none of them replaced."""
    return replace(forecast, recipe=forecast.recipe.with_settings("rollout", questions_per_step=count, refill=0))


def try_out(recipe: Recipe, display: Display | None = None) -> Trial:
    """Grow the trees of two questions as the first step would. Ctrl-C ends it with what there is.

    Raises:
        UsageError: there are several processes.
        RecipeError, ModelError, BadRows: as when training starts.
        SamplerError: see `Sampler.sample`.
    """
    display = display or Display()
    if launched_process().count > 1:
        raise UsageError("--try looks with one process: leave the launcher out")
    recipe = with_examples(recipe)
    plan, task = make_plan(recipe)
    plan.refuse_if_too_big()
    session = open_session(recipe, task)
    try:
        session.sync_weights(0)
        places = Course(task.train, recipe.data).places(0, 1, min(QUESTIONS, len(task.train)), recipe.train.seed)
        drawn = [place[0] for place in places]
        trees, complete = [Tree(draw_rounds(question, 1, recipe), 1) for question in drawn], False
        before, start, rollout = replace(session.sampler.usage), time.perf_counter(), recipe.rollout
        answers = len(drawn) * rollout.responses * rollout.trajectories
        with suppress(KeyboardInterrupt), display, display.sampling(answers) as advance:
            with grading_beside(session.grader, advance) as on_leaf:
                parts = (session.sampler, session.rounds, rollout)
                continue_from(trees, *parts, seed=recipe.train.seed, step=1, on_leaf=on_leaf)
            complete = True
        tokens = session.sampler.usage.since(before).generated_tokens
        return Trial(session, plan, trees, tokens, time.perf_counter() - start, complete)
    finally:
        session.close()


# -- in words ----------------------------------------------------------------------------------------------------------


def told(trial: Trial) -> Iterator[str]:
    """What a look has shown, paragraph by paragraph."""
    numbers, recipe = trial.to_dict(), trial.session.recipe
    if not trial.complete:
        yield f"stopped after {counted(trial.seen().responses, 'response')}: what follows is of these"
    yield "\n".join(_sample_lines(numbers["sample"]))
    yield "\n".join(_count_lines(numbers, recipe))
    if trial.complete:
        yield "\n".join(_time_lines(numbers["step"], recipe))
    yield "\n".join(_verdict_lines(trial))


def _sample_lines(sample: dict[str, Any]) -> Iterator[str]:
    yield f"question: {sample['question']}"
    yield f"right answer: {sample['gold']}"
    for one in sample["rounds"]:
        form = "well formed" if one["well_formed"] else "not in the form"
        cut = ", cut off by the token limit" if one["cut_off"] else ""
        yield f"round {one['round']} ({counted(one['tokens'], 'token')}, {form}{cut}):"
        yield from (f"  | {line}" for line in _short(one["text"]).splitlines())
        if one["verdict"] is None:
            yield f"carried on: {_short(' '.join(one['note'].split()), NOTE) or 'nothing'}"
        elif one["answer"] is None:
            yield "no answer"
        else:
            reason = f" ({one['reason']})" if one["reason"] else ""
            worth = f" ({one['score']:.2f})" if one["score"] is not None else ""
            yield f"answer {_short(' '.join(one['answer'].split()), NOTE)}: {one['verdict']}{worth}{reason}"


def _short(text: str, most: int = SHOWN) -> str:
    return text if len(text) <= most else f"{text[: most * 3 // 4]} […] {text[-most // 4 :]}"


def _count_lines(numbers: dict[str, Any], recipe: Recipe) -> Iterator[str]:
    for one in numbers["rounds"]:
        yield (
            f"round {one['round']}: {counted(one['responses'], 'response')}, {whole_percent(one['well_formed'])} "
            f"well formed, {whole_percent(one['cut_off'])} cut off, {one['tokens']:.0f} of {one['limit']} tokens on "
            "average"
        )
    final, marks = numbers["final"], " and ".join(recipe.rounds.answer_marks)
    ungraded = f", {final['ungraded']} ungraded ({final['reason']})" if final["ungraded"] else ""
    between = f"{final['partial']} in between, " if "partial" in final else ""
    where = f"an answer between {marks}" if recipe.rounds.fallback == "none" else "an answer"
    yield (
        f"{counted(final['responses'], 'final response')}: {final['answered']} with {where}, {final['right']} right, "
        f"{between}{final['wrong']} wrong{ungraded}"
    )
    if numbers["groups"]:
        groups = numbers["groups"]
        dead = f"{groups['dead']} of them dead: all their rewards are equal" if groups["dead"] else "none of them dead"
        yield f"{counted(groups['compared'], 'group')} compared, {dead}"


def _time_lines(step: dict[str, Any], recipe: Recipe) -> Iterator[str]:
    update = step["update_seconds"]
    short = "less than a second" if update < 1 else f"about {duration(update)}"
    learnt = f"and an update {short} (estimated)" if update else "and there would be no update"
    yield f"a step: about {step['tokens']:,.0f} new tokens, which take {duration(step['sampling_seconds'])}, {learnt}"
    steps, run = counted(recipe.train.steps, "step"), duration(step["run_seconds"])
    yield f"the run of {steps}, with its evaluations: about {run}"


def _verdict_lines(trial: Trial) -> Iterator[str]:
    found, groups = trial.diagnosis(), trial.groups()
    warm = trial.session.recipe.warmstart.source
    if found is None:
        if trial.complete:
            live = groups.groups - groups.dead_groups
            yield f"there is something to learn: in {live} of {counted(groups.groups, 'group')} rewards differ"
        return
    much = "nothing" if trial.complete and groups.dead else "little"
    if warm and found.cause in FORM:
        yield f"{found.because}: this is the model before its warm start (source {warm!r}), which is there to teach it"
        return
    yield f"{much} can be learnt from these responses, because {found.because}. {found.advice()}"
