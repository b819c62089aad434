"""The probe of a run folder's trained weights."""

from __future__ import annotations

from pathlib import Path

from motif.config import Recipe
from motif.evaluation.probe import ProbeResult, Progress, probe, probe_questions
from motif.runs.folder import write_probe
from motif.session import open_session


def probe_run(run: Path, step: int, recipe: Recipe, progress: Progress | None = None) -> ProbeResult:
    """Probe a run's weights as they are after `step` steps, and write the result to the run folder.

    Args:
        recipe: the run's own, with `probe.questions` at least 2.
        progress: see `probe`.

    Raises:
        MotifError: the model or the data cannot be used, or there are too few held-out questions.
    """
    session = open_session(recipe, run=run)
    try:
        questions = probe_questions(session.task, recipe)
        result = probe(questions, session.measuring, session.rounds, session.grader, recipe, progress)
    finally:
        session.close()
    write_probe(run, step, result.to_dict())
    return result
