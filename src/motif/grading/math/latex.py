r"""One spelling for the many ways in which models write mathematics: Unicode, Markdown, code and LaTeX variants.

`clean` changes the spelling of an answer, not its meaning, and drops nothing that says something. Its time is linear in
the length of the text or bounded by the rule's limit on length.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence

_SYMBOLS = {
    "−": "-", "‐": "-", "‑": "-", "–": "–", "—": "–", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "•": r"\cdot ",
    "∗": "*", "÷": "/", "⁄": "/", "∕": "/", "∶": ":", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ",
    "Ø": r"\emptyset ", "°": r"^\circ ", "º": r"^\circ ", "±": r"\pm ", "∓": r"\mp ", "…": r"\ldots ", "⋯": r"\ldots ",
    "。": ".", "′": "'", "’": "'", "‘": "'", "″": "''", "⟨": r"\langle ", "⟩": r"\rangle ", "∖": r"\setminus ",
    "∑": r"\sum ", "∫": r"\int ", "∧": r"\wedge ", "∨": r"\vee ", "→": r"\to ", "≈": r"\approx ", "≅": r"\approx ",
    "∴": r"\therefore ", "⇒": r"\implies ", "∠": r"\angle ", "∣": r"\mid ", "∀": r"\forall ", "ϕ": r"\phi ",
    "ϵ": r"\epsilon ", "ϑ": r"\theta ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "、": ", ", "“": '"', "”": '"', "！": "!", "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\ufeff": "",
    "\u2061": "", "\u2062": " ", "\u00ad": "",
}  # fmt: skip
_GREEK = {
    chr(code): f"\\{name.lower() if unicodedata.category(chr(code)) == 'Ll' else name.title()} "
    for code in range(0x391, 0x3CA)
    if (name := unicodedata.name(chr(code), "").rpartition(" ")[2]).isalpha() and "WITH" not in name
}
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣᵏᵐᵗᵃᵇᵖ", "0123456789+-()nixkmtabp", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉ₐₙₖₘₓ", "0123456789ankmx", strict=True))
_RAISED_RUN, _LOWERED_RUN = (re.compile(f"[{''.join(table)}]+") for table in (_RAISED, _LOWERED))
_FANCY = {"ℝ": "R", "ℤ": "Z", "ℕ": "N", "ℚ": "Q", "ℂ": "C"}

_NAMES = "sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|ln|log|lg|exp|sqrt|pi|infty|gcd|lcm|min|max|det"
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"</?(?:b|i|u|em|strong|span|mark|font|p|div)(?:\s[^<>]*)?>|&nbsp;|<br\s*/?>", " "),
        (r"\\(?:pounds|textsterling)(?![A-Za-z])", "£"),
        (r"\\(?:yen|textyen)(?![A-Za-z])", "¥"),
        (r"\\(?:euro|texteuro)(?![A-Za-z])(?:\{\})?", "€"),
        (r"\\(?:rupee|textrupee)(?![A-Za-z])", "₹"),
        (r"\\textdollar(?![A-Za-z])", r"\\$"),
        (
            r"(?<!\\)\\(?:text|mathrm|textrm)\{\s*(\\?[A-Z]{0,2}\\?\$|[€£¥₹₩₽]|Rs\.?|USD|EUR|GBP|INR|CHF|CAD|AUD)\s*\}\s*(?=[\d\\])",
            r"\1 ",
        ),
        (r"\\\\\[[^\]]{0,8}\]", r"\\\\"),
        (r"\\(?:left|right|[Bb]igg?[lrm]?|middle)(?![A-Za-z])(?:\s*\.(?=\s|$|\\|[|}]))?", ""),
        (
            r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|bf|it|rm|sf|tt|boldmath|large|Large|LARGE|huge|Huge"
            r"|normalsize|small|centering|noindent|hfill|color\s*\{[^{}]*\}|color\[[^\]]*\]\{[^{}]*\}|h?phantom\{[^{}]*\}"
            r"|hspace\*?\{[^{}]*\}|label\{[^{}]*\}|tag\*?\{[^{}]*\})(?![A-Za-z])",
            "",
        ),
        (r"\{,\}|,\s*\\!\s*|\\text\{,\}(?=\d{3})", "\N{SINGLE LOW-9 QUOTATION MARK}"),
        (r"\\[!/](?!\w*\{)", ""),
        (
            r"(?<!\\)\\(?:[,;:> ]|q?quad(?![A-Za-z])|(?:thin|med|thick|en|nobreak)space(?![A-Za-z]))|(?<!~)~(?!~)",
            " ",
        ),
        (r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc|up)|emph|mbox|hbox|operatorname\*?|mathop)\s*\{", r"\\text{"),
        (r"\\(?:mathrm|mathup|text)\s*\{((?:[^{}]*\{[^{}]*\})+[^{}]*)\}", r" \1"),
        (r"\\(?:mathrm|mathup)\s*\{\s*([eid])\s*\}", r"\1"),
        (r"\\(?:mathrm|mathup)\s*\{", r"\\text{"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:leq|leqslant|leqq)(?![A-Za-z])", r"\\le "),
        (r"\\(?:geq|geqslant|geqq)(?![A-Za-z])", r"\\ge "),
        (r"\\(?:neq|not\s*=)(?![A-Za-z])|!=|<>", r"\\ne "),
        (r"<=|=<", r"\\le "),
        (r">=", r"\\ge "),
        (r"\\(?:lt|gt)(?![A-Za-z])", lambda m: "<" if m[0] == r"\lt" else ">"),
        (r"\\(?:var)nothing(?![A-Za-z])|\\O(?![A-Za-z])|\\text\{\s*\\emptyset\s*\}", r"\\emptyset "),
        (r"\\(?:backslash|smallsetminus)(?![A-Za-z])", r"\\setminus "),
        (r"\\var(epsilon|phi|theta|rho|sigma)(?![A-Za-z])", r"\\\1"),
        (r"\\(?:lor)(?![A-Za-z])", r"\\vee "),
        (r"\\(?:land)(?![A-Za-z])", r"\\wedge "),
        (r"\\(?:colon|mathbin\{:\}|mathrel\{:\})(?![A-Za-z])", ":"),
        (r"\\[lcd]?dots[cbmi]?(?![A-Za-z])|\.\.\.+", r"\\ldots "),
        (r"\\Re(?![A-Za-z])|\\reals(?![A-Za-z])|\\R(?![A-Za-z])", r"\\mathbb{R}"),
        (r"\\(?:mathbb|mathbf|Bbb|mathds)\s*\{?\s*([RZNQC])\s*\}?(?=\s*(?:$|[\\^,;.)}\-:|]))", r"\\mathbb{\1}"),
        (r"\\(?:Leftrightarrow|Longrightarrow|Rightarrow|iff)(?![A-Za-z])", r"\\implies "),
        (r"\\lvert(?![A-Za-z])|\\rvert(?![A-Za-z])|\\vert(?![A-Za-z])|\\lVert|\\rVert", "|"),
        (r"\\log_\{?\s*e\s*\}?(?![A-Za-z])", r"\\ln "),
        (
            r"\^\s*\{?\s*(?:\\circ|\\text\{\s*o\s*\}|\\degree|o(?=\}))\s*\}?|\\degree(?![A-Za-z])|\\textdegree",
            r"^\\circ ",
        ),
        (r"(?<![\d.,])(\d{1,3})((?: \d{3})+)(?![\d/,])(?!\.\d{3}\.)", lambda m: m[0].replace(" ", "")),
        (r"(?<=\d)\N{SINGLE LOW-9 QUOTATION MARK}(?=\d{3})", ""),
        (r"\N{SINGLE LOW-9 QUOTATION MARK}", ","),
        # How programs print it.
        (r"\b(?:np|math|sympy|sp|numpy)\.(?=[a-z])", ""),
        (r"\*\*", "^"),
        (r"\^\(([^()]*)\)", r"^{(\1)}"),
        (r"\*", r"\\cdot "),
        (r"(?<![\\A-Za-z{])(?:arc|a)(sin|cos|tan)(?![A-Za-z])", r"\\arc\1 "),
        (rf"(?<![\\A-Za-z{{])({_NAMES})(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z])(?:infinity|oo|Infinity|inf)(?![A-Za-z])|\\text\{\s*infinity\s*\}", r"\\infty "),
        (r"\\imath(?![A-Za-z])", "i"),
        (r"(?:(?<=^)|(?<=[=(,{[]))\s*–\s*(?=[\d\\.])", "-"),
        (r"(?<=\d)\s*(?:\^\s*\{?\s*)?(?:\\text\{\s*)?(?:st|nd|rd|th)(?![A-Za-z])\s*\}?\s*\}?", ""),
        (r"\\text\{\s*\{([^{}]*)\}\s*\}", r"\\text{\1}"),
        (r"(?<![\w}])\\text\{\s*(\d+)\s*\}", r"\1"),
        (r"\s+", " "),
    )
)
# Marks that change how a text looks, not what it says. The last argument is what is marked.
_LOOKS = re.compile(
    r"\\(?:textcolor|mathcolor|colorbox|fcolorbox|fbox|boxed|framebox|underline|uline|uuline|mathbf|boldsymbol|bm|pmb|bold|mathit|"
    r"mathsf|mathtt|mathnormal|mathcal|ensuremath|mathstrut|smash|hl)(?![A-Za-z])\s*(?=[{\[])"
)
_COLOURED = {r"\textcolor": 1, r"\mathcolor": 1, r"\colorbox": 1, r"\fcolorbox": 2}
_WRAPS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("***", "***"), ("**", "**"), ("__", "__"),
          ("```", "```"), ("`", "`"), ('"', '"'), ("*", "*"))  # fmt: skip


@functools.lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """The answer in the spelling that is read; a second application changes nothing that matters."""
    text = unwrapped(without_looks(_plain(text).strip()))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return unwrapped(text.strip())


def without_text(text: str) -> str:
    r"""The words of `\text{…}` without the command, with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)).strip()


