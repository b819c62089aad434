"""What several test files share: a tiny model with its tokenizer, and trees made by hand."""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import offline
from motif.grading import worker
from motif.method.tree import Node, Question, Tree, Verdict
from motif.runs.folder import FILES

SPECIAL_TOKENS = ["<pad>", "<end>", "<unk>", "<user>", "<model>", "<system>"]
ADDED_TOKENS = ["<think>", "</think>", "<note>", "</note>", "\\boxed{"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)


offline.guard()
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first, so that no worker is left alone with one in the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def _no_network():
    """A test that reaches for another machine fails, also where the code under test makes light of the refusal."""
    before = len(offline.attempts)
    yield
    assert not offline.attempts[before:]


@pytest.fixture
def busy_machine(monkeypatch):
    """Graders that take an answer for too costly also where a busy machine let them compute little of their time."""
    monkeypatch.setattr(worker, "COMPUTING", 0.1)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def char_tokenizer() -> Any:
    """One token per character, besides special and added ones; `<unk>` for characters beyond ASCII."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL_TOKENS, *(chr(code) for code in range(32, 127)), "\n", "×"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<model>", "<system>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(ADDED_TOKENS)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    return char_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random two-layer Llama (grouped-query attention) and a character-level tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder: Path = tmp_path_factory.mktemp("tiny")
    tokenizer = char_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,  # peaked enough for temperatures and top-p to matter
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=None,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


# -- trees by hand -----------------------------------------------------------------------------------------------------


def make_node(
    path: tuple[int, ...],
    children: list[Node] | None = None,
    verdict: Verdict | None = None,
    well_formed: bool = True,
    text: str = "",
    prompt_ids: list[int] | None = None,
    token_ids: list[int] | None = None,
    logprobs: list[float] | None = None,
) -> Node:
    token_ids = token_ids or [7, 8, 1]
    return Node(
        path=path,
        prompt_ids=prompt_ids or [3, 10, 4],
        token_ids=token_ids,
        logprobs=logprobs or [-1.0] * len(token_ids),
        text=text,
        truncated=False,
        well_formed=well_formed,
        verdict=verdict,
        children=children or [],
    )


def make_tree(outcomes: list[Any], well_formed: bool = True, gold: str = "360") -> Tree:
    """A tree from nested lists of outcomes: `[[1, 0], [1, 1]]` is two responses with two trajectories each.

    An outcome is 1 (right), 0 (wrong) or None (ungraded); a list stands for a node with these children.
    """
    verdicts: dict[Any, Verdict] = {1: "right", 0: "wrong", None: "ungraded"}

    def grow(path: tuple[int, ...], outcome: Any) -> Node:
        if isinstance(outcome, list):
            children = [grow((*path, index), below) for index, below in enumerate(outcome)]
            return make_node(path, children, well_formed=well_formed)
        return make_node(path, verdict=verdicts[outcome], well_formed=well_formed)

    roots = [grow((index,), outcome) for index, outcome in enumerate(outcomes)]
    return Tree(Question("q", "What is 15 × 24?", gold), step=0, roots=roots)


def marks_at(folder: Path, step: int) -> dict[str, tuple[int, int]]:
    """Where the files of a run ended after a step, as a checkpoint of that step remembers it."""
    marks = {}
    for name in FILES:
        lines = (folder / name).read_bytes().splitlines(keepends=True) if (folder / name).is_file() else []
        kept = b"".join(itertools.takewhile(lambda line: json.loads(line)["step"] <= step, lines))
        marks[name] = len(kept), zlib.crc32(kept)
    return marks


# -- a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium. While it is open an event loop runs in this thread, so that no other can."""
    from playwright.sync_api import sync_playwright

    from browser import CHROME, Browser

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROME, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()
