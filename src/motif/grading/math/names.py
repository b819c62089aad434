r"""What stands before a value: names with a sign of equality, leads such as "the answer is", and domains of letters."""

from __future__ import annotations

import re

from motif.grading.math.latex import split, without_text
from motif.grading.math.words import ABOUT_ANSWERS, CHANGED, FACT_WORDS, NEGATIVE, is_value

_GREEK = (
    r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|omega|kappa|eta|zeta|xi|psi|ell|Delta|"
    r"Omega|Gamma|Phi)"
)
_NAME = re.compile(
    r"(?:\\(?:vec|hat|bar|overline|tilde|overrightarrow|widehat)\s*\{?\s*[A-Za-z]{1,3}\s*\}?"
    rf"|m?\s*\\?(?:angle|triangle)\s*[A-Z]{{1,4}}|\|?[A-Z]{{2,3}}\|?|[A-Za-z]|{_GREEK})"
    r"(?:_\s*(?:\{[^{}]*\}|\w))?(?:\^\s*\{?-1\}?(?=\s*\()|'{1,2})?"
    r"(?:\s*\([\w\s,.\\]*\)|(?<=[A-Zfgh}'1])\s*\([^()]*\))?"
)
_IN_WORDS = re.compile(r"\\text\s*\{[^{}]*\}|[A-Z]?[a-z]{2,}(?: [A-Za-z]+){0,4}")
_LETTER = r"[A-Za-z](?:_\{?\w\}?)?"
_ASKED = re.compile(
    rf"{_LETTER}(?:\s*(?:[-+]|\\cdot|\\times|/|:)?\s*{_LETTER})+"
    r"|\\frac\s*\{?[A-Za-z]\}?\s*\{?[A-Za-z]\}?|\\frac\s*\{d[A-Za-z]?\}\{d[A-Za-z]\}"
    r"|(?:[PE]|Var|Pr|\\text\s*\{\s*\w+\s*\})\s*\(.*\)|\|(?:[zwvu]|[A-Z]{1,3}|\\vec\s*\{?\w\}?)\|"
    r"|\\(?:lim|int|sum|prod|det|max|min|deg|dim|gcd)(?![A-Za-z]).*"
    r"|\\(?:sin|cos|tan)\s*[({]?\s*(?:[A-Z]|\\(?:theta|alpha|beta|phi)|\\angle\s*[A-Z]+)\s*[)}]?"
)
_BEFORE = (
    r"approximately|approx\.?|about|roughly|around|exactly|precisely|a total of|so|thus|hence|therefore|"
    r"final answer|answer"
)
_LEAD = re.compile(
    rf"(?:\\therefore|\\implies|\\approx|\\simeq|\\text\s*\{{\s*(?:{_BEFORE})[:,]?\s*\}}|(?:{_BEFORE})(?=[,\s])"
    r"|(?:final )?answer\s*:|=|:)[,\s]*(?=\S)",
    re.IGNORECASE,
)
_LABEL = re.compile(r"(?:\\text\s*\{\s*([A-Za-z ]{2,}):\s*\}|([A-Z][a-z]+(?: [a-z]+){0,3}):)\s*(?=\S)")
_SAID = re.compile(
    r"(?:\\text\s*\{\s*(?P<subject>[^{}]*?)\b(?:is|are|equals|be)\s*:?\s*\}"
    r"|(?P<bare>(?:[A-Za-z]{2,}|[aA]|I|[xyzn](?= is))(?: [A-Za-z]{2,}| [a-zA-Z](?= ))*?) (?:is|are|equals)"
    r"(?: equal to)?:?)\s*(?=\S)"
)
_FACTS = re.compile(
    r"(?:,|;)?\s*(?:\\text\s*\{\s*,?\s*(?:for|where|with)\b|(?<=[\s,])(?:for (?:all|any|every)|where)\b"
    r"|\(?\s*\\forall|(?<=[\s,;])\(?\s*[A-Za-z]\s*\\in\s*\\mathbb\{[RZNQC]\})"
)
_DOMAINS = {
    "integer": "Z",
    "integers": "Z",
    "real": "R",
    "natural": "N",
    "constant": "constant",
    "constants": "constant",
}


def is_plain(text: str) -> bool:
    """Whether a text names one letter, object or function, so that what it equals is its value."""
    return bool(_NAME.fullmatch(text) or _IN_WORDS.fullmatch(text))


def is_asked_for(text: str) -> bool:
    """Whether a text is what a question may ask for: a sum of letters, a probability, a limit."""
    return bool(_ASKED.fullmatch(text))


def is_denied(text: str) -> bool:
    """Whether a name in words says that what it equals is not the answer."""
    return not _NAME.fullmatch(text) and _is_changed(without_text(text))


def name(text: str) -> str:
    """A name in one spelling, without the arguments of a function."""
    return re.sub(r"[\s{}|]|\\text|\([^()]*\)$|\\(?:vec|hat|bar|overline)", "", text)


def names(text: str) -> list[str]:
    """The names in a bracket, such as `(x, y)`; none for other text."""
    if not re.fullmatch(r"\(.*,.*\)", text):
        return []
    parts = [part.strip() for part in split(text[1:-1], [","])]
    return [name(part) for part in parts] if all(_NAME.fullmatch(part) for part in parts) else []


def after_lead(text: str) -> str | None:
    """What follows "the answer is", "Total:" or a sign such as = or ≈; None where nothing of the kind leads."""
    lead = _LEAD.match(text)
    if lead and lead.end() < len(text):
        return text[lead.end() :]
    for form in (_LABEL, _SAID):
        match = form.match(text)
        if match:
            subject = next((group for group in match.groups() if group is not None), "")
            if form is _LABEL and re.fullmatch("(?:option|choice) ?[A-J]?|[A-J]", subject.strip()):
                continue
            return None if _is_changed(subject) else text[match.end() :]
    return None


def _is_changed(subject: str) -> bool:
    """Whether the words before a value say that it is not the answer, or not yet."""
    words = re.findall(r"[^\W\d_]+", subject.casefold())
    if any(word in NEGATIVE or word in CHANGED or is_value(word) for word in words):
        return True
    if "answer" in words and not ABOUT_ANSWERS.issuperset(words):
        return True
    return bool(re.search(r"\d|(?:square|cube|one) of|one (?:less|more)", subject)) or len(words) > 10


def domain(text: str) -> tuple[str, frozenset[str], str] | None:
    """A text without the domain of a letter at its end, the letters, and the domain; None where there is none."""
    match = _FACTS.search(text)
    if match is None or not match.start():
        return None
    tail = re.sub(r"\\text\s*\{|[{}]", " ", text[match.start() :])
    found = re.search(r"\\mathbb\s*([RZNQC])", tail)
    words = re.findall(r"[A-Za-z]+|[^\sA-Za-z]", re.sub(r"\\(?:mathbb\s*[RZNQC]|in|forall)(?![A-Za-z])", " ", tail))
    letters = {word for word in words if len(word) == 1 and word.isalpha() and word != "a"}
    if any(word not in FACT_WORDS and word not in letters and word not in ",()" for word in words):
        return None
    named = found[1] if found else next((_DOMAINS[word] for word in words if word in _DOMAINS), "")
    return text[: match.start()].strip(), frozenset(letters), named


def phrase(text: str) -> str:
    """A text as words, in lower case."""
    return without_text(text).casefold()
