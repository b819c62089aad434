"""What motif can do with a model, found out as a run does it at its start: `motif doctor --model`.

First what can be told without weights; then they are loaded, and sampler and update are compared with plain passes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from motif.config import Recipe
from motif.errors import ModelError
from motif.method.reasoning import own_marks
from motif.method.rounds import Rounds
from motif.method.variables import Effect, effects
from motif.models.architecture import check_vocabulary
from motif.models.description import Description, describe
from motif.models.device import pick_device, weight_dtype
from motif.models.hub import load_config, load_tokenizer
from motif.models.int8 import Precision
from motif.models.path import Paths
from motif.models.policy import Policy
from motif.models.shape import Shape, model_shape
from motif.planning.memory import GIB, memory
from motif.planning.plan import available_memory
from motif.sampling.local.precision import refuse_elsewhere
from motif.session import open_sampler
from motif.training.check import choose_update_path
from motif.training.speed import measure_slowdown

PROMPT, HELD_OUT = 200, 100
"""Tokens of a prompt and held-out questions that memory is estimated for."""


@dataclass(frozen=True)
class Template:
    """A chat template: whether it has a role for system messages, its marks of reasoning, and its variables."""

    system: bool
    marks: tuple[str, str] | None
    opening: str  # what it writes of every response with the recipe's variables
    effects: list[Effect]

    @property
    def off(self) -> list[Effect]:
        """The values that switch reasoning off: the template then writes an empty block itself."""
        closing = self.marks[1] if self.marks else ""
        return [one for one in self.effects if closing and one.response and closing in one.response]

    def rows(self) -> list[tuple[str, str]]:
        """What to show, as (name, text) pairs."""
        where = "has a role of its own" if self.system else "goes into the first question"
        rows = [("template", f"the system message {where}")]
        if not self.marks:
            return [*rows, ("thinking", "no marks of its own: rounds.think_tags are asked for in the prompt")]
        begun = f"; the template writes {self.opening!r} itself" if self.opening else ""
        text = f"between {self.marks[0]!r} and {self.marks[1]!r} (rounds.think = 'model'){begun}"
        off = [f"{{{one.name} = {str(one.value).lower()}}}" for one in self.off]
        if self.marks[1] in self.opening:
            off = ["as it is"]
        how = f"rounds.template_variables = {' or '.join(off)}" if off != ["as it is"] else "as it is"
        return [*rows, ("thinking", text), *([("no thinking", how)] if off else [])]


@dataclass(frozen=True)
class Facts:
    """What is known of a model before its weights are loaded. memory: bytes by adapter and part."""

    recipe: Recipe
    shape: Shape
    description: Description
    tokens: int  # of the tokenizer
    template: Template | None
    device: str
    dtype: str
    memory: dict[str, dict[str, float]]
    available: float

    def rows(self) -> list[tuple[str, str]]:
        """What to show, as (name, text) pairs."""
        one = self.description
        within = f", of which the part that writes is trained: {one.text_kind}" if one.text_kind != one.kind else ""
        template = self.template.rows() if self.template else [("template", "none: a base model gets a plain layout")]
        variables = [("variable", str(effect)) for effect in self.template.effects] if self.template else []
        return [
            ("model", self.recipe.model.name),
            ("class", f"{one.architecture} ({one.kind}){within}"),
            ("sizes", f"{self.shape.parameters:,} parameters, {one}"),
            ("tokenizer", f"{self.tokens:,} tokens, fits"),
            *template,
            *variables,
            ("memory", "; ".join(self._memory(adapter) for adapter in self.memory)),
        ]

    def _memory(self, adapter: str) -> str:
        total = sum(self.memory[adapter].values()) / GIB
        what = {"lora": f"LoRA r = {self.recipe.model.lora_rank}", "full": "all weights"}[adapter]
        free = f" of {self.available / GIB:.1f} GiB free on {self.device}"
        room = "" if total * GIB <= self.available else ", which is too much as it stands (motif train --dry-run)"
        return f"{what}: about {total:.1f}{free}{room}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        template = self.template
        return {
            "model": self.recipe.model.name,
            "parameters": self.shape.parameters,
            **asdict(self.description),
            "tokenizer": {"tokens": self.tokens, "fits": True},
            "template": asdict(template) | {"off": [asdict(one) for one in template.off]} if template else None,
            "memory": self.memory,
            "memory_free": self.available,
            "device": self.device,
            "dtype": self.dtype,
        }


@dataclass(frozen=True)
class Trial:
    """What came of loading a model as a run of the recipe does."""

    adapter: str
    dtype: str
    parameters: int
    trained: int
    end_tokens: list[str]
    paths: Paths
    precision: Precision
    warnings: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str]]:
        """What to show, as (name, text) pairs."""
        adapter = "all weights" if self.adapter == "full" else "a LoRA adapter"
        sampler, update = self.paths.sampler, self.paths.update
        named = {"sampling": sampler, "updates": update}
        speed = [f"in {name} {path.slower:.2g} times" for name, path in named.items() if path and path.slower]
        unknown = [name for name, path in named.items() if path and not path.slower]
        parts = [f"the seconds of the general path are those of the fast one {', '.join(speed)}"] if speed else []
        parts += [f"unknown for {' and '.join(unknown)}, where one of the paths cannot run"] if unknown else []
        return [
            ("trained", f"{adapter}, {self.trained:,} of {self.parameters:,} parameters"),
            ("end tokens", ", ".join(map(repr, self.end_tokens))),
            ("sampler", sampler.describe() if sampler else "servers (sampler.urls)"),
            ("update", update.describe()),
            ("precision", f"of rollouts: {self.precision.describe()}"),
            ("speed", f"{'; '.join(parts)} (measured here and now, on a few tokens)"),
            *(("note", warning) for warning in self.warnings),
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `times_slower` is that of the general path also where the fast one is taken."""
        return {
            "adapter": self.adapter,
            "trained_parameters": self.trained,
            "end_tokens": self.end_tokens,
            "paths": self.paths.to_dict(),
            "precision": self.precision.to_dict(),
            "notes": self.warnings,
        }


