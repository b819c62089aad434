"""`motif export`: write, read back, compare, describe, and only then put in place."""

from __future__ import annotations

import gc
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motif.config import Recipe
from motif.errors import RecipeError
from motif.evaluation.store import questions_digest
from motif.export.base_model import Base, describe, stored_dtype
from motif.export.card import SCRIPT, card, script
from motif.export.formats import find_converter, merge, write_adapter, write_gguf, write_model
from motif.export.hub import check_login, push
from motif.export.parity import TOLERANCE, Parity, compare, logits_of, read_back
from motif.export.source import Source, for_others, open_source, parity_prompts
from motif.method.rounds import Rounds
from motif.models.policy import Policy
from motif.runs.read import records, section
from motif.session import open_task, window_of
from motif.tasks import BadRows

FORMS = ("adapter", "merged", "gguf")
QUESTIONS = 8
"""Questions compared; each gives a prompt of the first and one of the last round."""


@dataclass(frozen=True)
class Wanted:
    """What to write, and how. `to` empty: the adapter, if one was trained, and the merged model."""

    to: Sequence[str] = ()
    out: Path | None = None
    best: bool = False
    unfinished: bool = False
    dtype: str | None = None  # of the merged model; None: as the base is stored
    gguf_type: str = "f16"
    llama_cpp: Path | None = None
    push: str | None = None
    private: bool = False
    tolerance: float | None = None


@dataclass(frozen=True)
class Known:
    """The trained policy before it is taken apart: its logits, what they were before training, and its prompts."""

    prompts: list[list[int]]
    logits: list[Tensor]
    before: list[Tensor]
    questions: list[str]
    data: str  # a sentence on the questions
    rounds: Rounds
    end_ids: list[int]
    device: torch.device


def export(run: Path, wanted: Wanted, say: Callable[[str], Any] = print) -> dict[str, Parity]:
    """Write the wanted forms of a run's weights, each to `out/FORM`, and push those that can be trusted.

    Returns how each compares with the run's own policy. One beyond the tolerance is left as `FORM.untrusted` and is not
    pushed.

    Raises:
        RecipeError: what is asked for does not apply to this run, or something is in the way; said before work is
            spent, but for a converter or a hub that refuses.
    """
    source = open_source(run, wanted.best, wanted.unfinished)
    forms, out = _forms(source.recipe, wanted), wanted.out or run / "export"
    converter = find_converter(wanted.llama_cpp) if "gguf" in forms else None
    if converter:
        _need_gguf()
    for form in forms:
        _refuse_used(out / form)
    if wanted.push:
        check_login(wanted.push)
    # Merging in the dtype of a GPU would round twice, and 4-bit weights cannot be merged into.
    config = source.recipe.model.model_copy(update={"dtype": "float32", "four_bit": False})
    base, dtype = describe(config.name), _dtype(wanted.dtype, config.name)
    policy = Policy(config, source.recipe.train.seed)
    known = _know(source, policy)
    writer = _Writer(source, wanted, base, known, out, say)
    try:
        if "adapter" in forms:
            write_adapter(policy, writer.begin("adapter"), base)
        model = merge(policy) if {"merged", "gguf"} & set(forms) else None
        if converter:
            plain = out / ".plain.partial"
            shutil.rmtree(plain, ignore_errors=True)
            try:
                write_model(model, policy, plain, torch.float32)
                say(f"converting with {converter} to {wanted.gguf_type}")
                write_gguf(plain, writer.begin("gguf") / writer.gguf_name, wanted.gguf_type, converter)
            finally:
                shutil.rmtree(plain, ignore_errors=True)
        if "merged" in forms:
            write_model(model, policy, writer.begin("merged"), dtype)
        del policy, model
        gc.collect()  # before a second model is read
        kinds = {"adapter": "float32", "merged": str(dtype).removeprefix("torch."), "gguf": wanted.gguf_type}
        found = {form: writer.finish(form, kinds[form]) for form in forms}
    finally:
        writer.clean_up(forms)
    if "adapter" in forms and not base.hub:
        say(f"the adapter needs its base, {base.name}, which is not on the hub; the merged model is complete")
    for form in forms:
        if wanted.push and found[form].holds:
            push(out / form, wanted.push if len(forms) == 1 else f"{wanted.push}-{form}", wanted.private, say)
    return found


