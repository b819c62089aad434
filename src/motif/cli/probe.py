"""The options of `motif probe`."""

from __future__ import annotations

from typing import Annotated

import typer

from motif.cli.options import RunArgument, Settings, TrustGrader
from motif.cli.streams import loading
from motif.config import Trust
from motif.errors import UsageError
from motif.run_files import PROBE
from motif.runs.read import recipe_of
from motif.runs.trained import steps_of

QUESTIONS = 20
"""How many held-out questions are probed where neither the options nor the recipe say."""


def probe(
    run: RunArgument,
    questions: Annotated[
        int | None, typer.Option(help="Number of held-out questions. Default: the recipe's, or 20.")
    ] = None,
    continuations: Annotated[
        int | None, typer.Option(help="Continuations of each note. Default: the recipe's.")
    ] = None,
    settings: Settings = None,
    trust_grader: TrustGrader = "",
) -> None:
    """Measure what the notes of a trained run are worth, by continuing each of them hundreds of times.

    Prints whether the reward reflects it, and writes RUN/probe.json and the report.
    """
    changes, trust = list(settings or []), Trust(trust_grader)
    if questions is None:
        questions = recipe_of(run, changes, trust).probe.questions or QUESTIONS
    changes += [f"probe.questions={questions}"]
    changes += [f"probe.continuations={continuations}"] if continuations is not None else []
    recipe = recipe_of(run, changes, trust)
    if not questions:
        raise UsageError("a probe needs at least 2 questions")
    step = steps_of(run)
    # The imports take seconds: a wrong folder is refused before them.
    with loading():
        from motif.display import Display
        from motif.evaluation.probe_run import probe_run
        from motif.report import write_report
        from motif.report.diagnostics import readings

    display = Display()
    with display:
        result = probe_run(run, step, recipe, display.probing)
    display.probed(step, result)
    for reading in readings(result.to_dict()):
        display.message(f"- {reading}")
    display.message(f"written: {run / PROBE}, {write_report(run)}")
