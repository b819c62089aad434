"""The recipe: all sections of a run, and the checks between sections."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from motif.config.data import DataConfig
from motif.config.rounds import RoundsConfig
from motif.config.sampler import SamplerConfig
from motif.config.sections import (
    CreditConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    ProbeConfig,
    RolloutConfig,
    Section,
    TrainConfig,
)
from motif.config.warmstart import WarmstartConfig

IMPORTANCE_CAP = 2.0
"""`loss.importance_cap` where none is set and sampler and trainer do not round in the same way."""


class Recipe(Section):
    """All settings of a run."""

    name: str = "custom"
    about: str = ""
    track: list[Literal["trackio", "wandb", "tensorboard"]] = Field(default_factory=list)
    """Trackers that also receive the metrics; they need the extra `track` (docs/trackers.md)."""
    track_project: str = "motif"
    """Project of the run at trackio and wandb; WANDB_PROJECT takes precedence."""
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
    warmstart: WarmstartConfig = WarmstartConfig()

    @field_validator("track")
    @classmethod
    def _each_once(cls, track: list[str]) -> list[str]:
        return list(dict.fromkeys(track))

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def left_out(self) -> set[str]:
        """A warm start that there is not: without one, a run is the same as before there were any."""
        return set() if self.warmstart.source else {"warmstart"}

    @model_validator(mode="after")
    def _warmstart(self) -> Recipe:
        section = self.data.active_section
        if self.warmstart.source and self.rounds.carry == "tail":
            raise ValueError(
                "warmstart teaches the form of rounds, and rounds.carry = 'tail' asks for none: leave out one of them"
            )
        if self.warmstart.source == "solutions" and section is not None and not section.worked:
            raise ValueError(
                f"warmstart.source = 'solutions' needs worked solutions, and task {self.data.task!r} makes its own "
                "questions without any: use 'self' or 'file'"
            )
        return self

    @model_validator(mode="after")
    def _servers(self) -> Recipe:
        if self.sampler.on_servers and self.model.adapter == "full":
            raise ValueError(
                f"sampler.{self.sampler.on_servers} needs model.adapter = 'lora': servers get an adapter after each "
                "update, not a whole model. To train all weights with vLLM use the TRL host (motif.integrations, "
                "docs/scaling.md)"
            )
        if self.sampler.on_servers or self.sampler.precision == "int8":  # frozen for users, but still validated here
            object.__setattr__(self, "loss", self.with_importance_cap(half=True).loss)
        if self.sampler.overlap and not self.loss.importance_cap:
            raise ValueError("sampler.overlap trains on samples of older weights: set loss.importance_cap, e.g. 2.0")
        if self.sampler.precision == "int8" and not self.loss.importance_cap:
            raise ValueError(
                "sampler.precision = 'int8' samples with other numbers than are trained: set loss.importance_cap, e.g. "
                "2.0, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        rollout, credit = self.rollout, self.credit
        if self.loss.kl_beta and self.model.adapter == "full":
            raise ValueError("loss.kl_beta needs model.adapter = 'lora': the reference is the adapter-off model")
        if rollout.continuation_policy == "base":
            if self.model.adapter == "full":
                raise ValueError("rollout.continuation_policy = 'base' needs model.adapter = 'lora'")
            if credit.train_rounds == "all" and rollout.longest > 1:
                raise ValueError("continuations by the base model cannot be trained: set credit.train_rounds = 'first'")
        trained = [rollout.top_p_first] + [rollout.top_p_continue] * (
            credit.train_rounds == "all" and rollout.longest > 1
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

    @model_validator(mode="after")
    def _credit_rules(self) -> Recipe:
        rollout, credit = self.rollout, self.credit
        if credit.group in ("progress", "chain"):
            compared = [rollout.responses] if credit.train_rounds == "first" else rollout.branching_in(rollout.longest)
            if min(compared) < 2:
                raise ValueError(
                    f"credit.group = {credit.group!r} takes the value of a prompt from several responses to it: give "
                    "every trained round of rollout.branching at least 2"
                )
        if credit.tokens != "all" and rollout.longest == 1 and not self.data.in_pieces:
            raise ValueError(f"credit.tokens = {credit.tokens!r} needs several rounds: one round writes no note")
        if credit.tokens != "all" and self.rounds.carry == "tail":
            raise ValueError("credit.tokens needs notes, and rounds.carry = 'tail' asks for none: leave it out")
        if rollout.replay and self.sampler.overlap:
            raise ValueError("rollout.replay needs the notes of the step before: set sampler.overlap = false")
        if rollout.replay and (rollout.longest == 1 or self.data.in_pieces):
            raise ValueError("rollout.replay gives notes of earlier rounds, and there are none: leave it out")
        return self

    @model_validator(mode="after")
    def _ends_of_rounds(self) -> Recipe:
        credit = self.credit
        if self.rounds.may_finish and credit.reward == "original_code":
            raise ValueError("credit.reward = 'original_code' needs all rounds: set rounds.may_finish = false")
        if credit.efficiency and not self.rounds.may_finish:
            raise ValueError("credit.efficiency pays for unused rounds: set rounds.may_finish = true, too")
        if self.rounds.carry == "tail" and credit.format_weight:
            if "format_weight" in credit.model_fields_set:
                raise ValueError("rounds.carry = 'tail' asks for no form: set credit.format_weight = 0")
            object.__setattr__(self, "credit", credit.model_copy(update={"format_weight": 0.0}))
        return self

    @model_validator(mode="after")
    def _pieces(self) -> Recipe:
        given = {
            "eval.rounds": self.eval.rounds,
            "eval.matched": self.eval.matched,
            "rollout.rounds_vary": self.rollout.rounds_vary,
            "rounds.examples": self.rounds.examples,
            "probe.questions": self.probe.questions,
        }
        if self.data.in_pieces and (name := next((name for name, value in given.items() if value), "")):
            raise ValueError(f"{name} does not apply to texts in pieces, of which each takes a round: leave it out")
        return self

    def with_settings(self, section: str, **values: Any) -> Recipe:
        """The recipe with other values in one of its sections, which are not checked."""
        return self.model_copy(update={section: getattr(self, section).model_copy(update=values)})

    def with_importance_cap(self, half: bool) -> Recipe:
        """The recipe with `loss.importance_cap` decided, if it is not set.

        Args:
            half: whether sampler and trainer compute in half precision, or the sampler in 8 bits or elsewhere.
        """
        if "importance_cap" in self.loss.model_fields_set:
            return self
        return self.with_settings("loss", importance_cap=IMPORTANCE_CAP if half else 0.0)

    def with_precision(self, name: Literal["float32", "int8"]) -> Recipe:
        """The recipe with `sampler.precision` decided, and with it `loss.importance_cap` if that is not set."""
        recipe = self.with_settings("sampler", precision=name)
        return recipe.with_importance_cap(half=True) if name == "int8" else recipe

    def with_microbatch(self, tokens: int | Literal["auto"]) -> Recipe:
        """The recipe with `train.microbatch_tokens` decided."""
        return self.with_settings("train", microbatch_tokens=tokens)

    def with_recomputing(self, active: bool | Literal["auto"]) -> Recipe:
        """The recipe with `train.activation_checkpointing` decided."""
        return self.with_settings("train", activation_checkpointing=active)

    @property
    def undecided(self) -> bool:
        """Whether `auto` leaves anything to a run's start."""
        train = self.train
        return "auto" in (self.sampler.precision, train.microbatch_tokens, train.activation_checkpointing)

    def as_begun(self, begun: Recipe) -> Recipe:
        """The recipe with what `auto` leaves to a run's start as the recipe of the run has it, which has begun."""
        recipe = self
        if recipe.train.microbatch_tokens == "auto":
            recipe = recipe.with_microbatch(begun.train.microbatch_tokens)
        if recipe.train.activation_checkpointing == "auto":
            recipe = recipe.with_recomputing(begun.train.activation_checkpointing)
        if recipe.sampler.precision == "auto" != begun.sampler.precision:
            recipe = recipe.with_precision(begun.sampler.precision)
        return recipe

    @property
    def parts(self) -> int:
        """Parts into which a step can be divided among training processes: its first-round responses.

        With servers, which sample for all processes, it is divided by question. So it is where a dead question is
        replaced, because only a whole tree shows which one is.
        """
        whole = self.rollout.refill or self.sampler.on_servers
        return self.rollout.questions_per_step * (1 if whole else self.rollout.responses)

    def divides_trees(self, processes: int) -> bool:
        """Whether so many training processes share trees, because a step has fewer trees than there are processes."""
        return min(processes, self.parts) > self.rollout.questions_per_step

    def rollout_of_one(self, processes: int) -> RolloutConfig:
        """What one of so many training processes grows of a step at most: whole trees, or a part of one."""
        rollout = self.rollout
        update: dict[str, Any] = {"questions_per_step": -(-rollout.questions_per_step // processes)}
        if self.divides_trees(processes):
            parts = processes // rollout.questions_per_step  # of the tree with the fewest
            update["branching"] = [-(-rollout.responses // parts), *rollout.branching[1:]]
        return rollout.model_copy(update=update)

    @property
    def eval_rounds(self) -> list[int]:
        """The numbers of rounds at which accuracy is reported, without repeats."""
        if self.data.in_pieces:
            return [self.rollout.rounds]
        return list(dict.fromkeys(self.eval.rounds or [1, self.rollout.rounds]))

    @property
    def main_row(self) -> str:
        """The name of the evaluation at the training number of rounds: that of texts in pieces follows the text."""
        return "pieces" if self.data.in_pieces else f"rounds_{self.rollout.rounds}"

    @property
    def best_row(self) -> str:
        """The name of the evaluation that selects the best checkpoint."""
        return "pieces" if self.data.in_pieces else f"rounds_{self.eval_rounds[-1]}"

    @property
    def matched_tokens(self) -> int:
        """New tokens of one round that match all training rounds together.

        For a single-round recipe they match the largest number of rounds that it is tested at.
        """
        rounds = self.rollout.rounds if self.rollout.longest > 1 else max(self.eval_rounds)
        return self.rollout.tokens_first + (rounds - 1) * self.rollout.tokens_continue

    def to_toml(self) -> str:
        """Return the resolved recipe as TOML, which `load_recipe` reads back as an equal recipe."""
        settings = self.model_dump(mode="json")
        if "importance_cap" not in self.loss.model_fields_set:
            del settings["loss"]["importance_cap"]  # decided where the run computes
        return "\n".join(_tables(settings)) + "\n"


def _tables(settings: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Yield lines of TOML: the values of a table, then its sub-tables."""
    if name:
        yield from ("", f"[{name}]")
    yield from (f"{key} = {to_toml(value)}" for key, value in settings.items() if not isinstance(value, Mapping))
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _tables(value, f"{name}.{key}" if name else key)


def to_toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        tables = (", ".join(f"{key} = {to_toml(below)}" for key, below in item.items()) for item in value)
        return "[\n" + "".join(f"    {{ {table} }},\n" for table in tables) + "]"
    # JSON strings, numbers, booleans and arrays are valid TOML; DEL is the one control character that JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
