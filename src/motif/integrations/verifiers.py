"""MOTIF as a verifiers v1 environment, which prime-rl trains on as it is.

An episode is one first-round response and its k trajectories: the seat `first` answers round 1, and the seat `later`
continues its note in every further round, each time in a fresh context. `finalize` grades the final responses and puts
on every trace what `motif.method.credit` says of its node:

    first    outcome = mean outcome of its k trajectories;  format = 1[tags well formed] * credit.format_weight
    later    outcome = mean outcome of the trajectories through it;  format likewise

A trainer's group, n episodes of one task, is then the paper's group of m = n responses. With `credit.train_rounds =
"first"` the seat `later` is not trainable, and GRPO compares the first responses. With "all" it is, and prime-rl's
hierarchical GRPO with `episode_agents = ["later"]` compares the continuations of one note with each other, which are
its siblings, and the first responses across the group: the whole tree, without a division by the standard deviation.

    vf-eval motif-v1 --env.taskset.recipe my-recipe.toml -r 8 …            (examples/verifiers_motif/)

The plugin id is `motif-v1`, the module that exports this one's classes. The harness makes its one model call itself,
in this process, instead of starting a program for each response.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal

from pydantic import Field

from motif.config import Recipe, load_recipe
from motif.errors import RecipeError
from motif.grading import Grader
from motif.integrations import require
from motif.integrations.branch import grow_branch, judge, refuse
from motif.method.rounds import Rounds
from motif.method.tree import Question
from motif.models.hub import load_tokenizer
from motif.sampling.base import Completion, OnText, Request
from motif.sampling.concurrency import sample_each
from motif.session import with_examples
from motif.tasks import Task, load

require("verifiers")

import httpx  # noqa: E402
import verifiers.v1 as vf  # noqa: E402
from verifiers.v1.dialects.chat import message_to_wire  # noqa: E402
from verifiers.v1.runtimes import ProgramResult, SubprocessConfig  # noqa: E402
from verifiers.v1.types import SamplingConfig, SystemMessage, UserMessage  # noqa: E402


class MotifTasksetConfig(vf.TasksetConfig):
    """Which questions: those of a recipe. Of it `[data]`, `[rounds]`, `[rollout]` and `[credit]` count."""

    recipe: str = "demo"
    """A shipped recipe's name or a TOML file. Its model's tokenizer cuts the notes."""
    split: Literal["train", "test"] = "train"


class MotifData(vf.TaskData):
    """A question as it goes over the wire; `prompt` is what the seat is told in the round being played."""

    question: str
    gold: str
    template_variables: dict[str, Any] = Field(default_factory=dict)
    """Of the recipe's `[rounds]`, for the chat template of the server."""


class MotifTask(vf.Task[MotifData]):
    """A question. Its rewards come from the environment, which sees the trajectories."""


class MotifTaskset(vf.Taskset[MotifTask, MotifTasksetConfig]):
    """The questions of one side of a recipe's task, read and checked as `motif train` does."""

    def load(self) -> Iterable[MotifTask]:
        """Yield a task per question."""
        task = questions_of(self.config.recipe)
        variables = opened(self.config.recipe).rounds.template_variables
        for question in task.train if self.config.split == "train" else task.test:
            data = MotifData(
                id=question.id,
                question=question.text,
                gold=question.gold,
                prompt=question.text,
                template_variables=variables,
            )
            yield MotifTask(data, self.config.task)


class MotifHarness(vf.Harness[vf.HarnessConfig]):
    """One model call, made here: the prompt in, the response out."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, mcp_urls: dict[str, str], data: Any
    ) -> ProgramResult:
        """Call the rollout's endpoint, which records the exchange on the trace."""
        system, prompt = self.resolve_text_prompt(data)
        messages = [SystemMessage(content=system)] if system else []
        body = {"model": ctx.model, "messages": [message_to_wire(m) for m in [*messages, UserMessage(content=prompt)]]}
        if data.template_variables:
            body["chat_template_kwargs"] = data.template_variables
        headers = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(timeout=None) as client:
            response = await client.post(f"{endpoint.rstrip('/')}/chat/completions", json=body, headers=headers)
        failed = response.status_code >= 400
        return ProgramResult(int(failed), "", response.text[:2000] if failed else "")


def _seat() -> vf.AgentConfig:
    return vf.AgentConfig(runtime=SubprocessConfig())


class MotifEnvConfig(vf.EnvConfig):
    """The seats of the first and of all later rounds. Sampling that a seat leaves open comes from the recipe."""

    first: vf.AgentConfig = _seat()
    later: vf.AgentConfig = _seat()
    max_concurrent_agents: int | None = None
    """All trajectories of an episode are sampled at once unless bounded here."""


