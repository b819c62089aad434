"""What the general path costs with a model, measured on this machine: its seconds ÷ those of the fast one.

Both are timed on a few tokens in turns, the quickest of two each: responses to prompts that begin alike. The fast one
is timed also where it is wrong, because it does the same work. Updates are timed in `motif.training.speed`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import torch

from motif.errors import MotifError, out_of_memory
from motif.models.path import FAST, GENERAL, Path
from motif.models.policy import Policy
from motif.sampling.base import Request

PROMPTS = (52, 60, 68, 76)
"""Tokens of each prompt."""
ALIKE = 48
"""Tokens with which all of them begin."""
RESPONSES, TOKENS = 4, 8
"""Responses to each prompt, and tokens of each response."""
ROUNDS = 2


def slowdown_of_sampling(policy: Policy, sample: Callable[[Path, Sequence[Request]], None]) -> float | None:
    """Of sampling responses to a few prompts; None: one of the ways fails with this model."""
    requests = [
        Request(prompt, list(range(RESPONSES * index, RESPONSES * (index + 1))), max_tokens=TOKENS)
        for index, prompt in enumerate(prompts(policy))
    ]
    return slowdown(policy, lambda path: sample(path, requests))


def slowdown(policy: Policy, run: Callable[[Path], None]) -> float | None:
    """Seconds of the general way ÷ those of the fast one; None: one of them fails with this model."""
    seconds: dict[Path, list[float]] = {FAST: [], GENERAL: []}
    try:
        for _ in range(ROUNDS):
            for path, taken in seconds.items():
                start = time.perf_counter()
                run(path)
                if policy.device.type == "cuda":
                    torch.cuda.synchronize(policy.device)
                taken.append(time.perf_counter() - start)
    except (MotifError, MemoryError):
        raise
    except Exception as error:  # a model that one way does not fit may raise anything
        if out_of_memory(error):
            raise
        return None
    return min(seconds[GENERAL]) / min(seconds[FAST])


def prompts(policy: Policy) -> list[list[int]]:
    """Token ids of prompts that begin alike."""
    rng = random.Random(0)
    room = max(2, policy.max_length - TOKENS)
    tokens = [rng.randrange(words(policy)) for _ in range(ALIKE + sum(PROMPTS))]
    return [(tokens[:ALIKE] + tokens[ALIKE + length :][: length - ALIKE])[:room] for length in PROMPTS]


def words(policy: Policy) -> int:
    """Token ids that a prompt may have: so many from zero on."""
    rows: int = policy.model.get_input_embeddings().weight.shape[0]
    return min(policy.vocabulary, rows)
