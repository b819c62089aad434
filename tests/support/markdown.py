"""Reads our Markdown as its tests need it: fenced blocks with the remarks before them, links, anchors.

A remark is an HTML comment directly above a block, so that it can be read in the file and does not show on the page:

    <!-- not run: REASON -->            the block below is not executed
    <!-- exits with 2 -->               its last command ends with this status
    <!-- output -->                     the block below is what the last executed block prints; `…` is any text
    <!-- output, but for its numbers --> the same, with every number replaced by #
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
"""What users read; their blocks are executed."""
LINKED = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "studies").rglob("*.md")),
    *sorted((ROOT / "tests").rglob("*.md")),
]

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<language>[^`\n]*)$")
REMARK = re.compile(r"^<!-- (?P<text>.*) -->$")
REMARKS = re.compile(r"not run: (?P<reason>\S.{9,})|exits with (?P<status>\d+)|output(?P<loose>, but for its numbers)?")


OTHER = re.compile(r"end|from: \w+")
"""Remarks that are for another reader: `tools/pages.py`."""


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, where it stands, and what is remarked about it."""

    page: Path
    line: int
    language: str
    text: str
    remark: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def excused(self) -> bool:
        return self.remark.startswith("not run: ")

    @property
    def is_output(self) -> bool:
        return self.remark.startswith("output")

    @property
    def status(self) -> int:
        found = re.fullmatch(r"exits with (\d+)", self.remark)
        return int(found[1]) if found else 0

    @property
    def file(self) -> str | None:
        """The file that the block is, if its first line says so: `# mine.toml`, `# factors.py, beside the recipe`."""
        found = re.match(r"# ([\w.-]+\.(?:toml|py))\b", self.text)
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    remark, number = "", 0
    while number < len(lines):
        line = lines[number]
        number += 1
        opening = FENCE.match(line)
        if opening:
            start, inside = number, []
            while lines[number].strip() != opening["ticks"]:
                inside.append(lines[number].removeprefix(opening["indent"]))
                number += 1
            number += 1
            found.append(Block(page, start, opening["language"].strip(), "\n".join(inside) + "\n", remark))
            remark = ""
        elif line.strip():
            said = REMARK.match(line.strip())
            remark = said["text"] if said and not OTHER.fullmatch(said["text"]) else ""
    return found


def without_code(page: Path) -> str:
    """The text of a page with blocks and `code` blanked."""
    text, inside = [], ""
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = FENCE.match(line)
        if fence and (not inside or line.strip() == inside):
            inside = "" if inside else fence["ticks"]
            text.append("")
        else:
            text.append("" if inside or line.startswith("    ") else line)
    return re.sub(r"(`+)[^`]+?\1", "", "\n".join(text))


def links(page: Path) -> Iterator[str]:
    """The targets of the links and pictures of a page, but for those on the web."""
    for target in re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", without_code(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, by GitHub's rule, which the site follows too."""
    found: set[str] = set()
    inside = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = FENCE.match(line)
        if fence and (not inside or line.strip() == inside):
            inside = "" if inside else fence["ticks"]
        elif not inside and (heading := re.match(r"#{1,6} +(.+?) *#*$", line)):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            count = 1
            while slug in found:
                slug, count = f"{slug.removesuffix(f'-{count - 1}')}-{count}", count + 1
            found.add(slug)
    return found
