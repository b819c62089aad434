"""What a GPU would have to launch in a decoding step and in an update, counted on any machine.

The model has the structure of Qwen2.5-3B (36 layers, 16 query heads, 2 key heads, LoRA on all linear layers, bfloat16)
but is 64 wide, so that a CPU counts in seconds: the number of operations does not depend on the width. Each layer adds
the same number, so models of two and of three layers say what 36 have. Where the number depends on the vocabulary
(logits are made in pieces), the pieces are those of 151,936 tokens.

* decoding: a step of 72 rows, 9 responses to each of 8 prompts that share a beginning, as a CUDA graph replays it.
* decoding_kernels: the same step where Triton is installed (`motif.sampling.local.kernels`): each kernel is one launch.
* prompts: what is launched when 32 prompts that were not known enter, until their second token.
* update: one question of `paper`, 8 responses that SmolLM2-135M-Instruct wrote (benchmarks/responses.json).

`operations`: calls that start a kernel; views are left out. `casts`: those of them that change the dtype only.
`synchronisations`: the host waits for a number from the device. `uploads`: small copies from the host.

    python benchmarks/operations.py --json docs/performance/operations.json      # a minute
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plain_kernels
import torch
import torch.nn.functional as F
from common import parser, table, write
from gpu import make_tokenizer
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from motif.config import ModelConfig, load_recipe
from motif.models import policy as model
from motif.models.launches import fewer_launches
from motif.models.path import FAST
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.local.batch import DecodingBatch, LocalSampler, Queue
from motif.training import batch
from motif.training.batch import Minibatch, Sample
from motif.training.update import make_optimizer, update

RESPONSES = Path(__file__).with_name("responses.json")
LAYERS, VOCABULARY = 36, 151_936
ROWS, PROMPTS = 72, 32
WARM = 12
"""Steps before the one that is counted: the responses have parted by then, and the step is a replay."""
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}
"""Operations that start no kernel, besides views."""
Counts = dict[str, dict[str, int]]
NUMBERS = ("operations", "casts", "synchronisations", "uploads")


class Launches(TorchDispatchMode):
    """Counts what runs inside the block."""

    hidden = False
    """Whether what runs is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self._calls = _Calls(self.counts)

    def __enter__(self) -> Launches:
        self._calls.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each operation."""
        name = function.overloadpacket.__name__
        result = function(*args, **(kwargs or {}))
        if Launches.hidden:
            return result
        if name in {"_local_scalar_dense", "nonzero"} or _masked(name, args):
            self.counts["synchronisations"] += 1
        elif not function.is_view and name not in FREE:
            self.counts["operations"] += 1
            self.counts["casts"] += _is_cast(name, args)
            self.names[name] += 1
        return result


class _Calls(TorchFunctionMode):
    """Counts copies between host and device, which are not operations where both are one."""

    def __init__(self, counts: Counter[str]):
        super().__init__()
        self.counts = counts
        self._from_numpy = torch.from_numpy

    def __enter__(self) -> _Calls:
        def counted(array: Any) -> Tensor:
            self.counts["uploads"] += 1
            return self._from_numpy(array)

        torch.from_numpy = counted  # a mode does not see it
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: Any) -> None:
        torch.from_numpy = self._from_numpy
        super().__exit__(*error)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each function."""
        self.counts["synchronisations"] += function in (Tensor.cpu, Tensor.tolist)
        self.counts["uploads"] += function is torch.tensor
        return function(*args, **(kwargs or {}))


def _masked(name: str, args: Any) -> bool:
    """Whether an operation chooses by a mask: how much that is, the host has to ask for."""
    if name != "index":
        return False
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _is_cast(name: str, args: Any) -> bool:
    return name == "_to_copy" or (name == "copy_" and args[0].dtype != args[1].dtype)


@contextmanager
def hidden() -> Iterator[None]:
    """Do not count what runs inside the block."""
    before, Launches.hidden = Launches.hidden, True
    try:
        yield
    finally:
        Launches.hidden = before


class OneLaunchEach:
    """The kernels of a GPU in plain torch, each of which is one launch however much that computes."""

    def __init__(self, launches: Launches):
        self.launches = launches

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            with hidden():
                result = getattr(plain_kernels, name)(*given)
            self.launches.counts["operations"] += 1
            return result

        return run


def one_kernel_norm() -> Callable[..., Tensor]:
    """`F.rms_norm` with the operations of a GPU, which has a kernel for it and one for its gradient."""

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: Tensor, *rest: Any) -> Tensor:
            ctx.rows, ctx.rest = rows.detach(), rest
            with hidden():
                result = torch.rms_norm(rows, *rest)
            return result.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            with hidden(), torch.enable_grad():
                rows = ctx.rows.requires_grad_()
                (gradient,) = torch.autograd.grad(torch.rms_norm(rows, *ctx.rest), rows, gradients)
            return gradient.clone(), *(None for _ in ctx.rest)

    return Norm.apply  # type: ignore[no-any-return]


def recorder(run: Callable[[], Tensor]) -> tuple[Any, Tensor]:
    """In place of a CUDA graph, which fixes shapes and places: each replay runs the step."""

    class Again:
        def replay(self) -> None:
            states.copy_(run())

    states = run()
    return Again(), states


