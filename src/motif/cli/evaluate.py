"""The options of `motif eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from motif.cli.options import Settings, TrustGrader
from motif.cli.streams import loading, need_file, need_folder
from motif.config import Trust
from motif.errors import UsageError
from motif.evaluation.rows import EvalOverrides
from motif.evaluation.target import find_target

RecipeOption = Annotated[
    str | None,
    typer.Option(help="For a model: the recipe that gives scaffold, data and limits (a name or a file)."),
]
Greedy = Annotated[
    bool | None,
    typer.Option("--greedy/--no-greedy", help="Add a greedy answer to the samples. Default: yes with --samples > 1."),
]
RoundsOption = Annotated[
    str | None, typer.Option(metavar="N,N,…", help="Numbers of rounds to test. Default: 1, and as in training.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the answers. Default: RUN/eval/… or runs/eval-MODEL/….")]


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run folder, or a model: hub id, folder, .gguf file, embedded, pypi:PACKAGE.")
    ],
    recipe: RecipeOption = None,
    task: Annotated[
        str | None, typer.Option(help="Test on this task instead of the recipe's. Its files: --set data.test=FILE.")
    ] = None,
    rounds: RoundsOption = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Answers per question: 1 is greedy, more are sampled.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature. Default: the recipe's, or 1.0.")
    ] = None,
    greedy: Greedy = None,
    questions: Annotated[int | None, typer.Option(min=1, help="Number of held-out questions.")] = None,
    matched: Annotated[
        bool, typer.Option("--matched", help="Also test one round with the tokens of all training rounds together.")
    ] = False,
    twin: Annotated[
        bool,
        typer.Option("--twin", help="Also test the same questions with other numbers and names."),
    ] = False,
    second_grader: Annotated[
        str | None, typer.Option(help="Also grade all answers with this grader, and list where it disagrees.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Test the model as it was before training.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Test the best checkpoint instead of the last weights.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
    out: Out = None,
    settings: Settings = None,
    trust_grader: TrustGrader = "",
) -> None:
    """Measure the held-out accuracy of a trained run, or of any model, with intervals.

    Interrupted? Run the same command again; it resumes. What the numbers mean: docs/evaluation.md.
    """
    need_file(json_path, "--json")
    need_folder(out)
    overrides = EvalOverrides(_rounds(rounds), samples, temperature, greedy, questions, matched, twin, second_grader)
    changes, trust = settings or [], Trust(trust_grader)
    target = find_target(
        model, recipe=recipe, task=task, base=base, best=best, overrides=overrides, settings=changes, trust=trust
    )
    target.check_weights()
    # The imports take seconds: wrong names are refused before them.
    with loading():
        from motif.display import Display
        from motif.evaluation.any_model import evaluate_model

    accuracies = evaluate_model(target, Display(), out)
    if json_path:
        numbers = {name: accuracy.to_dict() for name, accuracy in accuracies.items()}
        json_path.write_text(json.dumps(numbers, indent=2) + "\n")


def _rounds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--rounds takes whole numbers with commas between them, e.g. 1,3,5; got {text!r}") from None
