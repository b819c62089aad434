"""`motif export`: write each form, read it back, compare it, describe it, and only then put it in place."""

from __future__ import annotations

import contextlib
import gc
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motif.config import Recipe, Trust
from motif.errors import DataError, ModelError, MotifError, RecipeError, UsageError, first_line
from motif.evaluation.store import questions_digest
from motif.export.base_model import BaseModelInfo, describe, require_gguf, stored_dtype
from motif.export.card import SCRIPT, card, script
from motif.export.choices import chosen_forms
from motif.export.formats import (
    NO_CONVERTER,
    convert,
    find_converter,
    merge,
    with_towers,
    write_adapter,
    write_model,
    write_tokenizer,
)
from motif.export.gguf import needs_files, obstacle, write_gguf
from motif.export.hub import check_login, push
from motif.export.parity import TOLERANCE, Parity, compare, logits_of, read_back
from motif.export.source import ExportSource, for_others, open_source, parity_prompts
from motif.method.rounds import Rounds
from motif.models.hub import load_config, load_tokenizer
from motif.models.policy import Policy
from motif.models.shape import window_of
from motif.run_files import EXPORTS
from motif.runs.folder import write_recipe
from motif.runs.read import read_trees, section
from motif.session import open_task
from motif.text import counted

IN_ORDER = ("adapter", "gguf", "merged")
"""The order of writing: merging uses up the adapter, and rounding the merged model its float32 weights."""
UNWRITABLE = (MotifError, OSError, ValueError, RuntimeError, KeyError)
"""What writing or reading back one form may raise, without a fault of the others."""
QUESTIONS = 8
"""Questions compared; each gives a prompt of the first round and one of the last."""


@dataclass(frozen=True)
class ExportOptions:
    """What to write, and how.

    forms: empty for the adapter, if one was trained, and the merged model. dtype: of the merged model; None: as the
    base is stored. base: the base's hub id, where its own files do not tell it.
    """

    forms: Sequence[str] = ()
    out: Path | None = None
    best: bool = False
    unfinished: bool = False
    dtype: str | None = None
    gguf_type: str = "f16"
    llama_cpp: Path | None = None
    base: str = ""
    push: str | None = None
    private: bool = False
    tolerance: float | None = None
    trust: Trust | None = None


@dataclass(frozen=True)
class ReferenceOutputs:
    """What the exports are compared with and described by, taken from the policy before it is merged.

    logits: of the trained policy. before: the logits before training. data: a sentence on the questions.
    """

    prompts: list[list[int]]
    logits: list[Tensor]
    before: list[Tensor]
    questions: list[str]
    data: str
    rounds: Rounds
    end_ids: list[int]
    device: torch.device


def export(run: Path, options: ExportOptions, say: Callable[[str], Any] = print) -> dict[str, Parity]:
    """Write a run's weights in the chosen forms, each to `out/FORM`, and push those that can be trusted.

    Returns how each form compares with the run's own policy. A form beyond the tolerance is left as `FORM.untrusted`
    and is not pushed. What can be written is written: that one form cannot does not lose the others.

    Raises:
        UsageError: the options do not apply to this run, or an output folder is in use.
        RunFolderError: `run` is not a run folder, or does not hold the weights.
        ModelError: a form cannot be written for this model; the others have been.
        ServiceError: the hub does not accept the upload. Whatever can be checked before any work is done, is.
    """
    source = open_source(run, options.best, options.unfinished, options.trust)
    forms, out = chosen_forms(source.recipe, options.forms, options.dtype), options.out or run / EXPORTS
    for form in forms:
        _refuse_used(out / form)
    # Merging in the dtype of a GPU would round twice, and 4-bit weights cannot be merged into.
    config = source.recipe.model.model_copy(update={"dtype": "float32", "four_bit": False})
    failed: dict[str, str] = {}
    converter = None
    if "gguf" in forms:
        try:
            converter = _converter(config.name, options.llama_cpp)
        except ModelError as error:
            if len(forms) == 1:
                raise
            failed["gguf"] = str(error)
    if options.push:
        check_login(options.push)
    base, dtype = describe(config.name, options.base), _dtype(options.dtype, config.name)
    policy = Policy(config, source.recipe.train.seed)
    writer = _Writer(source, options, base, _reference_outputs(source, policy), out, say, failed)
    number_formats = {"adapter": "float32", "merged": str(dtype).removeprefix("torch."), "gguf": options.gguf_type}
    try:
        writer.write(policy, [form for form in IN_ORDER if form in forms], dtype, converter)
        del policy
        gc.collect()  # before a second model is read
        parities = {form: parity for form in forms if (parity := writer.finish(form, number_formats[form]))}
    finally:
        writer.clean_up(forms)
    if "adapter" in parities and not base.hub:
        say(f"the adapter needs its base, {base.name}, whose hub id is not known: name it with --base, or give merged")
    for form, parity in parities.items():
        if options.push and parity.holds:
            push(out / form, options.push if len(forms) == 1 else f"{options.push}-{form}", options.private, say)
    if failed:
        written = f" Written: {', '.join(parities)} in {out}." if parities else ""
        raise ModelError(" ".join(f"{form} was not written: {why}." for form, why in failed.items()) + written)
    return parities


