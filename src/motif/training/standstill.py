"""A run that makes no update: when that is told, and where.

Before training, from its evaluation (or else from the first step), after some dead steps in a row, and at the end; in
the terminal, in the metrics, from which the page is made while the run goes, and in the summary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from motif.display import Display
from motif.evaluation.accuracy import Accuracy
from motif.models.shape import window_of
from motif.runs.folder import RunFolder
from motif.session import Session
from motif.text import counted
from motif.training.diagnosis import Diagnosis, of_dead_groups, of_evaluation
from motif.training.progress import Progress

SAID_AFTER = 3
"""Dead steps in a row after which the terminal says why."""
LONGEST = 20
"""Texts, the longest ones in characters, whose prompts are measured."""


class Watch:
    """Tells why a run learns nothing, while that can be helped."""

    def __init__(self, session: Session, run: RunFolder, display: Display, state: Progress):
        self.session, self.run, self.display, self.state = session, run, display, state

    def evaluated(self, accuracies: Mapping[str, Accuracy]) -> None:
        """Look at the evaluation before training."""
        if found := of_evaluation(accuracies, self.session.recipe):
            text = before_training(found)
            record = self._keep(found, "before training", text)
            self.run.append_metrics({"step": self.state.step, "diagnosis": record})
            self.display.message(_warning(found, text))

    def stepped(self) -> tuple[dict[str, Any], str]:
        """What the line of metrics and the terminal say of the steps in a row that made no update, if anything."""
        state = self.state
        first = state.step == state.standstill.steps == 1 and not state.evaluations.get(0)
        if not first and state.standstill.steps != SAID_AFTER:
            return {}, ""
        found, text = self._standstill()
        return {"diagnosis": self._keep(found, f"after step {state.step}", text)}, _warning(found, text)

    def summary(self) -> dict[str, Any]:
        """What the summary says: all that was told, and how the run stands in the end."""
        state = self.state
        told: dict[str, Any] = {"diagnoses": state.diagnoses} if state.diagnoses else {}
        if state.standstill.steps >= SAID_AFTER or 0 < state.standstill.steps == state.step:
            found, text = self._standstill()
            told["standstill"] = asdict(state.standstill) | found.to_dict(f"{text} {found.advice()}")
        return told

    def _standstill(self) -> tuple[Diagnosis, str]:
        found = of_dead_groups(self.state.standstill, self.session.recipe, room(self.session))
        steps = counted(self.state.standstill.steps, "step")
        return found, f"no update in {steps}: in every group all rewards are equal, because {found.because}."

    def _keep(self, found: Diagnosis, when: str, text: str) -> dict[str, Any]:
        """Note for the summary what is told, and return it."""
        record = {"when": when, **found.to_dict(text)}
        self.state.diagnoses.append({"step": self.state.step, **record})
        return record


def _warning(found: Diagnosis, text: str) -> str:
    return f"warning: {text} {found.advice()}"


def before_training(found: Diagnosis) -> str:
    """A sentence on what an evaluation before training shows."""
    return f"before training, {found.because}. If sampled responses are no different, nothing can be learnt from them."


def room(session: Session) -> int:
    """The tokens that a response may have beside the longest prompt."""
    recipe = session.recipe
    rounds, count = session.rounds, max([recipe.rollout.longest, *recipe.eval_rounds])
    texts = {
        rounds.asked(question, number + 1)
        for question in (*session.task.train, *session.task.test)
        for number in range(len(question.pieces) or 1)
    }
    longest = max(rounds.longest_prompt(text, count) for text in sorted(texts, key=len)[-LONGEST:])
    return window_of(recipe, session.policy.max_length) - longest