def make_policy(folder: Path, layers: int) -> Policy:
    """The narrow model."""
    tokenizer = make_tokenizer(997)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    policy = Policy(ModelConfig(name=str(folder), lora_rank=8, device="cpu", dtype="bfloat16"))
    policy.update_path, policy.launch_bound = FAST, True
    return policy


@contextmanager
def decoding(sampler: LocalSampler) -> Iterator[DecodingBatch]:
    """A batch whose responses do not end, with shapes as on a GPU."""
    sampler.record, mode = recorder, torch.inference_mode
    torch.inference_mode = torch.no_grad  # type: ignore[assignment,misc]  # in which functions come as operations
    try:
        with sampler.open() as rows:
            rows.ends = rows.ends[:0]
            yield rows
    finally:
        torch.inference_mode = mode  # type: ignore[misc]


def requests(count: int, keys: int, first: int = 0) -> Queue:
    """Prompts of 92 tokens, of which the first 60 are the same."""
    numbers = range(first, first + count)
    prompts = [[*range(10, 70), *((7 * n + 13 * place) % 900 + 10 for place in range(32))] for n in numbers]
    asked = [
        Request(prompt, [keys * n + key for key in range(keys)], max_tokens=40, temperature=0.8)
        for n, prompt in zip(numbers, prompts, strict=True)
    ]
    return deque((request, range(keys)) for request in asked)


def count_decoding(sampler: LocalSampler, with_kernels: bool = False) -> dict[str, int]:
    """One step of 72 rows."""
    launches = Launches()
    sampler.kernels = OneLaunchEach(launches) if with_kernels else None
    with decoding(sampler) as rows:
        queue = requests(8, ROWS // 8)
        for _ in range(WARM):
            rows.step(queue)
        assert rows.count == ROWS
        launches.counts.clear()
        with launches:
            rows.step(queue)
    sampler.kernels = None
    return numbers(launches)


def count_prompts(sampler: LocalSampler) -> dict[str, int]:
    """Prompts enter, and are decoded once."""
    with decoding(sampler) as rows:
        queue = requests(8, 1)
        for _ in range(WARM):
            rows.step(queue)
        queue = requests(PROMPTS, 1, first=8)
        with Launches() as launches:
            rows.step(queue)
            rows.step(queue)
    return numbers(launches)


def count_update(policy: Policy, recompute: bool) -> dict[str, int]:
    """An optimiser step on one question, without the optimiser's own operations: a GPU has a few for all tensors."""
    found = json.loads(RESPONSES.read_text())
    recipe = load_recipe("paper", [f"train.activation_checkpointing={str(recompute).lower()}"])
    prompt, responses = found["prompt"], found["responses"]
    samples = [
        Sample(prompt, tokens, [-1.0] * len(tokens), (-1.0) ** index, 0.8, 1 / 8 / len(tokens))
        for index, tokens in enumerate(responses)
    ]
    optimizer = make_optimizer(policy.trainable(), recipe.train)
    optimizer.step = lambda: None  # type: ignore[assignment,method-assign]
    forward, gradient = batch.forward, Minibatch.gradient
    inside, made = Launches(), Counter[str]()

    def counted_pass(*args: Any) -> Any:
        made["passes"] += 1
        return forward(*args)

    def counted_gradient(*args: Any) -> None:
        with inside:
            gradient(*args)

    batch.forward, Minibatch.gradient = counted_pass, counted_gradient  # type: ignore[method-assign]
    try:
        with Launches() as around:
            update(policy, optimizer, samples, recipe)
    finally:
        batch.forward, Minibatch.gradient = forward, gradient  # type: ignore[method-assign]
    return {"passes": made["passes"]} | numbers(inside) | {"synchronisations": around.counts["synchronisations"]}


def numbers(launches: Launches) -> dict[str, int]:
    """The counts, zeros included."""
    return {name: launches.counts[name] for name in NUMBERS}


def in_all_layers(two: Counts, three: Counts) -> Counts:
    """What 36 layers have, from what two and three have."""
    counts = {
        part: {name: number + (LAYERS - 2) * (three[part][name] - number) for name, number in row.items()}
        for part, row in two.items()
    }
    for row in counts.values():
        if "passes" in row:
            row["per_pass"] = row["operations"] // row["passes"]
    return counts


def count(layers: int) -> Counts:
    """All counts for a model of so many layers."""
    before, norm = model.LOGIT_ELEMENTS, F.rms_norm
    with tempfile.TemporaryDirectory() as folder:
        policy = make_policy(Path(folder), layers)
        sampler = LocalSampler(policy, ROWS)
        model.LOGIT_ELEMENTS = before * policy.vocabulary // VOCABULARY
        F.rms_norm = one_kernel_norm()
        with fewer_launches(policy):
            pass  # each layer is compared once
        try:
            return {
                "decoding": count_decoding(sampler),
                "decoding_kernels": count_decoding(sampler, with_kernels=True),
                "prompts": count_prompts(sampler),
                "update": count_update(policy, recompute=False),
                "update_recomputing": count_update(policy, recompute=True),
            }
        finally:
            model.LOGIT_ELEMENTS, F.rms_norm = before, norm


def main() -> None:
    """Count, print, write."""
    chosen = parser(__doc__).parse_args()
    torch.set_num_threads(chosen.threads)
    two, three = count(2), count(3)
    found = in_all_layers(two, three)
    for part, row in found.items():
        table(part, ["", "number"], list(row.items()))
    write(chosen.json, {"counts": found, "two_layers": two})


if __name__ == "__main__":
    main()
