"""The options of `motif recipes` and `motif show`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from motif.cli.options import Settings
from motif.config import RECIPES, Trust, load_recipe, read_toml, shipped_recipes
from motif.config.load import find_recipe
from motif.display import PlainConsole
from motif.text import harmless, read_text


def recipes() -> None:
    """List the shipped recipes. motif show NAME prints one, motif train NAME runs it."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name in shipped_recipes():
        table.add_row(name, str(read_toml(RECIPES / f"{name}.toml").get("about", "")))
    PlainConsole().print_table(table)


def show(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a TOML file or a run folder.")],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print all settings, with the defaults of those not given.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Print a recipe with its comments, e.g. to copy it: motif show recommended > mine.toml."""
    if resolved or settings:
        print(harmless(load_recipe(recipe, settings or [], trust=Trust(uses=())).to_toml()), end="")
        return
    path = find_recipe(recipe)
    read_toml(path)  # refuses what is no recipe
    print(harmless(read_text(path)), end="")
