"""The model card of an export (README.md), and the script that goes with it."""

from __future__ import annotations

import pprint
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motif import HOME, __version__
from motif.config import Recipe
from motif.export.base_model import UNKNOWN, BaseModelInfo
from motif.export.choices import FORM_TITLES
from motif.export.parity import Parity
from motif.export.source import ExportSource
from motif.method.rounds import Rounds
from motif.method.tree import Question
from motif.runs.read import section
from motif.text import counted

SCRIPT = "think_in_rounds.py"
DATASETS = {  # hub ids of the shipped tasks' data
    "gsm8k": "openai/gsm8k",
    "svamp": "ChilleD/SVAMP",
    "math": "DigitalLearningGmbH/MATH-lighteval",
}
LOAD = {
    "adapter": '''\
def load() -> tuple[Any, Any]:
    """Load the base model with the adapter, and the tokenizer."""
    base = os.environ.get("BASE_MODEL", {base!r})  # a hub id or a folder
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    return PeftModel.from_pretrained(model, str(HERE)), AutoTokenizer.from_pretrained(HERE)
''',
    "gguf": '''\
def load() -> tuple[Any, Any]:
    """Load model and tokenizer from the GGUF file."""
    model = AutoModelForCausalLM.from_pretrained(HERE, gguf_file={file!r}, dtype=torch.float32)
    if (HERE / "tokenizer.json").is_file():
        return model, AutoTokenizer.from_pretrained(HERE)
    return model, AutoTokenizer.from_pretrained(HERE, gguf_file={file!r})
''',
}


def script(recipe: Recipe, rounds: Rounds, form: str, base: BaseModelInfo, end_ids: Sequence[int], file: str) -> str:
    """The text of think_in_rounds.py with this scaffold; it loads this form of the weights."""
    text = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
    literal = pprint.pformat(scaffold(recipe, rounds, end_ids), width=110, sort_dicts=False)
    text = text.replace("SCAFFOLD: dict[str, Any] = {}", f"SCAFFOLD: dict[str, Any] = {literal}")
    if form in LOAD:
        load = LOAD[form].format(base=base.public, file=file)
        text = re.sub(r"def load\(\).*?\n(?=\n\ndef )", lambda _: load, text, flags=re.DOTALL)
    text = text.replace("AutoModelForCausalLM", base.loader)
    if form == "adapter":
        text = text.replace("import re\n", "import os\nimport re\n", 1)
        text = text.replace("import torch\n", "import torch\nfrom peft import PeftModel\n", 1)
    return text


def scaffold(recipe: Recipe, rounds: Rounds, end_ids: Sequence[int]) -> dict[str, Any]:
    """The settings of a recipe that the script needs."""
    config, rollout, template = rounds.config, recipe.rollout, rounds.template
    chat = template and {
        "system": template.form.system,
        "parts": template.form.parts,
        "clock": template.clock,
        "variables": template.variables,
    }
    return {
        "rounds": rollout.rounds,
        "system": rounds.system_prompt if recipe.data.in_pieces else rounds.system(rollout.rounds),
        "question": config.question,
        "piece": config.piece,
        "progress": config.progress,
        "counter": config.counter,
        "final": config.final if config.announce_final else config.counter,
        "may_finish": config.may_finish,
        "carry": config.carry,
        "think_tags": config.think_tags,
        "note_tags": config.note_tags,
        "answer_marks": config.answer_marks,
        "fallback": config.fallback,
        "untagged": config.untagged,
        "note_tokens": config.note_tokens,
        "tokens_first": rollout.tokens_first,
        "tokens_continue": rollout.tokens_continue,
        "end_ids": sorted({*end_ids, *rounds.end_ids}),
        "special": rounds.special,
        "quotes": [rounds.quotation.opening, rounds.quotation.closing],
        "opening": rounds.opening,
        "chat": chat,
    }


