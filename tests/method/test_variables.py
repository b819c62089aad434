"""What the variables of a template do is found out by rendering it."""

import datetime

import pytest

from motif.method.template import ChatTemplate
from motif.method.variables import Effect, effects
from support.templates import REASONING, tokenizer_of
from support.tiny import CHATML

EMPTY = "<think>\n\n</think>\n\n"
DATED = "{{ date_string | default('1 July 2024') }}{{ strftime_now('%Y') }}" + CHATML
TOOLS = "{% if tools %}{{ tools }}{% endif %}{% if custom_tools is defined %}{{ custom_tools }}{% endif %}" + CHATML
MARKED = CHATML.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        (REASONING["qwen3"][0], [Effect("enable_thinking", False, EMPTY, False)]),
        (REASONING["qwen3.5"][0], [Effect("enable_thinking", False, EMPTY, False)]),
        (REASONING["smollm3"][0], [Effect("enable_thinking", False, EMPTY[:-1], True)]),
        (REASONING["other words"][0], [Effect("enable_thinking", True, "", False)]),
        (
            REASONING["gpt-oss"][0],
            [Effect("reasoning_effort", "low", None, True), Effect("reasoning_effort", "high", None, True)],
        ),
        (REASONING["deepseek-r1"][0], []),
        (CHATML, []),
        (TOOLS, []),
        (MARKED, []),
    ],
)
def test_what_variables_do(template, wanted):
    assert effects(ChatTemplate(tokenizer_of(template))) == wanted


def test_a_date_is_a_text_of_the_prompt():
    found = effects(ChatTemplate(tokenizer_of(DATED), date=datetime.date(2024, 1, 1)))
    assert {one.name for one in found} == {"date_string"} and all(one.prompt for one in found)
    assert str(found[-1]) == "date_string = 'high': the prompt differs"


def test_what_the_recipe_sets_does_not_hide_what_variables_do():
    template = ChatTemplate(tokenizer_of(REASONING["qwen3"][0]), variables={"enable_thinking": False})
    assert effects(template) == [Effect("enable_thinking", False, EMPTY, False)]
