"""The options of `motif traces`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from motif.cli.options import Settings
from motif.cli.streams import loading, need_file, need_folder
from motif.config import Trust, load_recipe
from motif.config.trust import TRAINING
from motif.errors import UsageError


def traces(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a TOML file, with a section [warmstart].")],
    out: Annotated[Path, typer.Option(help="The JSON lines to write.")],
    settings: Settings = None,
    left_out: Annotated[
        Path | None, typer.Option(help="Write each omitted row to this file, with its line number and the reason.")
    ] = None,
) -> None:
    """Write the demonstrations that a warm start would train on, to be read and edited.

    Train on them with warmstart.source = "file". With source = "self" the untrained model is sampled.
    """
    resolved = load_recipe(recipe, settings or [], trust=Trust(uses=TRAINING))
    if not resolved.warmstart.source:
        raise UsageError('the recipe has no warm start: add --set warmstart.source=solutions, or "self"')
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out")
    need_folder(out.parent)
    need_file(left_out, "--left-out")
    with loading():
        from motif.display import Display
        from motif.run_files import OWN_SAMPLES, TEACHER
        from motif.session import open_session
        from motif.training.own_samples import sample_demonstrations
        from motif.training.sources import demonstrator, read_demonstrations
        from motif.training.teacher import ask_teacher

    display, session = Display(), open_session(resolved)
    try:
        if resolved.warmstart.source == "self":
            with display:
                record = out.with_name(f"{out.name}.{OWN_SAMPLES}")
                found = sample_demonstrations(session, 0, display, record).found
            found.refuse_none()
        elif resolved.warmstart.source == "teacher":
            with display:
                found = ask_teacher(session, display, out.with_name(f"{out.name}.{TEACHER}"), lambda: False).found
            found.refuse_none()
        else:
            found = read_demonstrations(session.recipe, session.task, demonstrator(session), session.grader)
    finally:
        session.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as file:
        for tree in found.trees:
            line: dict[str, Any] = {"question": tree.question.text, "answer": tree.question.gold}
            if tree.question.pieces:
                line["pieces"] = list(tree.question.pieces)
            file.write(json.dumps(line | {"rounds": [node.text for node in tree.walk()]}, ensure_ascii=False) + "\n")
    if left_out is not None:
        left_out.write_text("".join(f"{row}\n" for row in found.dropped), encoding="utf-8")
    display.message(f"{out}: {found.words()}")