def facts(recipe: Recipe) -> Facts:
    """All that can be told of the recipe's model without its weights.

    Raises:
        ModelError: it cannot be trained, or its tokenizer or template cannot be used: a sentence says why.
        RecipeError: the recipe does not go with it.
    """
    name = recipe.model.name
    description, shape = describe(name), model_shape(name)
    tokenizer = load_tokenizer(name)
    check_vocabulary(name, tokenizer, load_config(name), shape.vocabulary)
    rounds = Rounds(recipe.rounds, tokenizer)
    device = pick_device(recipe.model.device)
    cpu = device.type == "cpu"
    refuse_elsewhere(recipe, device, weight_dtype(recipe.model, device) != torch.float32)

    def memory_of(adapter: str) -> dict[str, float]:
        changed = recipe.with_settings("model", adapter=adapter)
        half = weight_dtype(changed.model, device) != torch.float32
        return memory(changed, shape, PROMPT, HELD_OUT, half=half, cpu=cpu)

    return Facts(
        recipe=recipe,
        shape=shape,
        description=description,
        tokens=len(tokenizer),
        template=_template(rounds, tokenizer),
        device=str(device),
        dtype=str(weight_dtype(recipe.model, device)).removeprefix("torch."),
        memory={adapter: memory_of(adapter) for adapter in ("lora", "full")},
        available=available_memory(device),
    )


def _template(rounds: Rounds, tokenizer: Any) -> Template | None:
    template = rounds.template
    if template is None:
        return None
    try:
        marks = own_marks(template, tokenizer)
    except ModelError:
        marks = None
    return Template(template.form.system, marks, template.opening(marks or ()), effects(template))


def trial(facts: Facts) -> Trial:
    """Load the model, choose the paths of sampler and update as a run does, and time both paths.

    Raises:
        ModelError: the model cannot be trained or sampled, or its weights do not fit: a sentence says why.
        ServiceError: a server of the recipe does not answer.
    """
    recipe = facts.recipe
    weights = facts.memory[recipe.model.adapter]["weights"]
    if weights > facts.available:
        raise ModelError(
            f"the weights of model {recipe.model.name!r} need about {weights / GIB:.1f} GiB, and "
            f"{facts.available / GIB:.1f} are free on {facts.device}: choose a smaller model, or "
            "model.dtype = 'bfloat16'"
        )
    policy = Policy(recipe.model, recipe.train.seed)
    sampler = open_sampler(recipe, policy)
    try:
        choose_update_path(policy)
        measure_slowdown(policy, sampler, always=True)
        paths, precision = Paths(sampler.path, policy.update_path), sampler.precision
    finally:
        sampler.close()
    return Trial(
        adapter=recipe.model.adapter,
        dtype=facts.dtype,
        parameters=policy.parameter_count,
        trained=sum(parameter.numel() for parameter in policy.trainable()),
        end_tokens=[str(policy.tokenizer.convert_ids_to_tokens(token)) for token in policy.end_ids],
        paths=paths,
        precision=precision,
        warnings=paths.warnings(),
    )