def unwrapped(text: str) -> str:
    """The text without the marks and braces that enclose all of it, and without stops at its end."""
    while True:
        before = text
        for left, right in _WRAPS:
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                inner = text[len(left) : -len(right)]
                bare = inner.replace(r"\$", "") if right == "$" else inner
                if not (text.endswith("\\" + right) and right == "$") and left not in bare and right not in bare:
                    text = inner.strip()
        if text.startswith("{") and closing(text, 0) == len(text) - 1:
            text = text[1:-1].strip()
        if not text.endswith((r"\ldots", "..")):
            text = text.rstrip(".,;: ") if not text.endswith("\\ ") and not re.search(r"\\[,;:]$", text) else text[:-2]
        if text == before:
            return text


def without_looks(text: str) -> str:
    r"""The text without colours, frames, underlines and bold type: `\textcolor{red}{5}` is 5."""
    position = 0
    while match := _LOOKS.search(text, position):
        start = match.end()
        for _ in range(_COLOURED.get(match[0].strip(), 0)):
            end = text.find("}", start)
            start = end + 1 if end > 0 else start
        start += len(text[start:]) - len(text[start:].lstrip())
        end = closing(text, start) if text[start : start + 1] == "{" else -1
        if end < 0:
            position = match.end()  # not in the usual form: it stays, and so the answer is text
        else:
            space = " " if match.start() and text[match.start() - 1].isalpha() else ""
            inner = text[start + 1 : end]
            inner = inner if len(inner) == 1 and not text[end + 1 : end + 2].isalnum() else f"{{{inner}}}"
            text = f"{text[: match.start()]}{space}{inner}{text[end + 1 :]}"
            position = match.start()
    return text


