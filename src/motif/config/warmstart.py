"""`[warmstart]`: what a run is taught by demonstrations before its reinforcement learning begins."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from motif.config.sections import Section


class WarmstartConfig(Section):
    """A stage before the first step, in which the model imitates demonstrations (docs/start.md).

    A demonstration is a tree whose responses are given. The update is that of every step, with advantage 1.
    """

    source: Literal["", "solutions", "self", "file"] = ""
    """Where demonstrations come from. `solutions`: worked solutions in the data, cut into rounds. `self`: solutions
    that the model itself finds in one long round, kept when they are right, and cut in the same way. `file`: rounds
    written by hand or by `motif traces`. Empty: no warm start."""
    file: str = ""
    """With `file`: JSON lines of `question`, `answer` and `rounds` (docs/start.md)."""
    solution_column: str = ""
    """With `solutions`: the column of worked solutions; empty: `solution`, or the task's own (GSM8K: `answer`)."""
    cut: Literal["lines", "sentences", "steps"] = "lines"
    """Where a solution may be cut: at line ends, also at the ends of sentences, or at blank lines."""
    notes: Literal["all", "latest"] = "all"
    """What a note of a solution holds: what all pieces so far have found, or only what the latest has, for solutions
    whose every piece says where things stand."""
    steps: Annotated[int, Field(ge=1)] = 100
    """The most optimiser steps; with `self`, in each iteration."""
    demonstrations_per_step: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Constant over the stage. The optimiser starts afresh after it."""
    samples: Annotated[int, Field(ge=1)] = 4
    """With `self`: solutions sampled for each question."""
    temperature: Annotated[float, Field(gt=0)] = 0.7
    """With `self`: of these samples. Small models are right more often below 1."""
    keep: Annotated[int, Field(ge=1)] = 1
    """With `self`: right solutions kept for each question, at most."""
    questions: Annotated[int, Field(ge=1)] = 200
    """With `self`: questions that solutions are sampled for, in each iteration."""
    tokens: Annotated[int, Field(ge=1)] = 512
    """With `self`: limit of new tokens of the one long round."""
    iterations: Annotated[int, Field(ge=1)] = 1
    """With `self`: how often the model samples solutions and learns from them. From the second time on they are its own
    answers in rounds, where these are right."""
    until: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Stop as soon as this share of groups would tell responses apart by their outcomes, and enough responses are well
    formed: a model that is sure of everything has nothing left to compare. 0: make all steps."""
    well_formed: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The share of well-formed responses that is enough."""
    least_entropy: Annotated[float, Field(ge=0)] = 0.05
    """Stop as well where enough responses are well formed and the model's own samples have less entropy than this, in
    nats a token: it is nearly sure of every token."""
    look_every: Annotated[int, Field(ge=1)] = 10
    """Steps between looks: a few trees are grown, to measure form, entropy and groups. Each response is continued once,
    so in training, with more trajectories, more groups tell responses apart."""
    look_questions: Annotated[int, Field(ge=1)] = 8
    """Training questions whose trees are grown for a look."""

    @model_validator(mode="after")
    def _only_what_is_used(self) -> WarmstartConfig:
        fields = type(self).model_fields
        of = {"file": ("file",), "cut": ("solutions", "self")}
        of |= dict.fromkeys(("solution_column", "notes"), ("solutions",))
        of |= dict.fromkeys(("samples", "temperature", "keep", "questions", "tokens", "iterations"), ("self",))
        for key in fields:
            sources = of.get(key, ("solutions", "self", "file"))
            if key != "source" and self.source not in sources and getattr(self, key) != fields[key].default:
                named = " or ".join(map(repr, sources))
                raise ValueError(f"{key} applies to source = {named} only, and the source is {self.source!r}")
        if self.source == "file" and not self.file:
            raise ValueError("source = 'file' needs file, the JSON lines of rounds")
        return self