def card(
    source: ExportSource,
    recipe: Recipe,
    rounds: Rounds,
    form: str,
    base: BaseModelInfo,
    parity: Parity,
    data: str,
    file: str,
) -> str:
    """The text of README.md.

    Args:
        recipe: the public one (`for_others`). data: a sentence on the questions. file: the name of the GGUF file.
    """
    count, n = source.recipe.train.steps, recipe.rollout.rounds
    about = f"{recipe.about}. " if recipe.about else ""
    steps = f"{counted(source.step, 'step')}" + (f" (of {count}; {source.chosen})" if source.chosen else "")
    parts = [
        f"---\n{_metadata(source, recipe, form, base)}\n---",
        f"# {recipe.name}: {base.public} trained to think in {n} round{'s' if n > 1 else ''}",
        f"{FORM_TITLES[form]}. {about}Trained with [motif]({HOME}) by reinforcement learning, with the method MOTIF "
        "([arXiv 2507.02851](https://arxiv.org/abs/2507.02851)): the model reasons inside a bounded window, writes a "
        "short note, forgets the rest, and continues from the question and the note. "
        f"The results below hold only if it is asked as described below. It was trained for {steps}.",
        _run(recipe, form, base, file),
        _results(source, n),
        _base(base, form),
        _training(source, recipe, data),
        _prompts(recipe, rounds),
        "## These files\n\n"
        f"Read back with plain transformers{' and peft' if form == 'adapter' else ''} and compared with the trained "
        f"model in float32: {parity}.",
        "## Limits\n\n"
        f"- Trained on one task with one seed ({recipe.train.seed}); nothing was measured beyond the table above.\n"
        f"- Answers are checked by a program ({recipe.data.grader or recipe.data.task}); notes are not checked. A note "
        "says what helps the next round, which need not be the reason why the answer is right.\n"
        "- The weaknesses of the base model, and the restrictions on its use, apply to this model too.",
        f"Made with [motif]({HOME}) {__version__}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(source: ExportSource, recipe: Recipe, form: str, base: BaseModelInfo) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    data = DATASETS.get(recipe.data.task) or (
        recipe.data.train if re.fullmatch(r"[\w.-]+/[\w.-]+", recipe.data.train) else ""
    )
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=data or recipe.data.task,
            dataset_name=f"{recipe.data.task}, held-out questions",
            metric_type="accuracy",
            metric_name=f"accuracy, {_row(name)}",
            metric_value=round(row["accuracy"], 4),
        )
        for name, row in source.after.items()
        if row.get("accuracy") is not None
    ]
    content = ModelCardData(
        base_model=base.hub or None,
        base_model_relation={"adapter": "adapter", "merged": "finetune", "gguf": "quantized"}[form]
        if base.hub
        else None,
        license=base.licence,
        library_name={"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[form],
        pipeline_tag="text-generation",
        tags=["motif", "reinforcement-learning", "reasoning"],
        datasets=[data] if data else None,
        model_name=recipe.name if results else None,
        eval_results=results or None,
    )
    return str(content.to_yaml()).strip()


def _run(recipe: Recipe, form: str, base: BaseModelInfo, file: str) -> str:
    needs = {"adapter": "torch transformers peft", "merged": "torch transformers", "gguf": "torch transformers gguf"}[
        form
    ]
    lines = [
        "## Run it\n",
        "In the folder of these files, with plain transformers"
        + (" (BASE_MODEL: the folder of the base, see below)" if form == "adapter" and not base.hub else "")
        + ":\n",
        f"```sh\npip install {needs}",
        ("BASE_MODEL=base " if form == "adapter" and not base.hub else "")
        + f"python {SCRIPT} {_arguments(recipe)}\n```\n",
        f"With [motif]({HOME}), in the terminal or as a server:\n",
        f'```sh\nmotif solve --run . "{_example(recipe)}"\nmotif serve .\n```',
    ]
    if form == "gguf":
        lines.append(
            f"\n`{file}` also runs in llama.cpp and software built on it. The rounds are then up to you: "
            f"`{SCRIPT}` shows the prompts."
        )
    return "\n".join(lines)


def _example(recipe: Recipe) -> str:
    if recipe.data.task == "arithmetic":
        op, (a, b) = ("×", (15, 24)) if recipe.data.arithmetic.operation == "multiply" else ("+", (7, 12))
        return recipe.data.arithmetic.template.format(a=a, b=b, op=op)
    return "your question"


def _arguments(recipe: Recipe) -> str:
    """What follows the name of the script."""
    return f'"{_example(recipe)}"' + ' "the first piece of its text" "the second"' * recipe.data.in_pieces


def _row(name: str) -> str:
    count = name.partition("_")[2]
    return f"{count} round{'' if count == '1' else 's'}" if name.startswith("rounds_") and count.isdigit() else name


def _results(source: ExportSource, rounds: int) -> str:
    warmed = section(section(source.summary, "warmstart"), "evaluation")
    rows = list(dict.fromkeys([*source.before, *source.after]))
    if not rows:
        return "## Results\n\nNot evaluated: the accuracy of these weights is unknown."
    columns = [("before training", source.before), ("after the warm start", warmed), ("these weights", source.after)]
    columns = [column for column in columns if column[1] is not warmed or warmed]
    lines = [f"| {_row(row)} | " + " | ".join(_cell(found.get(row)) for _, found in columns) + " |" for row in rows]
    text = "## Results\n\nAccuracy on held-out questions with 95 % intervals:\n\n"
    text += f"| | {' | '.join(name for name, _ in columns)} |\n|{'---|' * (1 + len(columns))}\n" + "\n".join(lines)
    text += f"\n\n{verdict}" if (verdict := _verdict(source, f"rounds_{rounds}")) else ""
    return text + (f"\n\nThese weights are {source.chosen}." if source.chosen else "")


def _verdict(source: ExportSource, row: str) -> str:
    """What these accuracies show, and what they do not."""
    if section(source.summary, "ledger").get("updates") == 0 and not section(source.summary, "warmstart"):
        return "**No update was made: these are the weights of the base model.**"
    before, after = (
        found.get(row) if isinstance(found.get(row), dict) else None for found in (source.before, source.after)
    )
    if not before or not after or None in (before.get("accuracy"), after.get("accuracy")):
        return ""
    points = 100 * (after["accuracy"] - before["accuracy"])
    apart = [None not in (one.get("low"), one.get("high")) for one in (before, after)]
    if not all(apart) or (after["low"] <= before["high"] and before["low"] <= after["high"]):
        return (
            f"**At {_row(row)} the intervals overlap ({points:+.1f} points): these numbers do not show that training "
            "changed the accuracy.**"
        )
    moved = "raised" if points > 0 else "**lowered**"
    return f"At {_row(row)}, training {moved} the accuracy by {abs(points):.1f} points."


def _cell(row: dict[str, Any] | None) -> str:
    if not row or row.get("accuracy") is None:
        return "not evaluated"
    low, high = row.get("low"), row.get("high")
    interval = f" [{100 * low:.1f}–{100 * high:.1f}]" if low is not None and high is not None else ""
    return f"{100 * row['accuracy']:.1f} %{interval}, n = {row['n']}"


def _base(base: BaseModelInfo, form: str) -> str:
    text = f"## Base model and licence\n\n`{base.name}`. {base.obtain} "
    if base.licence == UNKNOWN:
        text += "Its licence is unknown: find out before you use or redistribute this model. "
    else:
        text += f"Its licence is {base.licence}, which also applies to models derived from it. "
    if form == "adapter" and not base.hub:
        text += (
            "Its hub id is not known, so this adapter alone is of little use to others; the merged model is complete."
        )
    elif form == "adapter" and not base.exact:
        text += (
            "The adapter was trained on, and compared with, the rounded weights; on those of the hub, which are not "
            "rounded, it was not tried."
        )
    return text.strip()


def _training(source: ExportSource, recipe: Recipe, data: str) -> str:
    totals = section(source.summary, "ledger")
    names = ("questions", "distinct_questions", "updates", "generated_tokens", "prefill_tokens", "trained_tokens")
    ledger = "\n".join(f"| {name.replace('_', ' ')} | {int(totals[name]):,} |" for name in names if name in totals)
    if totals:
        ledger += f"\n| floating-point operations | {totals['flops']:.2g} |\n| seconds | {totals['seconds']:,.0f} |"
    versions = ", ".join(f"{name} {version}" for name, version in section(source.summary, "versions").items())
    cost = f"The whole run took:\n\n| | |\n|---|---|\n{ledger}\n\n" if ledger else ""
    facts = _facts(source, recipe)
    return (
        f"## Training\n\n{facts}\n\n{data}\n\n{cost}Seed {recipe.train.seed}. Versions: {versions or 'not recorded'}. "
        "The recipe with all settings (of paths, only the last part):\n\n"
        f"<details><summary>recipe</summary>\n\n```toml\n{recipe.to_toml()}```\n\n</details>"
    )


def _facts(source: ExportSource, recipe: Recipe) -> str:
    """The run in a table: what a reader asks first."""
    model, rollout, warm = source.recipe.model, recipe.rollout, section(source.summary, "warmstart")
    rank = f"LoRA of rank {model.lora_rank}" if model.adapter == "lora" else "all weights"
    tree = " × ".join(map(str, rollout.branching))
    start = "none"
    if warm:
        origin = {
            "solutions": "worked solutions",
            "self": "the model's own right solutions",
            "teacher": "another model's right answers",
            "file": "rounds from a file",
        }[recipe.warmstart.source]
        shown = counted(int(warm.get("demonstrations", 0)), "demonstration")
        start = f"{counted(int(warm.get('steps', 0)), 'step')} on {shown} ({origin})"
    rows = {
        "trained": f"{rank}{', on 4-bit weights' if model.four_bit else ''}",
        "warm start": start,
        "reinforcement learning": f"{source.step} of {counted(source.recipe.train.steps, 'step')}, "
        f"{counted(rollout.questions_per_step, 'question')} a step, {tree} responses a question, "
        f"learning rate {recipe.train.learning_rate:g}",
        "rounds": f"{rollout.rounds}, of at most {rollout.tokens_first} and then {rollout.tokens_continue} new tokens",
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _prompts(recipe: Recipe, rounds: Rounds) -> str:
    piece = ("the piece of this round",) if recipe.data.in_pieces else ()
    n, example = recipe.rollout.rounds, rounds.asked(Question("", _example(recipe), "", pieces=piece), 1)
    shown = [("Round 1" if n > 1 else "The one round", rounds.messages(example, [], n))]
    if n > 1:
        shown.append((f"Round {n}, with NOTE as each note", rounds.messages(example, ["NOTE"] * (n - 1), n)))
    blocks = [
        f"{name}:\n\n````text\n" + "\n".join(f"[{m['role']}] {m['content']}" for m in messages) + "\n````"
        for name, messages in shown
    ]
    return (
        "## Prompts\n\nThe model sees these messages through the chat template of its tokenizer:\n\n"
        + "\n\n".join(blocks)
        + "\n\n"
        f"At most {recipe.rollout.tokens_first} new tokens in the first round, {recipe.rollout.tokens_continue} in "
        f"each later one; a note is cut to {recipe.rounds.note_tokens} tokens. `{SCRIPT}` contains all of this, and "
        "how a response is parsed."
    )
