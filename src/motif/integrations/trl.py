"""MOTIF inside TRL's GRPOTrainer: its `rollout_func` grows the trees, its reward function says what they are worth.

TRL's group is `num_generations` rows of one question. What a row is depends on the recipe:

* `credit.train_rounds = "first"` (the paper): a row is a first-round response, m of them a group. Its reward is the
  form of the response plus the mean outcome of its k trajectories, and TRL compares the rows. Rounds 2..n are sampled
  inside the rollout and never seen by TRL.
* `credit.train_rounds = "all"`: every node is a row with its own prompt, so a group is a whole tree. TRL knows no
  siblings, so the comparison is ours: the reward of a row is its advantage. Advantages of siblings add up to zero, so
  the group's mean, which TRL takes off, is zero too, and `scale_rewards = "none"` leaves them as they are.

The prompts that `rollout_func` gets are already repeated, a group's rows one after the other (its docstring says
otherwise). TRL's own reward columns are not known there, so questions are found again by their text.

Two ways to sample. `motif` (default) decodes with the trainer's live weights through `motif.sampling.local.batch`: its
own limits in each round, shared prompts computed once, the same trees whatever the batch, and a resumed run that goes
on bit for bit. `trl` uses TRL's generation, and so its vLLM engine, sharded weights and all; it samples a round at a
time and has one temperature, top-p and token limit for all rounds.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from motif.config import Recipe, load_recipe
from motif.errors import RecipeError
from motif.grading.beside import grading_beside
from motif.integrations import require
from motif.integrations.trl_arguments import arguments_of, compared_here, rows_per_question, whole_tree
from motif.method.credit import assign
from motif.method.tree import Node, Tree
from motif.runs.folder import write_recipe
from motif.runs.metrics import step_metrics
from motif.runs.weights import save_weights
from motif.sampling.base import Completion, Request, Sampler
from motif.sampling.grow import continue_from
from motif.sampling.stepping import SteppingSampler
from motif.session import Session, open_session


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    settings: Iterable[str] = (),
    sampler: Literal["motif", "trl"] = "motif",
    resume: bool = False,
    **arguments: Any,
) -> Any:
    """Train a recipe with GRPOTrainer and leave `out` as a run folder: `motif eval`, `solve` and `serve` take it.

    Args:
        recipe, settings: as for `motif.train`; `[eval]` and `[probe]` are for `motif eval` and `motif probe` later.
        resume: resume from the newest checkpoint in `out`.
        arguments: for `GRPOConfig`, over those that the recipe comes to (see `arguments_of`).

    Returns:
        The trainer, after training.

    Raises:
        HostError: TRL is missing or out of range.
        RecipeError, BadRows: as `motif.train`, and for what TRL cannot do.
    """
    require("trl")
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    arguments_of(recipe)  # refuses what TRL cannot do before a model is loaded
    session = open_session(_on_own_device(recipe))
    try:
        trainer = make_trainer(session, out, sampler=sampler, **arguments)
        trainer.train(resume_from_checkpoint=resume)
        if trainer.accelerator.is_main_process:
            save_weights(Path(out), session.policy)
            write_recipe(Path(out), recipe)
        return trainer
    finally:
        session.close()


def make_trainer(session: Session, out: str | Path, *, sampler: str = "motif", **arguments: Any) -> Any:
    """A GRPOTrainer of the session's policy on its training questions; `rollout_func.__self__` of it is its `Motif`."""
    require("trl")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy = session.policy
    chosen = arguments_of(session.recipe) | {
        "output_dir": str(out),
        "use_cpu": policy.device.type == "cpu",
        "bf16": policy.autocast,
    }
    motif = Motif(session, sampler)
    trainer = GRPOTrainer(
        model=policy.wrapped,
        args=GRPOConfig(**chosen | arguments),
        reward_funcs=motif.reward,
        train_dataset=Dataset.from_list([{"prompt": text} for text in motif.questions]),
        processing_class=policy.tokenizer,
        rollout_func=motif.rollout,
    )
    if "ref" in getattr(policy.wrapped, "peft_config", {}):  # TRL's reference; ours is the adapter-off model
        policy.wrapped.delete_adapter("ref")
    motif.check(trainer)
    return trainer


