"""From data to one HTML page that is complete in itself: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "assets"
SCRIPTS = (
    *("vendor/uPlot.iife.min.js", "dom.js", "numbers.js", "source.js", "tip.js", "series.js"),
    *("plot.js", "legend.js", "files.js", "figure.js"),
    *("result.js", "cost.js", "tree.js", "trees.js", "app.js"),
)  # joined into one script, in this order
STYLES = ("vendor/uPlot.min.css", "style.css")


@dataclass(frozen=True)
class Page:
    """A page as text, and the security policy that a server sends with it (the text holds its own)."""

    text: str
    policy: str


def to_json(value: Any) -> str:
    """JSON that is safe inside a script element: no `<`, so no end tag and no comment can begin in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def render(data: dict[str, Any], *, live: bool = False, packed: Any = None) -> Page:
    """The page of one or several runs. Only the title and the no-script lines are HTML; scripts draw the rest.

    Args:
        data: from `page_data`.
        live: whether a server answers the page's requests for news and trees.
        packed: the compressed trees of each run, in a saved page.
    """
    title = f"{', '.join(run['name'] for run in data['runs'])} – motif"
    reading = " ".join(f"{run['name']}: {run['result']['reading']}" for run in data["runs"])
    return assemble(
        title,
        reading,
        data | {"live": live},
        [asset(name) for name in SCRIPTS],
        skip_to="trees",
        packed=packed,
        live=live,
    )


def assemble(
    title: str,
    reading: str,
    data: Any,
    scripts: Sequence[str],
    styles: Sequence[str] = (),
    *,
    skip_to: str = "main",
    packed: Any = None,
    live: bool = False,
) -> Page:
    """A page in this style, complete in itself.

    Args:
        reading: the text shown where scripts are off.
        data: goes as JSON into the element `data`, for the scripts.
        styles: style sheets on top of the common ones.
        skip_to: id of the section that the first link leads to.
        packed: more data, in the element `packed`, which need not be parsed at once.
        live: whether the scripts may send requests to the page's own server; they may to no other.
    """
    script = "\n".join(scripts)
    style = "\n".join([*(asset(name) for name in STYLES), *styles])
    # The policy names script and style by their hashes: even if text got into the page as HTML, no script in it would
    # run and no style would apply.
    policy = policy_of(script, style, live)
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "reading": html.escape(reading),
        "skip": html.escape(skip_to),
        "style": style,
        "data": to_json(data),
        "packed": to_json(packed),
        "script": script,
    }
    # One pass, so that a placeholder inside an inserted text is left alone.
    text = re.sub(r"\[\[(\w+)\]\]", lambda match: parts[match[1]], asset("template.html"))
    return Page(text, policy)


def policy_of(script: str, style: str, live: bool) -> str:
    """The policy of a page with one script and one style; `live`: it may ask its own server."""
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
    return policy + "connect-src 'self'; " * live + "base-uri 'none'; form-action 'none'"


def asset(name: str, folder: Path = HERE) -> str:
    """The text of an asset, by default of these pages."""
    return (folder / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
