"""MOTIF as a verl agent loop: verl's server samples all rounds, verl trains round 1 on what became of it.

verl calls `run` once for each of a question's `rollout.n` samples. One call samples one first-round response, continues
it through its k trajectories on the same server, grades them, and returns the tokens of round 1 with the reward

    r = format_weight * 1[tags well formed] + mean outcome of the k trajectories

so verl's GRPO compares the m responses of a question as the paper does (`algorithm.norm_adv_by_std_in_grpo` is the
recipe's `credit.divide_by_std`). What it cannot do: train the later rounds against their siblings. verl compares by
question, and gives all outputs of one call the reward of its last.

Named in an agent-loop config (examples/verl_motif.yaml), so that verl's workers find it:

    - name: motif
      _target_: motif.integrations.verl.MotifAgentLoop
      recipe: my-recipe.toml

`python -m motif.integrations.verl RECIPE FOLDER` writes the recipe's questions as the Parquet files that verl reads.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from motif.config import Recipe, load_recipe
from motif.errors import RecipeError
from motif.grading import Grader
from motif.integrations import require
from motif.integrations.branch import grow_branch, judge, refuse
from motif.method.rounds import Rounds
from motif.method.tree import Question
from motif.sampling.base import Completion, OnText, Request
from motif.sampling.concurrency import sample_each
from motif.session import with_examples
from motif.tasks import load

require("verl")

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput  # noqa: E402
from verl.utils.profiler import simple_timer  # noqa: E402


class MotifAgentLoop(AgentLoopBase):
    """One first-round response and its trajectories, of one row of the data.

    Args:
        recipe: a shipped name or a TOML file. Of it `[data]`, `[rounds]`, `[rollout]` and `[credit]` count; the model,
            the loss and the optimiser are verl's.

    Raises:
        RecipeError: the recipe asks for what this host cannot do, or contradicts verl's own settings.
    """

    def __init__(self, *args: Any, recipe: str, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.recipe, self.grader = _opened(recipe)
        self.rounds = Rounds(with_examples(self.recipe).rounds, self.tokenizer)
        _agree(self.recipe, self.rollout_config)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Sample, continue, grade: a row of the batch with its reward.

        `kwargs` holds the row: `raw_prompt` (its last message is the question) and `reward_model` with the gold answer
        under `ground_truth`. With temperature 0, as verl validates, all trajectories would be equal, so there is one.
        """
        recipe = self.recipe
        metrics: dict[str, float] = {}
        text = str(list(kwargs["raw_prompt"])[-1]["content"])
        question = Question(str(kwargs.get("uid", text)), text, str(kwargs["reward_model"]["ground_truth"]))
        shape = recipe.rollout
        if sampling_params.get("temperature") == 0:
            shape = shape.model_copy(update={"branching": [1] * shape.rounds})
        sampler = VerlSampler(self, sampling_params)
        with simple_timer("generate_sequences", metrics):
            tree = await grow_branch(question, sampler, self.rounds, shape)
        with simple_timer("compute_score", metrics):
            await judge(tree, self.grader, recipe.credit)
        [root], extra = tree.roots, sampler.extra_fields
        form = recipe.credit.format_weight * root.well_formed
        graded = root.value is not None
        # verl cannot leave a row out. One that nobody could grade is masked; only its group's mean sees it, as wrong.
        mask = [int(graded)] * len(root.token_ids)
        leaves = list(tree.leaves())
        extra["reward_extra_info"] = {
            "outcome": root.value if graded else 0.0,
            "well_formed": float(root.well_formed),
            "truncated": sum(node.truncated for node in tree.walk()) / len(list(tree.walk())),
            "ungraded": sum(leaf.verdict == "ungraded" for leaf in leaves) / len(leaves),
        }
        return AgentLoopOutput(
            prompt_ids=root.prompt_ids,
            response_ids=root.token_ids,
            response_mask=mask,
            response_logprobs=root.logprobs or None,
            reward_score=root.reward if root.reward is not None else form,
            num_turns=2,
            metrics=AgentLoopMetrics(**metrics),
            extra_fields=extra | {"turn_scores": [], "tool_rewards": []},
        )


