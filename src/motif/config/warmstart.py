"""`[warmstart]`: what a run is taught by demonstrations before its reinforcement learning begins."""

from __future__ import annotations

import json
import re
import shlex
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from motif.config.sections import Section

CUTS, NOTES = ("lines", "sentences", "steps"), ("all", "latest")
OWN_FUNCTION = re.compile(r".+:[A-Za-z_]\w*")


class WarmstartConfig(Section):
    """A stage before the first step, in which the model imitates demonstrations (docs/start.md).

    A demonstration is a tree whose responses are given. The update is that of every step, with advantage 1.
    """

    added = frozenset({"answers"})

    source: Literal["", "solutions", "self", "teacher", "file"] = ""
    """Where demonstrations come from. `solutions`: worked solutions in the data, cut into rounds. `self`: solutions
    that the model itself finds in one long round, kept when they are right, and cut in the same way. `teacher`: what
    another model on a server answers in the same rounds, kept when it is right. `file`: rounds written by hand or by
    `motif traces`. Empty: no warm start."""
    file: str = ""
    """With `file`: JSON lines of `question`, `answer` and `rounds` (docs/start.md)."""
    solution_column: str = ""
    """With `solutions`: the column of worked solutions; empty: `solution`, or the task's own (GSM8K: `answer`)."""
    teacher: str = ""
    """With `teacher`: a server of OpenAI's API, e.g. `http://gpu1:8000/v1`."""
    teacher_model: str = ""
    """With `teacher`: what the server calls the model; empty: its only one."""
    teacher_key_variable: str = "TEACHER_API_KEY"
    """With `teacher`: environment variable with the server's API key; if it is not set, no key is sent."""
    teacher_concurrency: Annotated[int, Field(ge=1)] = 16
    """With `teacher`: limit of requests in flight."""
    cut: str = "lines"
    """Where a solution may be cut: `lines`, `sentences` (also at the ends of sentences), `steps` (at blank lines), or
    your own `module:function` or `file.py:function`, which returns the pieces of a solution."""
    notes: str = "all"
    """What a note of a solution holds: what `all` pieces so far have found, or only the `latest`, for solutions whose
    every piece says where things stand; or your own function of the list of pieces so far."""
    steps: Annotated[int, Field(ge=1)] = 100
    """The most optimiser steps; with `self`, in each iteration."""
    demonstrations_per_step: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Constant over the stage. The optimiser starts afresh after it."""
    samples: Annotated[int, Field(ge=1)] = 4
    """With `self` or `teacher`: solutions sampled for each question."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """With `self` or `teacher`: of these samples. Small models are right more often below 1."""
    keep: Annotated[int, Field(ge=1)] = 2
    """With `self` or `teacher`: right solutions kept for each question, at most."""
    questions: Annotated[int, Field(ge=1)] = 200
    """With `self` or `teacher`: questions that solutions are sampled for, in each iteration."""
    tokens: Annotated[int, Field(ge=1)] = 512
    """With `self`: limit of new tokens of the one long round."""
    iterations: Annotated[int, Field(ge=1)] = 1
    """With `self`: how often the model samples solutions and learns from them. From the second time on they are its own
    answers in rounds, where these are right."""
    answers: Literal["long", "rounds"] = "long"
    """With `self`: what is sampled the first time. `rounds`: its own answers in rounds at once, for a model that knows
    the form: rejection-sampling fine-tuning."""
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

    @field_validator("cut", "notes")
    @classmethod
    def _known_or_own(cls, name: str, info: ValidationInfo) -> str:
        known = CUTS if info.field_name == "cut" else NOTES
        if name not in known and not OWN_FUNCTION.fullmatch(name):
            raise ValueError(f"known are {', '.join(known)}; your own is given as 'module:function'")
        return name

    @field_validator("teacher")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url.strip())
        if "@" in parts.netloc:  # the recipe is shared; a key has its place in teacher_key_variable
            raise ValueError("names a user or password: give a key by warmstart.teacher_key_variable instead")
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
            raise ValueError("is not the address of a server: write it like http://gpu1:8000/v1")
        return url.strip().rstrip("/")

    @model_validator(mode="after")
    def _only_what_is_used(self) -> WarmstartConfig:
        fields = type(self).model_fields
        of = {"file": ("file",), "solution_column": ("solutions",), "cut": ("solutions", "self")}
        of |= {"notes": ("solutions", "self")}
        of |= dict.fromkeys(("tokens", "iterations", "answers"), ("self",))
        of |= dict.fromkeys(("samples", "temperature", "keep", "questions"), ("self", "teacher"))
        of |= {key: ("teacher",) for key in fields if key.startswith("teacher")}
        for key in fields:
            sources = of.get(key, ("solutions", "self", "teacher", "file"))
            if key != "source" and self.source not in sources and getattr(self, key) != fields[key].default:
                if not self.source:
                    raise ValueError(f"{key} needs a source: set one, or leave out the section, warmstart = {{}}")
                named = " or ".join(map(repr, sources))
                raise ValueError(
                    f"{key} applies to source = {named} only, and the source is {self.source!r}: leave it out, or set "
                    f"it back (--set {shlex.quote(f'warmstart.{key}={json.dumps(fields[key].default)}')})"
                )
        if self.source == "file" and not self.file:
            raise ValueError("source = 'file' needs file, the JSON lines of rounds")
        if self.source == "teacher" and not self.teacher:
            raise ValueError("source = 'teacher' needs teacher, the address of a server, like http://gpu1:8000/v1")
        return self
