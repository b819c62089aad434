r"""One spelling for the many ways in which models write mathematics: Unicode, Markdown, code and LaTeX variants.

`clean` changes the spelling of an answer, not its meaning; the rule compares what `clean` returns. Its time is linear
in the length of the text or bounded by the rule's limit on length.
"""

from __future__ import annotations

import functools
import re
import unicodedata

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∗": "*", "÷": "/",
    "⁄": "/", "∶": ":", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "º": r"^\circ ", "±": r"\pm ", "∓": r"\mp ", "…": r"\ldots ",
    "。": ".", "′": "'", "⟨": r"\langle ", "⟩": r"\rangle ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "∑": r"\sum ", "∫": r"\int ",
}  # fmt: skip
_GREEK = {
    chr(code): f"\\{name.lower() if unicodedata.category(chr(code)) == 'Ll' else name.title()} "
    for code in range(0x391, 0x3CA)
    if (name := unicodedata.name(chr(code), "").rpartition(" ")[2]).isalpha() and "WITH" not in name
}
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_RAISED_RUN, _LOWERED_RUN = (re.compile(f"[{''.join(table)}]+") for table in (_RAISED, _LOWERED))

_BRACED = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[Bb]ig+[lr]?)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|phantom\{[^{}]*\}|hspace\{[^{}]*\})(?![A-Za-z])", ""),
        (r"\{,\}|,\s*\\!\s*|\\text\{,\}", ","),
        (r"(?<!\\)\\(?:[,;:!> ]|q?quad(?![A-Za-z])|thinspace(?![A-Za-z]))|~", " "),
        (r"\\(?:mathrm|mathit|mathbf|mathsf|boldsymbol|bm)\{([^{}]*)\}", r"\1"),
        (r"\\(?:text(?:bf|it|rm|sf|tt|normal)|mbox|hbox|operatorname\*?)\{", r"\\text{"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\(?:leq|leqslant|leqq)(?![A-Za-z])", r"\\le "),
        (r"\\(?:geq|geqslant|geqq)(?![A-Za-z])", r"\\ge "),
        (r"\\(?:neq|not\s*=)(?![A-Za-z])", r"\\ne "),
        (r"\\(?:lt|gt)(?![A-Za-z])", lambda m: "<" if m[0] == r"\lt" else ">"),
        (r"\\langle(?![A-Za-z])|<(?=[^<>]*,[^<>]*>\s*$)", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\log_\{?e\}?(?![A-Za-z])", r"\\ln "),
        (r"\^\s*\{?\s*(?:\\circ|\\text\{o\}|\\degree|o(?=\}))\s*\}?|\\degree(?![A-Za-z])", r"^\\circ "),
        (r"(?<![\d.])(\d{1,3})((?: \d{3})+)(?![\d/])", lambda m: m[1] + m[2].replace(" ", ",")),
        # How programs print it.
        (r"\b(?:np|math|sympy)\.", ""),
        (r"\*\*", "^"),
        (r"\^\(([^()]*)\)", r"^{(\1)}"),
        (r"\*", r"\\cdot "),
        (r"(?<![\\A-Za-z])(?:exp)\(([^()]*)\)", r"e^{\1}"),
        (r"(?<![A-Za-z])\\?sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])(?:arc|a)(sin|cos|tan)(?![A-Za-z])", r"\\arc\1 "),
        (r"(?<![\\A-Za-z])(sin|cos|tan|ln|log|sqrt|pi|infty)(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z])(?:infinity|oo)(?![A-Za-z])|\\text\{\s*infinity\s*\}", r"\\infty "),
        (r"\+\s*-", "- "),
        (r"(\d|\})\s+i(?![A-Za-z])", r"\1i"),
        (r"\\imath(?![A-Za-z])", "i"),
        (r"(?<=\d)\s*(?:\^\s*\{?\s*)?(?:\\text\{\s*)?(?:st|nd|rd|th)(?![A-Za-z])\s*\}?\s*\}?", ""),
        (r"\s*\\text\{\s*to\s*\}\s*", ":"),
        (r"\b(?:square|sq\.?) ([A-Za-z]+)", r"\1^2"),
        (r"\bcubic ([A-Za-z]+)", r"\1^3"),
        (r"\b(percent) (?:increase|decrease|chance|off)\b", r"\1"),
        (r"\s+", " "),
    )
)
# Words in lists. Between inequalities they matter, and `motif.grading.math.intervals` reads them.
_LISTED = re.compile(r",?\s*\\text\{\s*,?\s*(?:and|or)\s*\}\s*|,\s*(?:and|or)\s+|(?<=\S)\s+(?:and|or)\s+(?=[^a-z])")
_INEQUALITY = re.compile(r"[<>]|\\[lgn]e(?![A-Za-z])")
_LEAD = re.compile(
    r"^\\approx(?![A-Za-z])\s*|^\\text\{[^{}]*\b(?:is|are|equals)\b[^{}]*\}\s*(?=[^\s])"
    r"|^(?:the )?(?:final )?answer is:? ",
    re.IGNORECASE,
)
_TAIL = re.compile(r"(?<=\S)[\s,]*\\text\{\s*(?:for|where|with|if|when|since)\b[^{}]*\}.*$|(?<=[^\s\\])[.,;:]+$")
_WRAPS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"), ("{", "}"))


@functools.lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """The answer in the spelling that the rule compares; a second application changes nothing that matters."""
    text = _unwrapped(_plain(text).strip())
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    if not _INEQUALITY.search(text):
        text = _LISTED.sub(", ", text)
    text = _LEAD.sub("", text.strip())
    return _unwrapped(_TAIL.sub("", text).strip())


def without_text(text: str) -> str:
    r"""The words of `\text{…}` without the command."""
    return re.sub(rf"\\text{_BRACED}", r" \1 ", text)


def _plain(text: str) -> str:
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    for mark, table, runs in (("^", _RAISED, _RAISED_RUN), ("_", _LOWERED, _LOWERED_RUN)):
        text = runs.sub(lambda run, mark=mark, table=table: f"{mark}{{{''.join(table[c] for c in run[0])}}}", text)  # type: ignore[misc]
    text = "".join(map(_character, text))
    text = re.sub(r"√\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"√\s*(\w+)", r"\\sqrt{\1}", text)


def _character(char: str) -> str:
    if char in _SYMBOLS or char in _GREEK:
        return _SYMBOLS.get(char) or _GREEK[char]
    kind, _, _ = unicodedata.decomposition(char).partition(" ")
    if kind == "<fraction>":
        top, _, below = unicodedata.normalize("NFKC", char).partition("⁄")
        return f"\\frac{{{top}}}{{{below}}}"
    return unicodedata.normalize("NFKC", char) if kind in ("<wide>", "<narrow>", "<noBreak>", "<compat>") else char


def _unwrapped(text: str) -> str:
    """The text without the marks that enclose all of it."""
    again = True
    while again:
        again = False
        for left, right in _WRAPS:
            inner = text[len(left) : -len(right)]
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                if text.endswith("\\" + right) or (left in inner) or (right in inner):
                    continue
                text, again = inner.strip(), True
        stripped = text.rstrip(".").strip() if not text.endswith("..") else text
        again, text = again or stripped != text, stripped
    return text
