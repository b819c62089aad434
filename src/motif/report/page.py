"""From the report's data to one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
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
    """The whole page. Only the title and the no-script line are written as HTML; all else is drawn from the data."""
    script = "\n".join(_asset(name) for name in SCRIPTS)
    # The policy names the script by its hash: even if a text got into the page as HTML, no script in it would run.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(f"{data['head']['name']} – motif run report"),
        "reading": html.escape(data["result"]["reading"]),
        "style": _asset("style.css"),
        "data": to_json(data),
        "script": script,
    }
    # One pass, so that a placeholder inside an inserted text is left alone.
    return re.sub(r"\[\[(\w+)\]\]", lambda match: parts[match[1]], _asset("template.html"))


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