class _Writer:
    """The folders being written: begun beside their place, moved there when they are done."""

    def __init__(self, source: Source, wanted: Wanted, base: Base, known: Known, out: Path, say: Callable[[str], Any]):
        self.source, self.wanted, self.base, self.known, self.out, self.say = source, wanted, base, known, out, say
        self.gguf_name = re.sub(r"[^\w.-]+", "-", source.recipe.name) + f"-{wanted.gguf_type}.gguf"

    def begin(self, form: str) -> Path:
        """An empty folder for this form."""
        folder = self._partial(form)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def finish(self, form: str, kind: str) -> Parity:
        """Read the weights back and compare them; write card, script and recipe; move the folder to its place."""
        folder, known = self._partial(form), self.known
        model, tokenizer = read_back(folder, form, self.source.recipe.model.name, known.device)
        rounds = Rounds(self.source.recipe.rounds, tokenizer)
        tolerance = TOLERANCE[kind] if self.wanted.tolerance is None else self.wanted.tolerance
        parity = compare(
            known.logits,
            logits_of(model, known.prompts),
            known.before,
            same_prompts=parity_prompts(self.source, known.questions, rounds) == known.prompts,
            tolerance=tolerance,
        )
        del model
        trained = for_others(self.source.recipe, self.base.hub or self.base.name)
        own = {"adapter": trained.model.name, "merged": ".", "gguf": self.gguf_name}[form]
        recipe = trained.model_copy(update={"model": trained.model.model_copy(update={"name": own})})
        (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
        text = card(self.source, trained, known.rounds, form, self.base, parity, known.data, self.gguf_name)
        (folder / "README.md").write_text(text, encoding="utf-8")
        text = script(trained, known.rounds, form, self.base, known.end_ids, self.gguf_name)
        (folder / SCRIPT).write_text(text, encoding="utf-8")
        target = self.out / (form if parity.holds else f"{form}.untrusted")
        if not parity.holds:
            shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        self.say(f"{target} ({kind}): {parity}")
        if not parity.holds:
            self.say(f"beyond the tolerance: do not trust {target}")
        return parity

    def clean_up(self, forms: Sequence[str]) -> None:
        """Remove what was begun and not finished."""
        for form in forms:
            shutil.rmtree(self._partial(form), ignore_errors=True)

    def _partial(self, form: str) -> Path:
        return self.out / f".{form}.partial"


def _know(source: Source, policy: Policy) -> Known:
    """Load the trained weights, and take down what the written ones are to be compared with."""
    recipe, rounds = source.recipe, Rounds(source.recipe.rounds, policy.tokenizer)
    questions, data = _questions(recipe, policy, rounds, source.run)
    prompts = parity_prompts(source, questions, rounds)
    before = logits_of(policy.wrapped, prompts)
    source.load(policy)
    logits = logits_of(policy.wrapped, prompts)
    return Known(prompts, logits, before, questions, data, rounds, policy.end_ids, policy.device)


def _questions(recipe: Recipe, policy: Policy, rounds: Rounds, run: Path) -> tuple[list[str], str]:
    """Questions to compare on, held-out ones where the data is at hand, and a sentence on the data for the card."""
    try:
        task = open_task(recipe, policy.tokenizer, window_of(recipe, policy.max_length))
    except (RecipeError, BadRows):
        seen = {str(section(tree or {}, "question").get("text", "")): None for _, tree in records(run / "trees.jsonl")}
        found = [text for text in seen if text][:QUESTIONS]
        if not found:
            raise
        return found, f"Task `{recipe.data.task}`; the data was not at hand when this was written."
    sentence = (
        f"Task `{recipe.data.task}`: {len(task.train):,} training questions (fingerprint "
        f"`{questions_digest(task.train, rounds)}`), {len(task.test):,} held-out ones "
        f"(`{questions_digest(task.test, rounds)}`), none of them in both."
    )
    return [question.text for question in (task.test or task.train)[:QUESTIONS]], sentence


def _forms(recipe: Recipe, wanted: Wanted) -> list[str]:
    lora = recipe.model.adapter == "lora"
    asked = list(dict.fromkeys(wanted.to)) or (["adapter"] if lora else []) + ["merged"]
    for form in asked:
        if form not in FORMS:
            raise RecipeError(f"--to takes {', '.join(FORMS)}; got {form!r}")
    if "adapter" in asked and not lora:
        raise RecipeError("this run trained all weights, so there is no adapter: --to merged")
    if wanted.dtype is not None and "merged" not in asked:
        raise RecipeError("--dtype is of the merged model: add --to merged (a GGUF file has --gguf-type)")
    return asked


def _dtype(name: str | None, base: str) -> torch.dtype:
    found = stored_dtype(base) if name is None else getattr(torch, name)
    if found not in (torch.float32, torch.float16, torch.bfloat16):
        raise RecipeError(f"the base is stored as {found}, which merged weights cannot be: say --dtype")
    return found


def _need_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise RecipeError("reading a GGUF file back needs the extra 'gguf': pip install 'motif-rl[gguf]'") from None


def _refuse_used(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder} is not empty: remove it, or choose another --out")
