"""Chat templates and special tokens of the families in use, and of kinds that would be read wrongly."""

from __future__ import annotations

import datetime
import resource
from typing import Any

import pytest

from motif.config import RolloutConfig, RoundsConfig, load_recipe
from motif.errors import ModelError, RecipeError
from motif.method import runaway
from motif.method.rounds import Rounds
from motif.method.template import ChatTemplate, stopped_clock
from motif.method.tokens import is_ordinary
from motif.method.tree import Question
from motif.sampling.base import Completion
from motif.sampling.grow import grow
from support.templates import FAMILIES, HARMONY, LLAMA3, PHI3, QWEN3, R1, SPECIAL, tokenizer_of
from support.tiny import CHATML

QUESTION = "What is 2+2?"


def prompted(tokenizer: Any, notes: list[str] | None = None, n: int = 3, **settings: Any) -> str:
    return str(tokenizer.decode(Rounds(RoundsConfig(**settings), tokenizer).prompt(QUESTION, notes or [], n)))


# -- what the model is shown -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_sees_the_whole_of_what_it_is_told(family):
    template, _ = FAMILIES[family]
    text = prompted(tokenizer_of(template), system_prompt="Do{think_open}x{think_close}so. Twice.").lower()
    assert text.count("do<reasoning>x</reasoning>so. twice.") == 1
    assert text.count(QUESTION.lower()) == 1 and "current round: 1 of 3." in text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_response_ends_where_the_template_ends_it(family):
    template, end = FAMILIES[family]
    tokenizer = tokenizer_of(template)
    rounds = Rounds(RoundsConfig(), tokenizer)
    assert rounds.end_ids == {tokenizer.convert_tokens_to_ids(token) for token in (end, "<|endoftext|>")}
    assert ChatTemplate(tokenizer, "system").turn_end() == tokenizer.convert_tokens_to_ids(end)


def test_a_template_of_plain_text_names_no_end_token():
    template = "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}ASSISTANT:"
    assert ChatTemplate(tokenizer_of(template)).turn_end() is None


def test_a_template_that_does_not_show_the_question_is_refused():
    for template in ("{{ messages[0].role }}", "Hello!", CHATML.replace("m.content", "m.content[:20]")):
        with pytest.raises(ModelError, match="leaves out a part"):
            Rounds(RoundsConfig(), tokenizer_of(template))


def test_several_templates_need_a_default():
    tokenizer = tokenizer_of(None)
    tokenizer.chat_template = {"default": CHATML, "tool_use": "x"}
    assert QUESTION in prompted(tokenizer)
    tokenizer.chat_template = {"a": CHATML, "b": CHATML}
    with pytest.raises(ModelError, match="multiple chat templates"):
        prompted(tokenizer)


# -- templates that begin the response ---------------------------------------------------------------------------------

THINK = {"think_tags": ("<think>", "</think>")}
GOOD = "<think>\ntwo and two\n</think>\n<answer>\\boxed{4}</answer>"
OPENINGS = {
    "<think>\n": "\ntwo and two\n</think>\n<answer>\\boxed{4}</answer>",
    "<think>": "two</think><answer>\\boxed{4}</answer>",
    "\n\n<think>\n\n": "two</think><answer>\\boxed{4}</answer>",
    "<think>\nOkay, ": "two</think><answer>\\boxed{4}</answer>",
    "<think>\n\n</think>\n\n": "<answer>\\boxed{4}</answer>",
    "<think></think><answer>": "\\boxed{4}</answer>",
    "": GOOD,
}


