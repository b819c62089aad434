"""Where the gap of 8-bit sampling comes from: rounding in float arithmetic, one change at a time.

SmolLM2-135M draws responses to word problems in float32. Their log-probabilities are computed again with the inputs and
the weights of all linear layers rounded after the rotations (`motif.models.int8`), or with one thing left as it is.
Gaps are mean |differences| in nats over the same tokens, with standard errors over tokens as if they were independent;
differences to "as it is" are paired.

    python benchmarks/rounding.py --json docs/performance/rounding.json       # minutes on one core
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from common import console, parser, write
from rollout import Setting, embedded, smollm2
from torch import Tensor, nn

from motif.method.keys import sampling_key
from motif.models.int8 import LEVELS, in_steps, rotated
from motif.models.launches import replaced
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.rotation import find_rotation

FORKS, GROUPS = 3, 3
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Of the largest number that steps of weights may stand for; those beyond it are cut."""
Rounding = Callable[[Tensor], Tensor]
Layers = dict[str, tuple[nn.Linear, Tensor | None]]
"""By name, each with the scale (K,) of the norm before it, if that is in its weights."""


def exact(rows: Tensor) -> Tensor:
    """Rows (..., K) as they are."""
    return rows


def symmetric(rows: Tensor) -> Tensor:
    """As the sampler rounds: a step for each row (..., K)."""
    multiples, steps = in_steps(rows.flatten(0, -2))
    return (multiples.round_() * steps).view(rows.shape)


def zero_point(rows: Tensor) -> Tensor:
    """256 steps between the least and the largest number of a row."""
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    steps = (high - low) / 255
    zero = (-low / steps).round()
    return ((rows / steps).round().add(zero).clamp(0, 255) - zero) * steps


def grouped(rows: Tensor) -> Tensor:
    """A step for each of `GROUPS` parts of a row."""
    if rows.shape[-1] % GROUPS:
        return symmetric(rows)
    return symmetric(rows.unflatten(-1, (GROUPS, -1))).flatten(-2)


def least_squares(rows: Tensor) -> Tensor:
    """For each row, the best step for the squared error."""
    best, least = rows, rows.new_full((*rows.shape[:-1], 1), torch.inf)
    for share in SHARES:
        steps = rows.abs().amax(-1, keepdim=True) * share / LEVELS
        found = (rows / steps).round().clamp(-LEVELS, LEVELS) * steps
        error = (found - rows).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, found, best), torch.minimum(error, least)
    return best


@dataclass(frozen=True)
class Variant:
    """How inputs and weights are rounded, and parts of the names of layers that are not."""

    inputs: Rounding = symmetric
    weights: Rounding = symmetric
    left: tuple[str, ...] = ()


def variants(last: int) -> dict[str, Variant]:
    """By what is changed; `last` is the number of the last layer."""
    return {
        "as it is": Variant(),
        "inputs alone in 8 bits": Variant(weights=exact),
        "weights alone in 8 bits": Variant(inputs=exact),
        "inputs with a zero point": Variant(inputs=zero_point),
        "three steps for each input": Variant(inputs=grouped),
        "steps of weights with the least squared error": Variant(weights=least_squares),
        "the output head in float32": Variant(left=("lm_head",)),
        "`down_proj` in float32": Variant(left=("down_proj",)),
        "the first and the last layer in float32": Variant(left=("layers.0.", f"layers.{last}.")),
    }


@contextlib.contextmanager
def rounded(layers: Layers, variant: Variant) -> Iterator[None]:
    """Compute with rounded numbers inside the block."""
    with contextlib.ExitStack() as stack:
        for name, (layer, scale) in layers.items():
            if not any(part in name for part in variant.left):
                stack.enter_context(replaced(layer, "forward", _forward(layer, variant, scale)))
        yield


def layers_of(setting: Setting) -> Layers:
    """All linear layers but the adapter's."""
    named = setting.policy.model.named_modules()
    layers = {name: layer for name, layer in named if type(layer) is nn.Linear and "lora" not in name}
    rotation = find_rotation(setting.policy, layers.values())
    return {name: (layer, rotation.turns[layer].scale if rotation else None) for name, layer in layers.items()}


def _forward(layer: nn.Linear, variant: Variant, scale: Tensor | None) -> Any:
    """A layer's pass; `scale` of the norm before it is in the weights."""
    weight = variant.weights(rotated(layer.weight if scale is None else layer.weight * scale))

    def forward(rows: Tensor) -> Tensor:
        return F.linear(variant.inputs(rotated(rows if scale is None else rows / scale)), weight, layer.bias)

    return forward


def logprobs(setting: Setting, done: list[Completion]) -> Tensor:
    """Those of all tokens of the responses, by a plain pass for each response."""
    policy, found = setting.policy, []
    for one in done:
        prompt, said = list(one.request.prompt_ids), list(one.token_ids)
        states = policy.decoder(input_ids=torch.tensor([prompt + said]), use_cache=False).last_hidden_state[0]
        logits = policy.head(states[len(prompt) - 1 : -1]).float()
        found.append(logits.log_softmax(-1).gather(-1, torch.tensor(said)[:, None])[:, 0])
    return torch.cat(found)


def main() -> None:
    """Run the comparison."""
    options = parser(__doc__)
    options.add_argument("--tokens", type=int, default=32, help="limit of each response (default: %(default)s)")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    setting = embedded(2) if arguments.quick else smollm2(8, arguments.tokens)
    prompts = [setting.rounds.prompt(one.text, [], setting.shape.rounds) for one in setting.questions]
    keys = [[sampling_key(index, fork) for fork in range(FORKS)] for index in range(len(prompts))]
    limit = min(arguments.tokens, setting.shape.tokens_first)
    requests = [Request(prompt, some, limit) for prompt, some in zip(prompts, keys, strict=True)]
    done = complete(LocalSampler(setting.policy), requests)
    with torch.inference_mode():
        plain = logprobs(setting, done)
        result = {"tokens": len(plain), "responses": len(done), "gaps": compared(setting, done, plain)}
    write(arguments.json, result)


def compared(setting: Setting, done: list[Completion], plain: Tensor) -> dict[str, dict[str, float]]:
    """Each variant's mean gap and its standard error, and the same of its paired difference to the first."""
    layers, gaps, found = layers_of(setting), [], {}
    for name, variant in variants(len(setting.policy.decoder.layers) - 1).items():
        with rounded(layers, variant):
            gaps.append((logprobs(setting, done) - plain).abs())
        over = gaps[-1] - gaps[0]
        mean, error, over_all, its = (number for one in (gaps[-1], over) for number in _mean_and_error(one))
        found[name] = {"mean_gap": mean, "error": error, "over_all": over_all, "its_error": its}
        console.print(f"{name}: {mean:.4f} ± {error:.4f}, {over_all:+.4f} ± {its:.4f}", highlight=False)
    return found


def _mean_and_error(numbers: Tensor) -> tuple[float, float]:
    return numbers.mean().item(), (numbers.std() / len(numbers) ** 0.5).item()


if __name__ == "__main__":
    main()
