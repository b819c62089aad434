"""The site: `make docs` turns this folder, the studies and the change log into build/docs.

The source folder is the repository, so that links between pages are the same in both. A link to another file (code,
results) becomes a copy of it. A warning, such as a link to a heading that does not exist, is an error.
"""

from __future__ import annotations

import json
from typing import Any

from sphinx.ext.napoleon import Config, GoogleDocstring

from motif import __version__
from motif.config import Recipe

project = "motif"
version = release = __version__
copyright = "the authors of motif; Apache-2.0"
root_doc = "docs/index"
include_patterns = ["docs/*.md", "studies/**.md", "tests/cases/README.md", "*.md"]
exclude_patterns = ["README.md"]  # the front page of the repository; docs/index is that of the site
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3  # GitHub's anchors, so that a link works there and here
suppress_warnings = [
    "toc.not_included",  # reports link to the tables of studies; a test checks that all other pages are included
]

html_theme = "furo"  # loads nothing from other hosts
html_title = "motif"
html_static_path = ["_static"]
html_css_files = ["motif.css"]
html_additional_pages = {"index": "first.html"}  # the page that a browser opens first leads to docs/index.html
templates_path = ["_templates"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"


def google_style(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn arguments and errors into lists; not for settings, where napoleon takes a text before a colon for a type."""
    if what not in ("attribute", "property"):
        style = Config(napoleon_use_param=True, napoleon_use_rtype=False)
        lines[:] = GoogleDocstring(lines, style, app, what, name, obj, options).lines()


def settings() -> str:
    """Return every setting of a recipe as Markdown, from the recipe's own schema."""
    schema = Recipe.model_json_schema()
    entries = {name: entry for name, entry in schema["properties"].items() if "$ref" in entry}  # not name and about
    return "\n".join(line for name, entry in entries.items() for line in section(name, entry, schema["$defs"]))


def section(name: str, entry: dict[str, Any], models: dict[str, Any]) -> list[str]:
    """The lines of one section, and after them those of its sub-sections."""
    model = models[entry["$ref"].rpartition("/")[2]]
    lines, below = [f"## {name}", "", model["description"], ""], []
    for key, field in model["properties"].items():
        if "$ref" in field:
            below += section(f"{name}.{key}", field, models)
            continue
        default = f"`` {json.dumps(field.get('default', {}), ensure_ascii=False)} ``"
        about = " ".join(field.get("description", "").split())
        lines += [f"`{name}.{key}` = {default}", f": {about} *{kind(field)}.*".replace(":  ", ": "), ""]
    return lines + below


def kind(field: dict[str, Any]) -> str:
    """Describe the values that a setting takes."""
    if "anyOf" in field:
        return " or ".join(kind(each) for each in field["anyOf"])
    if "enum" in field:
        return "One of " + ", ".join(f"`{value}`" for value in field["enum"])
    words = {
        "integer": "Whole number",
        "number": "Number",
        "string": "Text",
        "boolean": "`true` or `false`",
        "array": "List",
        "object": "Table",
    }
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return ", ".join([words[field["type"]], *(f"{say} {field[key]:g}" for key, say in limits.items() if key in field)])


def fill_in(app: Any, page: str, text: list[str]) -> None:
    """Replace the remark on the page of settings by the settings."""
    text[0] = text[0].replace("<!-- settings -->", settings()) if page == "docs/settings" else text[0]


def setup(app: Any) -> None:
    """Connect the functions above to Sphinx, which calls this."""
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", google_style)
