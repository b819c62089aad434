"""The options of `motif serve`."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from motif.cli.options import Pieces, Settings
from motif.cli.streams import loading
from motif.config import Trust
from motif.config.trust import PROMPT
from motif.errors import UsageError
from motif.evaluation.target import Target, find_target
from motif.hosts import bound
from motif.runs.read import is_run, not_a_run
from motif.serve import require_extra

KEYS = "MOTIF_API_KEY"


class UpstreamApi(StrEnum):
    """The API of an upstream server that continues prompts."""

    completions = "completions"
    chat = "chat"


Model = Annotated[
    str, typer.Argument(metavar="MODEL_OR_RUN", help="A run folder, or a model: hub id, folder, .gguf, embedded, …")
]
ApiKeys = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY", help=f"An API key to accept. Repeatable. Better: set {KEYS}, with commas between keys."
    ),
]
UpstreamUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="An OpenAI-compatible server that runs the model, e.g. http://vllm:8000/v1."),
]
UpstreamBody = Annotated[
    str, typer.Option(metavar="JSON", help="Fields added to upstream requests, e.g. '{\"top_k\": -1}'.")
]
Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 means all addresses of this machine.")]
Name = Annotated[str | None, typer.Option(help="The model's id in the API. Default: the folder's or model's name.")]
EarlyFinish = Annotated[
    bool,
    typer.Option(
        "--early-finish", help="Stop after the first round that gives an answer, unless a request says otherwise."
    ),
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Answers generated at once. Default: rollout.max_rows.")]
Queue = Annotated[
    int | None, typer.Option(min=0, help="Requests that may wait; more are refused with status 429. Default: 256.")
]
Timeout = Annotated[float | None, typer.Option(min=0.1, help="Time limit of a request, in seconds. Default: 600.")]
Grace = Annotated[float, typer.Option(min=0, help="Seconds that requests in progress may take when the server stops.")]
MaxTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Most new tokens per round that a request may ask for. Default: as in training."),
]
MaxBody = Annotated[int | None, typer.Option(min=1, help="Largest request body, in bytes. Default: 1048576.")]
Api = Annotated[
    UpstreamApi, typer.Option(help="completions sends token ids, exactly as in training; chat sends messages.")
]
UpstreamModel = Annotated[str, typer.Option(help="The model's name at the upstream. Default: its only model.")]
KeyVariable = Annotated[str, typer.Option(help="The environment variable with the upstream's API key.")]


def serve(
    model: Model,
    recipe: Annotated[str | None, typer.Option(help="For a model: the recipe that says how it thinks.")] = None,
    base: Annotated[bool, typer.Option("--base", help="For a run: the model as it was before training.")] = False,
    best: Annotated[bool, typer.Option("--best", help="For a run: the best checkpoint.")] = False,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 picks a free one.")] = 8000,
    api_key: ApiKeys = None,
    name: Name = None,
    pieces: Pieces = None,
    early_finish: EarlyFinish = False,
    concurrency: Concurrency = None,
    queue: Queue = None,
    timeout: Timeout = None,
    grace: Grace = 30.0,
    max_tokens: MaxTokens = None,
    max_body: MaxBody = None,
    upstream: UpstreamUrl = None,
    upstream_api: Api = UpstreamApi.completions,
    upstream_model: UpstreamModel = "",
    upstream_key_variable: KeyVariable = "UPSTREAM_API_KEY",
    upstream_body: UpstreamBody = "{}",
    settings: Settings = None,
) -> None:
    """Serve a trained run, or any model, through OpenAI's API, thinking in rounds (docs/serving.md).

    Ctrl-C or SIGTERM refuses new requests and finishes those in progress; a second one stops at once.
    """
    require_extra()
    keys, extra = keys_of(api_key or []), _object(upstream_body)
    target = _target(model, recipe, base, best, settings or [])
    limits = {"concurrency": concurrency, "queue": queue, "timeout": timeout}
    limits |= {"max_tokens": max_tokens, "body": max_body}
    address = None
    if upstream is not None:
        from motif.sampling.openai import UpstreamAddress

        address = UpstreamAddress.parse(upstream, os.environ.get(upstream_key_variable, ""))
    else:
        target.check_weights()
    with bound(host, port) as listener:
        # The imports take seconds: wrong names and a taken address are refused before them.
        with loading():
            from motif.serve.run import ServerOptions, UpstreamConfig, limits_of
            from motif.serve.run import serve as run

        config = UpstreamConfig(address, upstream_api.value, upstream_model, extra) if address else None
        options = ServerOptions(host, port, name or _name(model), keys, early_finish, grace, pieces)
        run(target, options, limits_of(target.recipe, limits), listener, config)


def _target(model: str, recipe: str | None, base: bool, best: bool, settings: list[str]) -> Target:
    if recipe is None and not is_run(Path(model)):
        raise UsageError(
            f"{not_a_run(model)}. To serve it as a model, name the recipe that says how it thinks: "
            "--recipe NAME_OR_FILE"
        )
    trust = Trust(uses=(PROMPT,))  # nothing is graded, and no server of the recipe asked
    return find_target(model, recipe=recipe, base=base, best=best, settings=settings, trust=trust)


def keys_of(given: list[str]) -> tuple[str, ...]:
    """The API keys of the command line and the environment.

    Raises:
        UsageError: one is empty or holds white space, which no client could send.
    """
    keys = [*given, *(os.environ[KEYS].split(",") if KEYS in os.environ else [])]
    if any(not key or key != key.strip() or not key.isprintable() for key in keys):
        raise UsageError(f"an API key is empty or begins or ends with white space (--api-key, {KEYS})")
    return tuple(keys)


def _name(model: str) -> str:
    return Path(model).resolve().name if Path(model).exists() else model


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"--upstream-body takes a JSON object, got {text!r}")
    return value