def _converter(name: str, given: Path | None) -> Path | None:
    """llama.cpp's converter where it is named or needed; None: a GGUF file of this model is written here.

    Raises:
        UsageError: `given` does not hold it.
        ModelError: the extra `gguf` is missing, or the model can be written in neither way.
    """
    require_gguf()
    if given is not None:
        return find_converter(given)
    why = obstacle(load_config(name), load_tokenizer(name))
    if why and not (found := find_converter(None)):
        raise ModelError(f"this model cannot be written as GGUF here: {why}. {NO_CONVERTER}")
    return found if why else None


class _Writer:
    """Writes each form to a folder beside its place, and moves it there when it is complete."""

    def __init__(
        self,
        source: ExportSource,
        options: ExportOptions,
        base: BaseModelInfo,
        reference: ReferenceOutputs,
        out: Path,
        say: Callable[[str], Any],
        failed: dict[str, str],
    ):
        self.source, self.options, self.base, self.reference = source, options, base, reference
        self.out, self.say, self.failed = out, say, failed
        self.gguf_name = re.sub(r"[^\w.-]+", "-", source.recipe.name) + f"-{options.gguf_type}.gguf"

    def write(self, policy: Policy, forms: Sequence[str], dtype: torch.dtype, converter: Path | None) -> None:
        """Write the weights in every form, in this order; the policy cannot be used afterwards."""
        model: Any = None
        for form in (form for form in forms if form not in self.failed):
            with self._noted(form):
                if form == "adapter":
                    write_adapter(policy, self._empty_folder(form), self.base)
                    continue
                if model is None:
                    model = merge(policy)
                if form == "merged":
                    write_model(with_towers(model, policy.config.name), policy, self._empty_folder(form), dtype)
                else:
                    self._write_gguf(model, policy, converter)

    @contextlib.contextmanager
    def _noted(self, form: str) -> Iterator[None]:
        """Note why a form fails, and go on with the next."""
        try:
            yield
        except UNWRITABLE as error:
            self.failed[form] = first_line(error).rstrip(".")

    def _write_gguf(self, model: Any, policy: Policy, converter: Path | None) -> None:
        kind, plain = self.options.gguf_type, self.out / ".plain.partial"
        file = self._empty_folder("gguf") / self.gguf_name
        if converter is None:
            write_gguf(model, policy.tokenizer, policy.end_ids, file, kind, self.base)
            if needs_files(policy.tokenizer):
                write_tokenizer(policy, file.parent)
            return
        shutil.rmtree(plain, ignore_errors=True)
        try:
            write_model(with_towers(model, policy.config.name), policy, plain, torch.float32)
            self.say(f"converting with {converter} to {kind}")
            convert(plain, file, kind, converter)
        finally:
            shutil.rmtree(plain, ignore_errors=True)

    def _empty_folder(self, form: str) -> Path:
        folder = self._partial(form)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def finish(self, form: str, number_format: str) -> Parity | None:
        """Read the weights back and compare them; add recipe, card and script; move the folder to its place.

        Returns None, and notes why, if the form could not be written or read back.
        """
        if form in self.failed:
            return None
        try:
            parity = self._parity(form, number_format)
        except UNWRITABLE as error:
            self.failed[form] = f"it could not be read back ({first_line(error)})"
            return None
        self._describe(form, parity)
        target = self.out / (form if parity.holds else f"{form}.untrusted")
        if not parity.holds:
            shutil.rmtree(target, ignore_errors=True)
        self._partial(form).rename(target)
        self.say(f"{target} ({number_format}): {parity}")
        if not parity.holds:
            self.say(f"beyond the tolerance: do not trust {target}")
        return parity

    def _parity(self, form: str, number_format: str) -> Parity:
        reference = self.reference
        model, tokenizer = read_back(self._partial(form), form, self.source.recipe.model.name, reference.device)
        rounds = Rounds(self.source.recipe.rounds, tokenizer)
        tolerance = TOLERANCE[number_format] if self.options.tolerance is None else self.options.tolerance
        return compare(
            reference.logits,
            logits_of(model, reference.prompts),
            reference.before,
            same_prompts=parity_prompts(self.source, reference.questions, rounds) == reference.prompts,
            tolerance=tolerance,
        )

    def _describe(self, form: str, parity: Parity) -> None:
        folder, base, reference = self._partial(form), self.base, self.reference
        trained = for_others(self.source.recipe, base.in_recipes)
        name = {"adapter": trained.model.name, "merged": ".", "gguf": self.gguf_name}[form]
        write_recipe(folder, trained.with_settings("model", name=name))
        text = card(self.source, trained, reference.rounds, form, base, parity, reference.data, self.gguf_name)
        (folder / "README.md").write_text(text, encoding="utf-8")
        text = script(trained, reference.rounds, form, base, reference.end_ids, self.gguf_name)
        (folder / SCRIPT).write_text(text, encoding="utf-8")

    def clean_up(self, forms: Sequence[str]) -> None:
        """Remove the folders that are not complete."""
        for form in forms:
            shutil.rmtree(self._partial(form), ignore_errors=True)

    def _partial(self, form: str) -> Path:
        return self.out / f".{form}.partial"


