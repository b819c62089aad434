"""From the report's data to one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = ("dom.js", "charts.js", "tree.js", "trees.js", "cost.js", "app.js")  # joined in this order into one script


def to_json(value: Any) -> str:
    """JSON that is safe inside a script element: no `<`, so no end tag and no comment can begin in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def render(data: dict[str, Any]) -> str:
    """The report of a run. Only the title and the no-script line are written as HTML; all else is drawn from data."""
    title, reading = f"{data['head']['name']} – motif run report", data["result"]["reading"]
    return assemble(title, reading, data, [asset(name) for name in SCRIPTS], skip_to="trees")


def assemble(
    title: str, reading: str, data: Any, scripts: Sequence[str], styles: Sequence[str] = (), skip_to: str = "main"
) -> str:
    """A page in the report's style that needs nothing else.

    Args:
        reading: what to say where scripts are off.
        data: what the scripts find as JSON in the element `data`.
        styles: style sheets on top of the report's.
        skip_to: id of the section that the first link leads to.
    """
    script = "\n".join(scripts)
    # The policy names the script by its hash: even if a text got into the page as HTML, no script in it would run.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "reading": html.escape(reading),
        "skip": html.escape(skip_to),
        "style": "\n".join([asset("style.css"), *styles]),
        "data": to_json(data),
        "script": script,
    }
    # One pass, so that a placeholder inside an inserted text is left alone.
    return re.sub(r"\[\[(\w+)\]\]", lambda match: parts[match[1]], asset("template.html"))


def asset(name: str) -> str:
    """The text of a file that goes into pages."""
    return (HERE / name).read_text(encoding="utf-8")