class Fixed:
    """A sampler that always gives the same response, as tokens with an end token or as text."""

    def __init__(self, tokenizer: Any, text: str, as_text: bool = False):
        self.tokenizer, self.text, self.as_text = tokenizer, text, as_text

    async def sample(self, request: Any, on_text: Any = None) -> Any:
        for index, _ in enumerate(request.keys):
            ids = [*self.tokenizer(self.text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
            text = self.text if self.as_text else None
            yield Completion(request, index, [] if self.as_text else ids, [0.0] * len(ids), False, text=text)


def grown(tokenizer: Any, text: str, as_text: bool = False, **settings: Any) -> Any:
    rounds = Rounds(RoundsConfig(**settings), tokenizer)
    return grow(
        [Question("a", QUESTION, "4")], Fixed(tokenizer, text, as_text), rounds, RolloutConfig(branching=[1, 1])
    )[0].roots[0]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize(
    "base", [CHATML, PHI3, LLAMA3.replace("assistant<|end_header_id|>\n\n", "assistant<|end_header_id|>\n\n")]
)
def test_what_the_template_opens_counts_as_opened(opening, base, as_text):
    template = base.replace("assistant\n{% endif", "assistant\n" + opening + "{% endif")
    template = template.replace("<|assistant|>\n{% else", "<|assistant|>\n" + opening + "{% else")
    template = template.replace(
        "assistant<|end_header_id|>\n\n' }}{%- endif", f"assistant<|end_header_id|>\n\n{opening}' }}}}{{%- endif"
    )
    tokenizer = tokenizer_of(template)
    node = grown(tokenizer, OPENINGS[opening], as_text, **THINK)
    assert node.well_formed and node.note == "\\boxed{4}" and node.children[0].answer == "4"
    assert Rounds(RoundsConfig(**THINK), tokenizer).final_part(OPENINGS[opening]) == "\\boxed{4}"
    assert not grown(tokenizer, f"<think>{OPENINGS[opening]}", as_text, **THINK).well_formed or not opening


def test_a_closed_block_is_written_where_the_variable_says_so():
    tokenizer = tokenizer_of(QWEN3)
    switched_off = {**THINK, "template_variables": {"enable_thinking": False}}
    assert grown(tokenizer, "<answer>\\boxed{4}</answer>", **switched_off).well_formed
    assert not grown(tokenizer, "<answer>\\boxed{4}</answer>", **THINK).well_formed
    assert prompted(tokenizer, **switched_off).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_tag_that_the_template_only_mentions_is_not_opened():
    template = "Think between <think> and </think>.\n" + CHATML
    assert Rounds(RoundsConfig(**THINK), tokenizer_of(template)).opening == ""
    assert grown(tokenizer_of(template), GOOD, **THINK).well_formed


def test_a_server_that_gives_the_opening_back_is_read_alike():
    rounds = Rounds(RoundsConfig(**THINK), tokenizer_of(R1))
    rest = GOOD.removeprefix("<think>\n")
    assert rounds.read(rounds.continued(rest), False, True) == rounds.read(rounds.continued(GOOD), False, True)
    plain = Rounds(RoundsConfig(**THINK), tokenizer_of(CHATML))
    assert plain.continued(GOOD) == GOOD


# -- special tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags", [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|begin_of_thought|>", "<|end_of_thought|>")]
)
def test_tags_that_are_special_tokens_are_read(tags):
    tokenizer = tokenizer_of(CHATML, special=[*SPECIAL, *tags, "<answer>", "</answer>"])
    node = grown(tokenizer, f"{tags[0]}x{tags[1]}<answer>\\boxed{{4}}</answer>", think_tags=tags)
    assert node.well_formed and node.children[0].answer == "4"
    assert not grown(tokenizer, f"{tags[0]}x{tags[1]}<|im_start|><answer>4</answer>", think_tags=tags).well_formed


def test_end_and_padding_tokens_behind_a_response_are_no_part_of_its_text():
    tokenizer = tokenizer_of(PHI3, pad="<|im_start|>")
    rounds = Rounds(RoundsConfig(), tokenizer)
    for tail in ("", "<|end|>", "<|endoftext|>", "<|end|><|im_start|><|im_start|>", "<|user|>"):
        assert rounds.spell(tokenizer("5! <|channel|>x" + tail)["input_ids"]) == "5! <|channel|>x"
    assert rounds.spell([]) == ""


@pytest.mark.parametrize("word", ["!", "0", "the", "?", " ", "\n", ".", "42", "Yes", "5!", "$$", "it's"])
def test_a_special_token_that_is_ordinary_text_stays_text(word):
    tokenizer = tokenizer_of(CHATML, pad=word)
    question = f"What is 5{word}{word} the 10 {word}?"
    rounds = Rounds(RoundsConfig(system_prompt="", note_tokens=30), tokenizer)
    assert question in tokenizer.decode(rounds.prompt(question, [], 2))
    note = rounds.read(f"<answer>5{word}7 {word}9{'12 ' * 30}</answer>", False, False).note
    assert note.startswith(f"5{word}7 {word}9") and note in tokenizer.decode(rounds.prompt(question, [note], 2))
    assert rounds.spell(tokenizer(f"so 5{word}")["input_ids"]) == f"so 5{word}"


@pytest.mark.parametrize(
    "token",
    ["<s>", "</s>", "[PAD]", "<|im_end|>", "<pad>", "__eou__", "<unk>", "<｜end▁of▁sentence｜>", "{end}", "#PAD#"],
)
def test_a_token_with_markup_is_not_ordinary_text(token):
    assert not is_ordinary(token)
    tokenizer = tokenizer_of(CHATML, pad=token)
    assert f"5{token}" not in tokenizer.decode(Rounds(RoundsConfig(), tokenizer).prompt(f"What is 5{token}?", [], 2))


@pytest.mark.parametrize("template", [None, CHATML, LLAMA3])
def test_no_prompt_ends_with_an_end_token(template):
    tokenizer = tokenizer_of(template, ends_texts=True)
    ids = Rounds(RoundsConfig(), tokenizer).prompt(QUESTION, ["3"], 2)
    assert ids[-1] != tokenizer.eos_token_id and tokenizer.decode(ids).endswith(("\n\n", "assistant\n"))


# -- the clock and variables -------------------------------------------------------------------------------------------


def test_the_clock_of_a_template_stands_still():
    forms = "%d %b %Y, %Y-%m-%d, %B %-d, %A, %H:%M:%S, %j %y %I %p"
    body = "  {% if true %}" + CHATML + "{% endif %}"
    tokenizer = tokenizer_of(body + "{{ strftime_now('" + forms + "') }}")
    for day, settings in (
        (datetime.datetime(2026, 2, 3, 12), {"date": "2026-02-03"}),
        (datetime.datetime(2025, 1, 1, 12), {}),
    ):
        assert prompted(tokenizer, **settings) == prompted(tokenizer_of(body)) + day.strftime(forms)


def test_the_date_is_part_of_the_recipe_and_of_nothing_else():
    recipe = load_recipe("demo", ["rounds.date=2026-02-03"])
    assert 'date = "2026-02-03"' in recipe.to_toml()
    assert "Today Date: 03 Feb 2026" in prompted(tokenizer_of(LLAMA3), date=recipe.rounds.date)
    assert ChatTemplate(tokenizer_of(CHATML)).clock == "" and ChatTemplate(tokenizer_of(LLAMA3)).clock
    assert stopped_clock(datetime.date(2026, 2, 3)) != stopped_clock(datetime.date(2026, 2, 4))


def test_variables_reach_the_template(tmp_path):
    (tmp_path / "own.toml").write_text('[rounds.template_variables]\nreasoning_effort = "high"\nlevels = [1, "x"]\n')
    settings = ["rounds.template_variables.enable_thinking=false"]
    recipe = load_recipe(tmp_path / "own.toml", settings)
    assert recipe.rounds.template_variables == {
        "reasoning_effort": "high",
        "levels": [1, "x"],
        "enable_thinking": False,
    }
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "again.toml") == recipe.model_copy(update={"name": recipe.name})
    assert "Reasoning: high" in prompted(tokenizer_of(HARMONY), template_variables={"reasoning_effort": "high"})
    assert "Reasoning: medium" in prompted(tokenizer_of(HARMONY))
    assert "Today Date: never" in prompted(tokenizer_of(LLAMA3), template_variables={"date_string": "never"})


