"""The variables of a chat template that a recipe can set, found out by rendering it with each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from motif.config.rounds import TEMPLATE_ARGUMENTS
from motif.method.template import ASSISTANT, USER, ChatTemplate

VALUES: tuple[bool | str, ...] = (False, True, "low", "high")
"""What is tried: switches, and degrees of effort; whatever else a variable takes shows as text."""
OTHER = re.compile(r"tool|document|image|video|audio|messages|_token$|^(?:range|namespace|cycler|joiner|lipsum|dict)$")
"""Names of what is no matter of wording, and of what templates have without being given it."""


@dataclass(frozen=True)
class Effect:
    """What a value of a variable changes, beside leaving it out.

    response: how the template begins a response then; None: as before. prompt: whether what comes before it differs.
    """

    name: str
    value: bool | str
    response: str | None
    prompt: bool

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else repr(self.value)
        parts = [] if self.response is None else [f"a response begins with {self.response!r}"]
        parts += ["the prompt differs"] if self.prompt else []
        return f"{self.name} = {value}: {' and '.join(parts)}"


def effects(template: ChatTemplate) -> list[Effect]:
    """What each variable of a template does; of values that do the same, only the first is told."""
    bare = template.without_variables()
    default = _parts(bare, {})
    found = []
    for name in _names(bare):
        seen = [default]
        for value in VALUES:
            parts = _parts(bare, {name: value})
            if parts is None or default is None or parts in seen:
                continue
            seen.append(parts)
            prompt, response = parts
            found.append(Effect(name, value, None if response == default[1] else response, prompt != default[0]))
    return found


def _parts(template: ChatTemplate, variables: dict[str, Any]) -> tuple[str, str] | None:
    """What a template writes up to the end of the question, and behind it; None where it fails."""
    chat = [{"role": "user", "content": USER}]
    text = template.attempt(chat, True, variables)
    before, found, after = text.rpartition(USER)
    return (before, _response(after, template)) if found else None


def _response(after: str, template: ChatTemplate) -> str:
    """What is written of the response itself: all behind the header that also a given response has."""
    turns = (("user", USER), ("assistant", ASSISTANT), ("user", "1"))
    given = template.attempt([{"role": role, "content": content} for role, content in turns], False)
    header = given.rpartition(USER)[2].partition(ASSISTANT)[0] if ASSISTANT in given else ""
    length = 0
    while length < min(len(after), len(header)) and after[length] == header[length]:
        length += 1
    return after[length:].lstrip("\n")


def _names(template: ChatTemplate) -> list[str]:
    """Names that a template takes from outside."""
    from jinja2 import TemplateError, meta
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = template.source.removeprefix(template.clock)
    source = re.sub(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}", "", source)  # a mark of transformers' own
    try:
        tree = ImmutableSandboxedEnvironment(extensions=[loopcontrols]).parse(source)
    except TemplateError:  # an extension of somebody else's
        return []
    names = meta.find_undeclared_variables(tree) - TEMPLATE_ARGUMENTS - set(template.tokenizer.special_tokens_map)
    return sorted(name for name in names if not OTHER.search(name))
