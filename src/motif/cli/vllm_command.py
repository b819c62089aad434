"""The options of `motif vllm-command`."""

from __future__ import annotations

from typing import Annotated

import typer

from motif.cli.options import Settings
from motif.config import Trust, load_recipe


def vllm_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a TOML file.")],
    settings: Settings = None,
) -> None:
    """Print the commands that start a recipe's vLLM servers, one for each of its sampler.urls."""
    resolved = load_recipe(recipe, settings or [], trust=Trust(uses=()))
    from motif.sampling.vllm.launch import commands

    for line in commands(resolved):
        print(line)
