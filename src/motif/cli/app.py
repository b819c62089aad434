"""The `motif` command: its subcommands, and how their errors reach a user."""

from __future__ import annotations

import atexit
import errno
import functools
import gc
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from motif import __version__
from motif.cli import streams
from motif.cli.compare import compare
from motif.cli.doctor import doctor
from motif.cli.evaluate import evaluate
from motif.cli.export import export
from motif.cli.grade import grade
from motif.cli.init import init
from motif.cli.options import Command
from motif.cli.probe import probe
from motif.cli.recipes import recipes, show
from motif.cli.report import report
from motif.cli.resume import resume
from motif.cli.runs import runs
from motif.cli.serve import serve
from motif.cli.solve import solve
from motif.cli.traces import traces
from motif.cli.train import train
from motif.cli.view import view
from motif.cli.vllm_command import vllm_command
from motif.errors import MotifError, OutOfResources, PeerFailed, ran_out
from motif.text import expanded, harmless

COMMANDS: dict[str, Callable[..., None]] = {
    "init": init,
    "recipes": recipes,
    "show": show,
    "train": train,
    "resume": resume,
    "runs": runs,
    "traces": traces,
    "vllm-command": vllm_command,
    "eval": evaluate,
    "probe": probe,
    "solve": solve,
    "serve": serve,
    "grade": grade,
    "compare": compare,
    "view": view,
    "report": report,
    "export": export,
    "doctor": doctor,
}
NOT_OURS = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""What the system says of files and folders that somebody has named; no bug leads there."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as a shell counts it: 128 + SIGINT."""

app = typer.Typer(
    name="motif",
    help="Fine-tune a language model by reinforcement learning so that it thinks in rounds (MOTIF).\n\n"
    "Start with: motif train demo",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"motif {__version__}")
        raise typer.Exit
    rank, count = rank_and_count()
    if count > 1 and context.invoked_subcommand not in ("train", "resume"):
        if rank == 0:
            print(f"motif: several processes can train; start motif {context.invoked_subcommand} once", file=sys.stderr)
        raise typer.Exit(2)


def with_readable_errors(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with errors that a user can act on as one sentence on stderr. Bugs keep their traceback."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        # A shell leaves ~ as it is in --out=~/x, and whoever starts a command without a shell everywhere.
        options = {name: Path(expanded(str(v))) if isinstance(v, Path) else v for name, v in options.items()}
        try:
            command(**options)
        except typer.Exit:
            raise
        except KeyboardInterrupt as stop:
            _stop(str(stop) or "stopped", INTERRUPTED)
        except PeerFailed as error:
            if rank_and_count()[0] != 0:  # the first process reports it for all
                raise typer.Exit(error.exit_status) from None
            _stop(str(error), error.exit_status)
        except MotifError as error:
            _stop(str(error), error.exit_status)
        except Exception as error:
            if reason := ran_out(error):
                _stop(reason, OutOfResources.exit_status)
            if isinstance(error, OSError) and error.errno in NOT_OURS and error.filename is not None:
                _stop(f"{error.filename}: {error.strerror}: choose another, or change its permissions", 2)
            raise

    return run


def _stop(message: str, status: int) -> NoReturn:
    rank, count = rank_and_count()
    process = f" (process {rank} of {count})" if count > 1 else ""
    # The message may quote a stranger's file.
    print(f"motif{process}: {harmless(message)}", file=sys.stderr, flush=True)
    raise typer.Exit(status)


def rank_and_count() -> tuple[int, int]:
    """This process's rank and the number of processes, as accelerate or torchrun set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


for _name, _command in COMMANDS.items():
    # A short help of its own is not cut.
    _summary = (inspect.getdoc(_command) or "").partition("\n\n")[0]
    _listed = " ".join(_summary.split()).rstrip(".")
    app.command(_name, cls=Command, short_help=_listed)(with_readable_errors(_command))


def main() -> None:
    """Entry point of the `motif` command."""
    # transformers and peft each know the other's deprecated names; a user of motif can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    streams.occupy()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of transformers and datasets, which fill a log
    atexit.register(gc.freeze)  # else Python looks for cycles in all of torch at the end, which takes a second
    app()


if __name__ == "__main__":
    main()
