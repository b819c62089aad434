"""The site: `make docs` turns this folder, the studies and the change log into build/docs.

The source folder is the repository, so that links between pages are the same there and here. Links to other files
(code, results) become copies of them. Warnings, such as a link to a heading that is not there, are errors.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from sphinx.ext.napoleon import Config, GoogleDocstring

from motif import __version__
from motif.config import Recipe

project = "motif"
version = release = __version__
copyright = "the authors of motif; Apache-2.0"
root_doc = "docs/index"
include_patterns = ["docs/*.md", "studies/**.md", "tests/cases/README.md", "CHANGELOG.md"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3  # GitHub's anchors, so that a link works there and here
suppress_warnings = [
    "toc.not_included",  # tables of studies are reached from their reports; of pages the tests ask it
]

html_theme = "furo"  # it loads nothing from elsewhere
html_title = "motif"
html_static_path = ["_static"]
html_css_files = ["motif.css"]
html_additional_pages = {"index": "first.html"}  # where one looks first: leads to docs/index.html
templates_path = ["_templates"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"


def google_style(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Arguments and errors as lists. Not for settings: napoleon takes what stands before a colon there for a type."""
    if what not in ("attribute", "property"):
        style = Config(napoleon_use_param=True, napoleon_use_rtype=False)
        lines[:] = GoogleDocstring(lines, style, app, what, name, obj, options).lines()


def settings() -> str:
    """Every setting of a recipe as Markdown, from the recipe's own schema."""
    schema = Recipe.model_json_schema()
    lines = []
    for section, entry in schema["properties"].items():
        if "$ref" not in entry:
            continue  # name and about
        model = schema["$defs"][entry["$ref"].rpartition("/")[2]]
        lines += [f"## {section}", "", model["description"], ""]
        for key, field in model["properties"].items():
            default = f"`` {json.dumps(field['default'], ensure_ascii=False)} ``"
            about = " ".join(field.get("description", "").split())
            lines += [f"`{section}.{key}` = {default}", f": {about} *{kind(field)}.*".replace(":  ", ": "), ""]
    return "\n".join(lines)


def kind(field: dict[str, Any]) -> str:
    """What values a setting takes, in words."""
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
    }
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return ", ".join([words[field["type"]], *(f"{say} {field[key]:g}" for key, say in limits.items() if key in field)])


def fill_in(app: Any, page: str, text: list[str]) -> None:
    """Put the settings where their page has the remark for them."""
    text[0] = text[0].replace("<!-- settings -->", settings()) if page == "docs/settings" else text[0]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", google_style)
    # Sphinx gives the warning no type to suppress it by; a page that is not there yet is no error.
    logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda record: "glob pattern" not in str(record.msg))
