"""The chat page: complete in itself, strict, keyed, showing rounds as they are thought; and what is said of questions
that a small model was not made for."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from motif.config import load_recipe
from motif.method.rounds import Rounds
from motif.session import notices
from support.browser import Browser, expect, needs_browser
from support.serving import CLIENT, DEMO, Ask, Scripted, ask, post, serving
from support.tiny import char_tokenizer

ROUNDS = Rounds(DEMO.rounds, char_tokenizer())


def count(ask: Ask) -> str:
    """Counts up from round to round, and looks like markup."""
    number = len(ask.notes) + 1
    note = f"\\boxed{{{number}}}" if number == ask.rounds else f"{number} <b>so far</b>"
    return f"<think>one more</think><note>{note}</note>"


@pytest.fixture(scope="module")
def keyed() -> Iterator[str]:
    with serving(Scripted(count), ROUNDS, keys=("secret",)) as (url, _):
        yield url


def test_the_page_is_complete_strict_and_open(keyed: str) -> None:
    answer = CLIENT.get(keyed + "/")
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and answer.headers["x-content-type-options"] == "nosniff"
    for kind in ("script", "style"):
        [text] = re.findall(rf"<{kind}>(.*?)</{kind}>", answer.text, re.S)
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert not re.search(r"""(?:src|href)=["'](?!#)""", answer.text) and "demo" not in answer.text
    assert CLIENT.get(keyed + "/v1/models").status_code == 401
    assert CLIENT.post(keyed + "/", json={}).status_code in (401, 405)


@needs_browser
@pytest.mark.slow
def test_rounds_are_shown_as_they_are_thought(keyed: str, browser: Browser) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    settings: dict[str, Any] = {"viewport": {"width": 390, "height": 800}, "bypass_csp": True}
    with browser.open(keyed + "/", allowed=("401",), **settings) as page:
        expect(page.locator(".about")).to_contain_text("asks for an API key")
        page.get_by_label("API key").fill("secret")
        page.keyboard.press("Enter")
        expect(page.locator(".about")).to_contain_text("3 rounds of at most 24 tokens")
        page.get_by_label("Question", exact=True).fill("What is <i>2</i> × 3?")
        page.keyboard.press("Enter")
        expect(page.locator(".given b")).to_have_text("3")
        expect(page.locator(".part summary")).to_have_text(
            [re.compile(rf"Round {number} of 3.*tokens") for number in (1, 2, 3)]
        )
        expect(page.locator(".handed")).to_have_text(
            ["Note to round 2 1 <b>so far</b>", "Note to round 3 2 <b>so far</b>"]
        )
        expect(page.locator(".asked")).to_have_text("What is <i>2</i> × 3?")
        assert page.locator("main i, main .handed b").count() == 0
        found = axe.run(page).response["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]][:3]) for one in found] == []
        page.get_by_role("button", name="New chat").click()
        expect(page.locator(".turns li")).to_have_count(0)


def test_a_question_of_another_kind_is_answered_with_a_notice() -> None:
    notice = notices(DEMO)
    for question in ("What is 54 × 38?", "  What is 10 × 99?"):
        assert notice(question) == ""
    for question in ("What is 15 times 24?", "What is 123 × 4?", "what is 15 × 24?", "Hello"):
        assert "made for questions worded like “What is" in notice(question)
    assert notices(load_recipe("paper"))("Hello") == ""
    with serving(Scripted(count), ROUNDS) as (url, service):
        service.served = replace(service.served, notice=notice)
        assert "notice" not in post(url, ask("What is 54 × 38?")).json()["motif"]
        assert post(url, ask("Hello")).json()["motif"]["notice"] == notice("Hello")
        assert notice("Hello") in post(url, ask("Hello") | {"stream": True}).text