def closing(text: str, start: int) -> int:
    """Where the brace that opens at `start` is closed; -1 if it is not."""
    depth, position = 0, start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return -1


_TOKEN = re.compile(r"\\(?:begin|end)\{[a-z*]+\}|\\text\s*\{[^{}]*\}|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = {"(": 1, "[": 1, "{": 1, r"\{": 1, r"\langle": 1, r"\lfloor": 1, r"\lceil": 1}
_CLOSING = {")": 1, "]": 1, "}": 1, r"\}": 1, r"\rangle": 1, r"\rfloor": 1, r"\rceil": 1}


def top_level(text: str) -> Iterator[tuple[str, int, int, int]]:
    """The tokens of a text outside all brackets and environments: the token, its start, its end, and the depth.

    A depth below 0 shows a bracket that is closed but was not opened, as in `]0,1[`.
    """
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _CLOSING or token.startswith(r"\end"):
            depth -= 1
        if depth <= 0:
            yield token, match.start(), match.end(), depth
        if token in _OPENING or token.startswith(r"\begin"):
            depth += 1


def split(text: str, separators: Sequence[str]) -> list[str]:
    """The parts of a text between separators outside all brackets, stripped."""
    parts, start = [], 0
    for token, left, right, depth in top_level(text):
        if depth == 0 and token in separators:
            parts.append(text[start:left].strip())
            start = right
    return [*parts, text[start:].strip()]


def _plain(text: str) -> str:
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    for mark, table, runs in (("^", _RAISED, _RAISED_RUN), ("_", _LOWERED, _LOWERED_RUN)):
        text = runs.sub(lambda run, mark=mark, table=table: f"{mark}{{{''.join(table[c] for c in run[0])}}}", text)  # type: ignore[misc]
    text = re.sub(r"(\d)[\u0305\u0304]", r"\\overline{\1}", text)
    text = re.sub(r"\}\\overline\{", "", text)
    text = "".join(map(_character, text))
    text = re.sub(r"([√∛])\s*\(([^()]*)\)", lambda m: rf"{_ROOTS[m[1]]}{{{m[2]}}}", text)
    return re.sub(r"([√∛])\s*(\d+|\w)", lambda m: rf"{_ROOTS[m[1]]}{{{m[2]}}}", text)


_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]"}


def _character(char: str) -> str:
    if char.isascii():
        return char
    if char in _SYMBOLS or char in _GREEK:
        return _SYMBOLS[char] if char in _SYMBOLS else _GREEK[char]
    if char in _FANCY:
        return rf"\mathbb{{{_FANCY[char]}}}"
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    kind, _, _ = unicodedata.decomposition(char).partition(" ")
    if kind == "<fraction>":
        top, _, below = unicodedata.normalize("NFKC", char).partition("⁄")
        return f"\\frac{{{top}}}{{{below}}}" if below else char
    return (
        unicodedata.normalize("NFKC", char)
        if kind in ("<wide>", "<narrow>", "<noBreak>", "<compat>", "<font>")
        else char
    )