class MotifEnv(vf.Env[MotifEnvConfig]):
    """One first-round response, its trajectories, and what they are worth.

    Raises:
        RecipeError: the recipe asks for what this host cannot do.
    """

    def __init__(self, config: MotifEnvConfig) -> None:
        recipe = self.recipe = opened(config.taskset.recipe)
        shape = recipe.rollout
        limits = {
            "first": (shape.temperature_first, shape.top_p_first, shape.tokens_first),
            "later": (shape.temperature_continue, shape.top_p_continue, shape.tokens_continue),
        }
        seats = {}
        for name, (temperature, top_p, tokens) in limits.items():
            seat = getattr(config, name)
            own = seat.sampling.model_dump(exclude_unset=True) if seat.sampling else {}
            sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": tokens} | own
            seats[name] = seat.model_copy(update={"sampling": SamplingConfig.model_validate(sampling)})
        super().__init__(config.model_copy(update=seats))
        self.rounds = Rounds(with_examples(recipe).rounds, load_tokenizer(recipe.model.name))

    async def start(self) -> None:
        """Make the grader, whose workers live as long as the environment serves."""
        name = self.recipe.data.grader or questions_of(self.config.taskset.recipe).grader
        self.grader = Grader(name, self.recipe.data.grader_seconds, workers=2)

    async def stop(self) -> None:
        """End its workers."""
        if hasattr(self, "grader"):
            self.grader.close()

    async def setup(self, agents: vf.Agents) -> None:
        """Only what the recipe trains is trainable."""
        agents.later.trainable = self.recipe.credit.train_rounds == "all"

    async def run(self, task: MotifTask, agents: vf.Agents) -> None:
        """Play round 1, continue its note to the end k times, and say on every trace what its response is worth."""
        question = Question(str(task.data.id), task.data.question, task.data.gold)
        sampler = SeatSampler(task, agents, self.rounds)
        tree = await grow_branch(question, sampler, self.rounds, self.recipe.rollout)
        await judge(tree, self.grader, self.recipe.credit)
        if tree.roots[0].reward is None:  # a failed episode is tried again or left out; a guess would be trained on
            raise RuntimeError(f"not one trajectory could be graded: {next(tree.leaves()).reason}")
        for node in tree.walk():
            trace = sampler.traces[node.path]
            trace.info["motif"] = {"path": list(node.path), "note": node.note, "answer": node.answer}
            if node.reward is None or node.value is None:
                trace.agent.trainable = False
                continue
            trace.record_reward("motif", node.reward)
            found = {"outcome": node.value, "well_formed": node.well_formed, "truncated": node.truncated}
            trace.record_metrics({name: float(value) for name, value in found.items()})


class SeatSampler:
    """A sampler on the seats of an episode. `traces`: what each seat did, by the path of its response."""

    def __init__(self, task: MotifTask, agents: vf.Agents, rounds: Rounds):
        self.task, self.agents, self.rounds = task, agents, rounds
        self.traces: dict[tuple[int, ...], Any] = {}

    def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        """One completion per key, as texts, all under way at once; it does not stream."""
        return sample_each(request, self._complete)

    async def _complete(self, request: Request, index: int) -> Completion:
        path = request.paths[index]
        *system, user = request.messages()
        prompt = {"prompt": user["content"], "system_prompt": system[0]["content"] if system else None}
        trace = await (self.agents.first if len(path) == 1 else self.agents.later).run(self.task.with_data(**prompt))
        if not trace.ok:
            raise RuntimeError(f"no response in round {len(path)}: {trace.stop_condition}: {trace.last_error!r}")
        self.traces[path] = trace
        return Completion(request, index, [], [], trace.is_truncated, text=self._text(trace))

    def _text(self, trace: Any) -> str:
        """The response as the model wrote it: a server may have taken the reasoning out."""
        message = trace.assistant_messages[-1]
        content = message.content or ""
        opening, closing = self.rounds.config.think_tags
        if message.reasoning_content:
            content = f"{opening}{message.reasoning_content}{closing}{content}"
        return self.rounds.continued(content)


@functools.cache
def opened(name: str) -> Recipe:
    """The recipe, checked once.

    Raises:
        RecipeError: it asks for what this host cannot do.
    """
    recipe = load_recipe(name)
    refuse("verifiers", recipe)
    if recipe.credit.train_rounds == "all" and (
        set(recipe.rollout.branching[2:]) - {1} or recipe.credit.group == "round"
    ):
        raise RecipeError(
            "verifiers compares later rounds within one first response: rollout.branching must be [m, k, 1, …] and "
            "credit.group 'siblings', or set credit.train_rounds = 'first'"
        )
    return recipe


@functools.cache
def questions_of(name: str) -> Task:
    """A recipe's questions, read and checked once.

    Raises:
        BadRows, RecipeError: see `motif.tasks.load`.
    """
    return load(opened(name).data)