class Motif:
    """The rollout function and the reward function of one trainer.

    `trees` holds the trees of the latest call, graded and credited, in the order of its rows.
    """

    def __init__(self, session: Session, sampler: str = "motif"):
        if sampler not in ("motif", "trl"):
            raise RecipeError(f"unknown sampler {sampler!r}: use 'motif' or 'trl'")
        self.session, self.recipe, self.kind = session, session.recipe, sampler
        self.questions = {question.text: question for question in session.task.train}
        self.trees: list[Tree] = []
        self._metrics: dict[str, Any] = {}
        self._calls: tuple[str, int] = "", 0

    def rollout(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """TRL's `rollout_func`: one row per prompt, in their order."""
        model, mode = trainer.model, "train" if trainer.model.training else "eval"
        # The same trees on any number of processes, unless they share the rows of a question.
        shared = len(prompts) % rows_per_question(self.recipe) != 0
        part = trainer.accelerator.process_index if shared else 0
        step = f"trl/{mode}/{trainer.state.global_step}/{part}"
        self._calls = step, self._calls[1] + 1 if self._calls[0] == step else 0
        planted = self._planted(prompts, trainer.state.global_step)
        self.trees = [tree for tree, _ in planted]
        sampler = self.session.sampler if self.kind == "motif" else _TrlSampler(trainer, self.session)
        model.eval()  # with gradient checkpointing on, layers in training mode keep no keys and values
        try:
            self._grow(planted, sampler, f"{step}/{self._calls[1]}")
        finally:
            model.train(mode == "train")
        counts = [assign(tree, self.recipe.credit) for tree in self.trees]
        self._metrics = step_metrics(self.trees, counts, self.recipe)
        rows = [node for tree in self.trees for node in (tree.walk() if whole_tree(self.recipe) else tree.roots)]
        return {
            "prompt_ids": [node.prompt_ids for node in rows],
            "completion_ids": [node.token_ids for node in rows],
            "logprobs": [node.logprobs for node in rows] if all(node.logprobs for node in rows) else None,
            "motif_reward": [self._worth(node) for node in rows],
        }

    def reward(
        self, motif_reward: list[float | None], log_metric: Callable[[str, float], None] | None = None, **_: Any
    ) -> list[float | None]:
        """TRL's reward function: what the rollout found the rows to be worth (None: nobody could grade it)."""
        for name, value in self._metrics.items():
            if log_metric and isinstance(value, int | float):
                log_metric(f"motif/{name}", value)
        return motif_reward

    def check(self, trainer: Any) -> None:
        """Refuse settings of the trainer that would change what is trained.

        Raises:
            RecipeError: one of them; the message says which.
        """
        arguments, recipe = trainer.args, self.recipe
        if len(self.questions) * arguments.num_generations < arguments.generation_batch_size:
            raise RecipeError(f"{len(self.questions)} different questions are too few for rollout.questions_per_step")
        whole, shape = whole_tree(recipe), recipe.rollout
        if arguments.num_generations != rows_per_question(recipe) and (whole or compared_here(recipe)):
            raise RecipeError(f"num_generations must be {rows_per_question(recipe)}, the rows of a question's tree")
        if whole and arguments.per_device_train_batch_size * arguments.steps_per_generation % arguments.num_generations:
            raise RecipeError("a tree must not be split over processes: raise per_device_train_batch_size")
        if compared_here(recipe) and arguments.scale_rewards != "none":
            raise RecipeError("the rewards of these rows are advantages already: leave scale_rewards = 'none'")
        if arguments.temperature != shape.temperature_first or arguments.top_p != 1:
            raise RecipeError("set the temperature and top-p in the recipe's [rollout], not in GRPOConfig")
        if self.kind == "motif":
            sharded = trainer.is_fsdp_enabled or (
                trainer.is_deepspeed_enabled and trainer.args.hf_deepspeed_config.is_zero3()
            )
            if arguments.use_vllm or sharded:
                raise RecipeError("use_vllm and sharded weights need sampler = 'trl'")
            return
        same = (shape.temperature_continue, shape.top_p_continue, shape.tokens_continue)
        if (
            same != (shape.temperature_first, shape.top_p_first, shape.tokens_first)
            or shape.continuation_policy == "base"
        ):
            raise RecipeError(
                "sampler = 'trl' has one temperature, top-p and limit for all rounds, and the current policy only: "
                "make rollout's *_continue equal to *_first, or use sampler = 'motif'"
            )

    def _planted(self, prompts: Sequence[Any], step: int) -> list[tuple[Tree, int]]:
        """A bare tree for each group of rows, and how many rows; a question's second tree gets an id of its own."""
        size = rows_per_question(self.recipe)
        planted: list[tuple[Tree, int]] = []
        for text, rows in itertools.groupby(map(_text, prompts)):
            if text not in self.questions:
                raise RecipeError(f"a prompt is not one of the recipe's training questions: {text[:80]!r}")
            count = len(list(rows))
            if count % size and whole_tree(self.recipe):
                raise RecipeError(f"{count} rows of one question are not whole trees of {size}")
            for place in range(0, count, size):
                question = self.questions[text]
                earlier = sum(tree.question.text == text for tree, _ in planted)
                tree = Tree(replace(question, id=f"{question.id}@{earlier}") if earlier else question, step)
                planted.append((tree, min(size, count - place)))
        return planted

    def _grow(self, planted: Sequence[tuple[Tree, int]], sampler: Sampler, step: str) -> None:
        """Grow the trees with as many first-round responses as there are rows, grading leaves meanwhile."""
        shape, seed = self.recipe.rollout, self.recipe.train.seed
        with grading_beside(self.session.grader) as on_leaf:
            for count in dict.fromkeys(count for _, count in planted):  # with several processes a group may be split
                first = shape.responses if whole_tree(self.recipe) else count
                own = shape.model_copy(update={"branching": [first, *shape.branching[1:]]})
                some = [tree for tree, size in planted if size == count]
                continue_from(some, sampler, self.session.rounds, own, seed=seed, step=step, on_leaf=on_leaf)

    def _worth(self, node: Node) -> float | None:
        """What TRL is told of a row: its reward, or its advantage where the comparison is ours."""
        return node.advantage if compared_here(self.recipe) else node.reward


class _TrlSampler(SteppingSampler):
    """A sampler on TRL's own generation: all requests of a round at once, so as many calls on every process."""

    def __init__(self, trainer: Any, session: Session):
        super().__init__()
        self.trainer, self.ends = trainer, set(session.policy.end_ids)
        self._round: list[Request] = []

    def enqueue(self, request: Request, first: bool) -> None:
        """Take a request into the round that comes next."""
        self._round.append(request)

    async def compute(self) -> None:
        """Generate round after round."""
        while self._round:
            wanted = [(request, index) for request in self._round for index in range(len(request.keys))]
            prompts = [list(request.prompt_ids) for request, _ in wanted]
            # The last argument: each prompt once, as listed.
            token_ids, logprobs = self.trainer._generate_single_turn(prompts, None, {}, 1)
            self._round = []
            drawn = zip(wanted, token_ids, logprobs or [[]] * len(wanted), strict=True)
            await self.hand_over(
                [
                    Completion(request, index, list(ids), list(values), ids[-1] not in self.ends)
                    for (request, index), ids, values in drawn
                ]
            )


def _on_own_device(recipe: Recipe) -> Recipe:
    """Under `accelerate launch` each process has a GPU of its own."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or recipe.model.device != "auto" or not torch.cuda.is_available():
        return recipe
    return recipe.with_settings("model", device=f"cuda:{rank}")


def _text(prompt: Any) -> str:
    """The question of a prompt: a text, or the last message of a chat."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
