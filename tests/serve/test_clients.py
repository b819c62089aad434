"""Requests as today's clients write them: what asks for nothing is taken, what asks for more is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionUserMessageParam,
    completion_create_params,
)
from openai.types.completion_create_params import CompletionCreateParamsBase

from motif.method.rounds import Rounds
from motif.serve.protocol import (
    AnswerMessage,
    ApiError,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    StreamOptions,
    TextPart,
    parse_request,
)
from motif.serve.requests import question_of
from support.serving import DEMO, Scripted, ask, post, serving
from support.tiny import char_tokenizer

BODIES = json.loads(Path(__file__).with_name("clients.json").read_text(encoding="utf-8"))
USER, ANSWER = {"role": "user", "content": "What is 12 × 13?"}, {"role": "assistant", "content": "156"}


@pytest.fixture(scope="module")
def url():
    with serving(Scripted(lambda _: "<note>\\boxed{7}</note>"), Rounds(DEMO.rounds, char_tokenizer())) as (url, _):
        yield url


@pytest.mark.parametrize("one", BODIES, ids=[one["client"] for one in BODIES])
def test_bodies_of_clients_are_taken(url, one):
    answer = post(url, one["body"])
    assert answer.status_code == 200, answer.text
    assert "boxed{7}" in answer.text


def test_an_answer_is_sent_back_by_the_openai_client(url):
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    first = client.chat.completions.create(model="demo", messages=[USER]).choices[0].message
    for back in (first, first.model_dump(), first.to_dict(), first.model_dump(exclude_none=True)):
        chat = [USER, back, {"role": "user", "content": "And 14 × 15?"}]
        assert client.chat.completions.create(model="demo", messages=chat).choices[0].message.content == "\\boxed{7}"


# -- the whole schema of the API -------------------------------------------------------------------------------------


SCHEMA = [
    (ChatRequest, completion_create_params.CompletionCreateParamsBase),
    (CompletionRequest, CompletionCreateParamsBase),
    (StreamOptions, ChatCompletionStreamOptionsParam),
    (TextPart, ChatCompletionContentPartTextParam),
    (ChatMessage, ChatCompletionUserMessageParam),
    (ChatMessage, ChatCompletionSystemMessageParam),
    (AnswerMessage, ChatCompletionAssistantMessageParam),
]


@pytest.mark.parametrize(("ours", "theirs"), SCHEMA, ids=[theirs.__name__ for _, theirs in SCHEMA])
def test_every_field_of_the_api_has_a_decision(ours, theirs):
    missing = set(get_type_hints(theirs, include_extras=True)) - set(ours.model_fields)
    assert not missing, "new fields of the API: decide which of their values ask for nothing"


FIELDS = sorted(ChatRequest.model_fields.keys() - {"messages", "model", "prompt"})


@pytest.mark.parametrize("name", FIELDS)
def test_null_asks_for_nothing(url, name):
    assert post(url, ask(**{name: None})).status_code == 200


NEUTRAL: list[dict[str, Any]] = [
    {"store": False}, {"metadata": {}}, {"service_tier": "auto"}, {"service_tier": "default"}, {"modalities": ["text"]},
    {"modalities": []}, {"parallel_tool_calls": True}, {"parallel_tool_calls": False}, {"tool_choice": "auto"},
    {"tool_choice": "none"}, {"functions": []}, {"function_call": "none"}, {"function_call": "auto"}, {"tools": []},
    {"audio": {}}, {"prediction": {}}, {"stop": []}, {"logit_bias": {}}, {"n": 1},
    {"top_p": 1}, {"verbosity": "medium"},
    {"stream_options": {}}, {"stream_options": {"include_usage": False}}, {"prompt_cache_key": "a"}, {"user": ""},
    {"prompt_cache_options": {"mode": "implicit"}}, {"prompt_cache_retention": "24h"}, {"safety_identifier": "b"},
    {"some_field_of_tomorrow": None}, {"guided_choice": []}, {"chat_template_kwargs": {}}, {"response_format": None},
]  # fmt: skip


@pytest.mark.parametrize("fields", NEUTRAL, ids=json.dumps)
def test_neutral_values_are_taken(url, fields):
    answer = post(url, ask(**fields))
    assert answer.status_code == 200, answer.text


MEANINGFUL: list[tuple[dict[str, Any], str]] = [
    ({"store": True}, "store"), ({"store": 0}, "store"), ({"metadata": {"a": "b"}}, "metadata"),
    ({"service_tier": "flex"}, "service_tier"), ({"modalities": ["text", "audio"]}, "modalities"),
    ({"modalities": ["audio"]}, "modalities"), ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"), ({"tools": [{}]}, "tools"),
    ({"functions": [{"name": "f"}]}, "functions"), ({"function_call": {"name": "f"}}, "function_call"),
    ({"audio": {"voice": "x", "format": "wav"}}, "audio"), ({"prediction": {"type": "content"}}, "prediction"),
    ({"web_search_options": {}}, "web_search_options"), ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"verbosity": "low"}, "verbosity"), ({"moderation": {"model": "m"}}, "moderation"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"), ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"frequency_penalty": 1}, "frequency"),
    ({"response_format": {"type": "json_object"}}, "response_format"), ({"top_k": 5}, "top_k"), ({"top_k": 0}, "top_k"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options"),
    ({"use_search": False}, "use_search"),
    ({"messages": [{**ANSWER, "tool_calls": [{"id": "c"}]}, USER]}, "tool_calls"),
    ({"thinking": {"type": "on"}}, "thinking"),
    ({"messages": [{**ANSWER, "function_call": {"name": "f"}}, USER]}, "function_call"),
    ({"messages": [{**ANSWER, "audio": {"id": "a"}}, USER]}, "audio"),
    ({"messages": [{**ANSWER, "refusal": "no"}, USER]}, "refusal"), ({"messages": [{**USER, "mood": "x"}]}, "mood"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}, USER]}, "role"),
    ({"messages": [{**USER, "name": "two words"}]}, "name"), ({"messages": [{**USER, "content": None}]}, "content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}, "content"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "name"), MEANINGFUL, ids=[json.dumps(fields)[:60] for fields, _ in MEANINGFUL])
def test_what_is_not_supported_is_refused_by_name(url, fields, name):
    answer = post(url, ask(**fields))
    assert answer.status_code == 400, answer.text
    assert name in answer.json()["error"]["message"] and name in answer.json()["error"]["param"]


@pytest.mark.parametrize(
    "fields", [{"suffix": ""}, {"suffix": None}, {"best_of": 1}, {"echo": False}, {"logprobs": None}]
)
def test_neutral_values_of_completions(url, fields):
    assert post(url, {"prompt": "What is 12 × 13?", **fields}, "/v1/completions").status_code == 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": ANYTHING | st.just("x")},
    optional=dict.fromkeys((*(AnswerMessage.model_fields.keys() - {"role", "content"}), "more"), ANYTHING),
)


@given(st.lists(MESSAGE, max_size=3), st.dictionaries(st.sampled_from([*FIELDS, "more"]), ANYTHING, max_size=3))
def test_any_body_is_read_or_refused(messages, fields):
    body = json.dumps({"messages": messages} | fields).encode()
    try:
        assert isinstance(parse_request(ChatRequest, body), ChatRequest)
    except ApiError as error:
        assert error.status == 400 and len(str(error)) < 1000


def test_names_say_who_speaks():
    chat = [{**USER, "name": "anna"}, {**ANSWER, "name": "bot"}, {"role": "system", "content": "x", "name": "s"}, USER]
    text = question_of(ChatRequest.model_validate({"messages": chat}).messages)
    assert text == "User (anna): What is 12 × 13?\n\nAssistant (bot): 156\n\nx\n\nWhat is 12 × 13?"
