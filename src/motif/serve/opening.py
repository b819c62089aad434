"""Loading what is to be served: a run's weights or a model, in this process or on another server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch

from motif import __version__
from motif.config import Recipe
from motif.evaluation.target import Target
from motif.method.rounds import Rounds
from motif.models.policy import Policy, load_tokenizer
from motif.runs.checkpoint import checksum, load_newest_weights
from motif.sampling.base import ServingSampler
from motif.sampling.local.engine import Engine
from motif.sampling.openai import Api, OpenAISampler, base_url
from motif.session import window_of


@dataclass(frozen=True)
class UpstreamConfig:
    """The server that continues prompts in place of the local model (see `motif.sampling.openai`)."""

    url: str
    api: Api = "completions"
    model: str = ""
    key: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedModel:
    """A sampler and its protocol.

    window: tokens of prompt and response together. about: the model, in words. fingerprint: identifies all that
    decides its answers, where that is known.
    """

    sampler: ServingSampler
    rounds: Rounds
    window: int | None
    about: str
    fingerprint: str | None = None


def open_local(what: Target, rows: int) -> LoadedModel:
    """Load the model into this process; at most `rows` responses are decoded at once.

    Raises:
        RecipeError: the model cannot be loaded or sampled.
    """
    recipe = what.recipe
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    policy = Policy(recipe.model, recipe.train.seed)
    about = f"{recipe.model.name}, untrained"
    if what.weights is not None:
        step = load_newest_weights(what.weights, policy)
        about = f"weights of {what.weights}"
        if step is not None:
            about += f", an unfinished run: its checkpoint of step {step}"
    rounds = Rounds(recipe.rounds, policy.tokenizer)
    window = window_of(recipe, policy.max_length)
    return LoadedModel(Engine(policy, rows), rounds, window, about, _fingerprint(recipe, policy))


def open_upstream(what: Target, upstream: UpstreamConfig, seconds: float) -> LoadedModel:
    """Prepare a server elsewhere; of the model itself only the tokenizer is loaded, which cuts the notes.

    Raises:
        RecipeError: the tokenizer cannot be loaded, or the address is not one.
    """
    rounds = Rounds(what.recipe.rounds, load_tokenizer(what.recipe.model.name))
    url = base_url(upstream.url)
    sampler = OpenAISampler(url, upstream.api, rounds, upstream.model, upstream.key, upstream.extra, seconds)
    return LoadedModel(sampler, rounds, what.recipe.rollout.window or None, f"{url} ({upstream.api})")


def _fingerprint(recipe: Recipe, policy: Policy) -> str:
    parts = (__version__, torch.__version__, recipe.model.name, str(policy.device), policy.autocast, checksum(policy))
    scaffold = recipe.rounds.model_dump_json()
    return "motif-" + hashlib.sha256(repr((*parts, scaffold)).encode()).hexdigest()[:12]
