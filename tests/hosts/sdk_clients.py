"""Clients of OpenAI's API in daily use against `motif serve`, each as its users call it; run by test_sdk_clients.py.

python sdk_clients.py URL       prints a JSON object: for each way of asking, the answers
"""

from __future__ import annotations

import asyncio
import json
import sys

import litellm
import openai
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient
from langchain_openai import ChatOpenAI

URL = sys.argv[1] + "/v1"
QUESTION = "What is 15 × 24?"
ASKED = {"role": "user", "content": QUESTION}


def of_openai() -> dict[str, object]:
    """The official client: plain, streamed, with an answer sent back, with fields at their neutral values."""
    chat = openai.OpenAI(base_url=URL, api_key="x").chat.completions
    plain = chat.create(model="demo", messages=[ASKED]).choices[0].message
    streamed = chat.create(model="demo", messages=[ASKED], stream=True, stream_options={"include_usage": True})
    neutral = chat.create(model="demo", messages=[ASKED], store=False, metadata={}, parallel_tool_calls=False)
    return {
        "openai": plain.content,
        "openai, streamed": "".join(part.choices[0].delta.content or "" for part in streamed if part.choices),
        "openai, neutral values": neutral.choices[0].message.content,
        "openai, sent back": chat.create(model="demo", messages=[ASKED, plain, ASKED]).choices[0].message.content,
    }


def of_langchain() -> dict[str, object]:
    """ChatOpenAI: invoke, stream, batch, asynchronous, with its settings spelt out, with an answer sent back."""
    model = ChatOpenAI(base_url=URL, api_key="x", model="demo")
    settings = {"temperature": 0, "max_tokens": 64, "top_p": 1, "n": 1, "frequency_penalty": 0, "presence_penalty": 0}
    spelt_out = ChatOpenAI(base_url=URL, api_key="x", model="demo", seed=3, **settings)
    answer = model.invoke(QUESTION)
    return {
        "langchain": answer.content,
        "langchain, streamed": "".join(str(part.content) for part in model.stream(QUESTION)),
        "langchain, in a batch": [one.content for one in model.batch([QUESTION, QUESTION])],
        "langchain, asynchronous": asyncio.run(model.ainvoke(QUESTION)).content,
        "langchain, settings": spelt_out.invoke([("system", "Be brief."), ("user", QUESTION)]).content,
        "langchain, sent back": model.invoke([("user", QUESTION), answer, ("user", QUESTION)]).content,
    }


def of_litellm() -> dict[str, object]:
    """completion() under two providers, streamed, with an answer sent back, and text_completion()."""
    there = {"api_base": URL, "api_key": "x"}
    plain = litellm.completion(model="openai/demo", messages=[ASKED], **there).choices[0].message
    vllm = litellm.completion(model="hosted_vllm/demo", messages=[ASKED], **there)
    streamed = litellm.completion(model="openai/demo", messages=[ASKED], stream=True, **there)
    back = litellm.completion(model="openai/demo", messages=[ASKED, plain, ASKED], **there)
    text = litellm.text_completion(model="text-completion-openai/demo", prompt=QUESTION, **there)
    return {
        "litellm": plain.content,
        "litellm, hosted_vllm": vllm.choices[0].message.content,
        "litellm, streamed": "".join(part.choices[0].delta.content or "" for part in streamed),
        "litellm, sent back": back.choices[0].message.content,
        "litellm, text": text.choices[0].text,
    }


async def of_autogen() -> dict[str, object]:
    """An assistant that is asked twice, so that its own answer is sent back to it."""
    can = dict.fromkeys(("vision", "function_calling", "json_output", "structured_output"), False)
    info = {**can, "family": "unknown"}
    client = OpenAIChatCompletionClient(model="demo", base_url=URL, api_key="x", model_info=info)
    agent = AssistantAgent("helper", model_client=client, system_message="Be brief.")
    first, second = await agent.run(task=QUESTION), await agent.run(task=QUESTION)
    return {"autogen": first.messages[-1].content, "autogen, asked again": second.messages[-1].content}


print(json.dumps(of_openai() | of_langchain() | of_litellm() | asyncio.run(of_autogen())))