@pytest.mark.parametrize(
    "variables", [{"messages": "x"}, {"add_generation_prompt": False}, {"a b": 1}, {"x": {"y": 1}}, {"x": [[1]]}]
)
def test_what_is_no_variable_is_refused(variables):
    with pytest.raises(RecipeError, match="template_variables"):
        load_recipe({"rounds": {"template_variables": variables}})


def test_a_variable_that_the_template_does_not_know_is_refused():
    with pytest.raises(RecipeError, match="Did you mean 'enable_thinking'"):
        prompted(tokenizer_of(QWEN3), template_variables={"enable_thinkin": False})
    with pytest.raises(RecipeError, match="no chat template"):
        prompted(tokenizer_of(None), template_variables={"enable_thinking": False})


# -- templates of strangers --------------------------------------------------------------------------------------------

HOSTILE = {
    "runs for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a text of gigabytes": "{{ 'a' * 10**10 }}",
    "a constant that is computed early": "{% if false %}{{ 'a' * 10**10 }}{% endif %}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "a large number": "{{ 10 ** (10 ** 10) }}",
    "a number with many digits": "{{ '%09999999999d' | format(1) }}",
    "a wide field": "{{ 'a'.ljust(9999999999) }}",
    "center": "{{ 'a' | center(9999999999) }}",
    "megabytes": "{% for a in range(9999) %}{{ 'a' * 999 }}{% endfor %}",
    "over every letter": "{% set t = messages[-1].content %}" + "{% for a in t %}" * 3 + "{% endfor %}" * 3,
    "powers": "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
}
BROKEN = {
    "breaks out": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "breaks out by a filter": "{{ messages | attr('__class__') }}{{ cycler.__init__.__globals__.os }}",
    "calls for ever": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "not Jinja": "{% for m in messages %}",
    "unknown filter": "{{ messages | nothing }}",
    "raises": "{{ raise_exception('broken') }}",
    "reads what is not there": "{{ messages[0].name.first }}",
    "includes a file": "{% include '/etc/passwd' %}",
    "nested deeply": "{% if 1 %}" * 500 + "{% endif %}" * 500 + "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
}


SLOW = ("over every letter", "powers", "macros")
KINDS = [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in HOSTILE]


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_without_end_is_refused_within_seconds(kind, monkeypatch):
    monkeypatch.setattr(runaway, "CPU_SECONDS", 1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(ModelError, match="seconds or gigabytes"):
        Rounds(RoundsConfig(), tokenizer_of(HOSTILE[kind] + CHATML))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_template_is_a_sentence(kind):
    with pytest.raises(ModelError) as caught:
        Rounds(RoundsConfig(), tokenizer_of(BROKEN[kind] + CHATML))
    assert "chat template" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