def _reference_outputs(source: ExportSource, policy: Policy) -> ReferenceOutputs:
    """Load the trained weights into the policy, and take down what the exports are compared with."""
    rounds = Rounds(source.recipe.rounds, policy.tokenizer)
    questions, data = _questions(source.recipe, policy, rounds, source.run)
    prompts = parity_prompts(source, questions, rounds)
    before = logits_of(policy.wrapped, prompts)
    source.load(policy)
    logits = logits_of(policy.wrapped, prompts)
    return ReferenceOutputs(prompts, logits, before, questions, data, rounds, policy.end_ids, policy.device)


def _questions(recipe: Recipe, policy: Policy, rounds: Rounds, run: Path) -> tuple[list[str], str]:
    """Questions to compare on, held-out ones if the data is available, and a sentence on the data for the card."""
    try:
        task = open_task(recipe, policy.tokenizer, window_of(recipe, policy.max_length))
    except (RecipeError, DataError):
        texts = {str(section(tree, "question").get("text", "")): None for tree in read_trees(run)}
        questions = [text for text in texts if text][:QUESTIONS]
        if not questions:
            raise
        return questions, f"Task `{recipe.data.task}`; the data was not available when this was written."
    sentence = (
        f"Task `{recipe.data.task}`: {counted(len(task.train), 'training question')} (fingerprint "
        f"`{questions_digest(task.train, rounds)}`), {len(task.test):,} held-out ones "
        f"(`{questions_digest(task.test, rounds)}`), none of them in both."
    )
    return [rounds.asked(question, 1) for question in (task.test or task.train)[:QUESTIONS]], sentence


def _dtype(name: str | None, base: str) -> torch.dtype:
    dtype = stored_dtype(base) if name is None else getattr(torch, name)
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise UsageError(f"the base is stored as {dtype}, in which weights cannot be merged: choose --dtype")
    return dtype


def _refuse_used(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty: remove it, or choose another --out")