class VerlSampler:
    """A sampler on verl's server. `extra_fields`: what the server said beside round 1's response.

    Args:
        parameters: verl's own, which hold in round 1, for it computes its log-probabilities with them. Later rounds
            have the recipe's, unless verl decodes greedily.
    """

    def __init__(self, loop: MotifAgentLoop, parameters: dict[str, Any]):
        self.loop, self.parameters = loop, parameters
        self.extra_fields: dict[str, Any] = {}

    def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        """One completion per key, all under way at once; it does not stream."""
        return sample_each(request, self._complete)

    async def _complete(self, request: Request, index: int) -> Completion:
        first = len(request.paths[index]) == 1
        own: dict[str, Any] = {"max_tokens": request.max_tokens}
        if not first and self.parameters.get("temperature") != 0:
            own |= {"temperature": request.temperature, "top_p": request.top_p, "top_k": -1}
        # A request id of its own: the server is chosen by load, and its prefix cache knows the question anyway.
        output = await self.loop.server_manager.generate(
            request_id=uuid4().hex, prompt_ids=list(request.prompt_ids), sampling_params=self.parameters | own
        )
        if first:
            self.extra_fields.update(output.extra_fields)
        ids = list(output.token_ids)
        truncated = len(ids) >= request.max_tokens and not self.loop.rounds.ends(ids)
        return Completion(request, index, ids, list(output.log_probs or []), truncated)


@functools.cache
def _opened(name: str) -> tuple[Recipe, Grader]:
    """The recipe and its grader, once per worker process."""
    recipe = load_recipe(name)
    refuse("verl", recipe)
    if recipe.credit.train_rounds == "all" and recipe.rollout.rounds > 1:
        raise RecipeError("verl trains round 1 only: set credit.train_rounds = 'first', or use TRL or motif train")
    grader = recipe.data.grader or load(recipe.data).grader
    return recipe, Grader(grader, recipe.data.grader_seconds, workers=2)


def _agree(recipe: Recipe, config: Any) -> None:
    """Refuse a recipe that says otherwise than verl's rollout section where both say something."""
    shape = recipe.rollout
    for ours, theirs, here, there in (
        ("responses (branching[0])", "n", shape.responses, config.n),
        ("temperature_first", "temperature", shape.temperature_first, config.temperature),
        ("top_p_first", "top_p", shape.top_p_first, config.top_p),
    ):
        if here != there:
            raise RecipeError(f"rollout.{ours} is {here}, but verl's actor_rollout_ref.rollout.{theirs} is {there}")
    if shape.tokens_first > config.response_length:
        raise RecipeError(
            f"rollout.tokens_first = {shape.tokens_first} does not fit verl's data.max_response_length = "
            f"{config.response_length}"
        )


def write_data(recipe: Recipe, folder: Path) -> list[Path]:
    """Write `train.parquet` and `test.parquet` with the columns that verl's data set reads; returns their paths."""
    from datasets import Dataset

    task = load(recipe.data)
    written = []
    for split, questions in (("train", task.train), ("test", task.test)):
        if questions:
            written.append(folder / f"{split}.parquet")
            Dataset.from_list(_rows(task.name, questions)).to_parquet(str(written[-1]))
    return written


def _rows(source: str, questions: Sequence[Question]) -> list[dict[str, Any]]:
    return [
        {
            "data_source": source,
            "prompt": [{"role": "user", "content": question.text}],
            "reward_model": {"style": "rule", "ground_truth": question.gold},
            "extra_info": {"index": index, "id": question.id},
        }
        for index, question in enumerate(questions)
    ]


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for path in write_data(load_recipe(sys.argv[1]), target):
        print(path)
