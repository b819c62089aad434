"""The options of `motif solve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from motif.cli.options import Pieces, Settings
from motif.cli.streams import loading, need_output
from motif.config import Trust, load_recipe
from motif.config.trust import PROMPT
from motif.errors import UsageError
from motif.runs.read import recipe_of
from motif.runs.trained import check_trained, has_weights
from motif.text import decoded, read_text

DEMO = Path("runs/demo")


def solve(
    question: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUESTION",
            help='The question, e.g. "What is 15 × 24?"; - reads standard input. Without one: a conversation.',
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A run folder. Default: runs/demo if it exists.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Use the untrained model of this recipe. Default without a run: demo.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Number of rounds. Default: as in training.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Sample instead of decoding greedily.")] = False,
    seed: Annotated[int, typer.Option(help="Seed for --sample.")] = 0,
    early_finish: Annotated[
        bool, typer.Option("--early-finish", help="Stop after the first round that gives an answer.")
    ] = False,
    pieces: Pieces = None,
    file: Annotated[Path | None, typer.Option(help="Read the question from this file.")] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Treat each line of the file or of standard input as a question.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each question.")] = False,
    settings: Settings = None,
) -> None:
    """Answer questions and show each round as it is generated.

    Without a question, in a terminal, this starts a conversation: Ctrl-C stops an answer, Ctrl-D exits.
    """
    need_output("nobody could read an answer")
    questions = questions_from(" ".join(question) if question else None, file, lines)
    if run is not None and recipe is not None:
        raise UsageError("a run has its own recipe: give --run or --recipe, and --set to change a setting")
    if run is None and recipe is None and has_weights(DEMO):
        run = DEMO
    source = recipe or "demo"
    changes, trust = settings or [], Trust(uses=(PROMPT,))  # nothing is graded, and no server asked
    changes = ["sampler.precision=float32", *changes]  # that of rollouts; 8 bits have to be asked for
    resolved = load_recipe(source, changes, trust=trust) if run is None else recipe_of(run, changes, trust)
    if run is not None:
        check_trained(run, resolved.model)
    # The imports take seconds: wrong names are refused before them.
    with loading():
        from motif.cli.conversation import Conversation
        from motif.evaluation.target import Target

    target = Target(str(run or source), resolved, run, Path())
    with Conversation(target, rounds, seed if sample else None, early_finish, as_json, pieces) as conversation:
        if questions is None:
            conversation.interactive()
        else:
            conversation.answer_all(questions)


def questions_from(question: str | None, file: Path | None, lines: bool) -> list[str] | None:
    """The questions of the command line, a file or standard input; None: they will be typed.

    Raises:
        UsageError: there is none, or more than one place to take it from.
    """
    if question not in (None, "-"):
        if file or lines:
            raise UsageError("give the question itself, or --file, or - for standard input (with or without --lines)")
        text = str(question)
    elif file is not None:
        if question == "-":
            raise UsageError("--file and - are two places to read from: choose one")
        try:
            text = read_text(file)
        except OSError as error:
            raise UsageError(f"--file {file}: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"--file {file}:{error}") from None
    elif question == "-" or not (sys.stdin and sys.stdin.isatty()):
        text = standard_input()
    elif lines:
        raise UsageError("--lines needs a file or standard input")
    else:
        return None
    questions = [line.strip() for line in (text.splitlines() if lines else [text]) if line.strip()]
    if not questions:
        raise UsageError('the question is empty: give one, e.g. motif solve "What is 15 × 24?"')
    return questions


def standard_input() -> str:
    """All of standard input.

    Raises:
        UsageError: it is closed, or no text.
    """
    if sys.stdin is None:
        raise UsageError("no question, and standard input is closed")
    try:
        return decoded(sys.stdin.buffer.read())
    except OSError as error:
        raise UsageError(f"standard input: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"standard input:{error}") from None
