"""Writes the figures and lists of the pages that come from files, between `<!-- from: NAME -->` and `<!-- end -->`.

    python tools/pages.py [--check]        # --check changes nothing; exit status 1 if a page differs from its files

Benchmarks come from docs/performance/*.json (which they write with --json), studies from their summary.json, recipes
from src/motif/recipes, forecasts from motif.planning, and the rooms of the house from tools/house.py.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tomllib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import evidence as judged
from house import ROOT, layer_table, tree
from motif.config import load_recipe

DOCS = ROOT / "docs"
RECIPES = ROOT / "src" / "motif" / "recipes"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / "studies").rglob("*.md"))]
MOTIF = "motif"


def load(name: str) -> Any:
    """The numbers of one benchmark."""
    return json.loads((DOCS / "performance" / f"{name}.json").read_text(encoding="utf-8"))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers with three digits."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machines() -> str:
    """Where each file of numbers comes from."""
    rows = []
    for name in ("rollout", "precision", "step", "scaling", "overhead", "grading", "view"):
        numbers = load(name)
        machine, versions = numbers["machine"], numbers["versions"]
        where = f"{machine['cpu']}, {machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
        rows.append([f"{name}.json", where, *(versions[one] for one in ("python", "torch", "transformers"))])
    return markdown(["numbers", "machine", "Python", "torch", "transformers"], rows)


def rollout() -> str:
    """Tokens a second of every contender, and the ratios."""
    found = load("rollout")
    rows: list[list[object]] = []
    for setting, paces in found["tokens_per_second"].items():
        own = statistics.median(paces[MOTIF])
        rows.append([f"**{setting}**", MOTIF, own, ""])
        for name, values in paces.items():
            if name != MOTIF:
                share = statistics.median(a / b for a, b in zip(paces[MOTIF], values, strict=True))
                rows.append(["", name, statistics.median(values), f"{share:.3g} ×"])
    return markdown(["", "contender", "useful tokens/s", "motif ÷ it"], rows)


def limits() -> str:
    """What the rollout is measured against besides contenders."""
    ratios = load("rollout")["ratios"]
    rows = []
    for name, place in (("135M", ratios), ("embedded", ratios["embedded"])):
        many = next(value for key, value in place.items() if key.startswith("questions_"))
        shares = (place["prefill_over_unique"], many["prefill_over_unique"], place["matmul_fraction"])
        rows.append([name, *(f"{share:.3f}" for share in shares)])
    return markdown(["", "prefill_over_unique, 1 question", "8 questions", "matmul_fraction"], rows)


PACES = {"one stream": "one response", "1 question": "the trees of one question", "8 questions": "of eight questions"}
"""What benchmarks/precision.py samples, in words."""


def precision() -> str:
    """Both precisions' times and paces, and the ratios."""
    found = load("precision")
    rows: list[list[object]] = []
    for name, sides in found["milliseconds"].items():
        what = "making the weights" if name == "open" else f"a decoding step, {name}"
        values = [f"{statistics.median(sides[side]):,.0f} ms" for side in ("float32", "int8")]
        rows.append([what, *values, f"{found['ratios'][name]:.2f} ×"])
    for name, what in PACES.items():
        sides = found["tokens_per_second"][name]
        values = [f"{statistics.median(sides[side]):.0f} tokens/s" for side in ("float32", "int8")]
        rows.append([what, *values, f"{found['ratios'][name]:.2f} ×"])
    gaps = [f"{found['mean_gap'][side]:.2g} nats" for side in ("float32", "int8")]
    return markdown(["", "float32", "int8", "int8 is"], [*rows, ["mean gap to the trainer, own samples", *gaps, ""]])


def rounding() -> str:
    """What rounds how much, one change at a time."""
    rows = [
        [what, f"{one['mean_gap']:.3f} ± {one['error']:.3f}", f"{one['over_all']:+.3f} ± {one['its_error']:.3f}"]
        for what, one in load("rounding")["gaps"].items()
    ]
    return markdown(["", "mean gap, nats", "against as it is, paired"], rows)


COUNTED = {
    "decoding": "a decoding step of 72 rows",
    "decoding_kernels": "the same with Triton kernels",
    "prompts": "32 new prompts, until their second token",
    "update": "an update of `paper`, one question",
    "update_recomputing": "the same, activations recomputed",
}
"""What benchmarks/operations.py counts, in words."""


def operations() -> str:
    """What a GPU would launch."""
    names = ("operations", "casts", "synchronisations", "uploads", "passes", "per_pass")
    counts = load("operations")["counts"]
    rows = [[what, *(counts[part].get(name, "") for name in names)] for part, what in COUNTED.items()]
    columns = ["", "operations", "of them casts", "the host waits", "small uploads", "passes", "operations a pass"]
    return markdown(columns, rows)


def step() -> str:
    """Ratios of whole steps and updates, where our step's time goes, and peak memory."""
    found = load("step")
    seconds, ratios = found["seconds"], found["ratios"]

    def median(part: str, side: str, key: str) -> float:
        return statistics.median(row[key] for row in seconds[part][side])

    kept = "vanilla_no_checkpointing"
    pairs = [
        ("vanilla GRPO, whole step", "vanilla", "total", "trl"),
        ("its update", "vanilla", "update", "update_only"),
        ("MOTIF, whole step", "motif", "total", "trl_motif"),
        ("vanilla, TRL keeping activations", kept, "total", "trl_no_checkpointing"),
        ("its update", kept, "update", "update_only_no_checkpointing"),
    ]
    rows = [
        [what, median(part, "trl", key), median(part, MOTIF, key.replace("update", "update_only")), ratios[share]]
        for what, part, key, share in pairs
    ]
    first = markdown(["", "TRL, s", "motif, s", "TRL ÷ motif"], rows)
    parts = found["breakdown"]
    shares = [
        [part, *(f"{100 * parts[kind][part] / parts[kind]['total']:.2f} %" for kind in ("vanilla", "motif"))]
        for part in parts["motif"]
    ]
    second = markdown(["part of motif's step", "vanilla", "MOTIF"], shares)
    third = markdown(["peak resident memory", "MiB"], [[k, round(v)] for k, v in found["peak_memory"].items()])
    return "\n\n".join((first, second, third))


def scaling() -> str:
    """The fitted exponents."""
    fits = load("scaling")["slopes"]
    rows = [[name, *(f"{fit[part]['exponent']:.2f}" for part in ("sampling", "update"))] for name, fit in fits.items()]
    return markdown(["cost grows with", "sampling ~ setting^", "update ~ setting^"], rows)


def overhead() -> str:
    """What a step with long windows takes, part by part, and how its parts grow."""
    found = load("overhead")
    step, slopes = found["step"], found["slopes"]
    whole = sum(step[part] for part in ("sampling", "grading", "training"))
    rows = [
        [
            name,
            f"{step[name]:.3g}",
            f"{100 * step[name] / whole:.2f} %",
            *(f"{slopes[one][name]:.2f}" if name in slopes[one] else "" for one in slopes),
        ]
        for name in ("sampling", "text", "grading", "training", "rest", "saving", "end")
    ]
    columns = [found["shape"], "seconds", "of sampling, grading and training", "~ window^", "~ rows^"]
    memory = ["memory", f"{step['bytes'] / 2**20:.0f} MiB", "", *(f"{slopes[one]['bytes']:.2f}" for one in slopes)]
    return markdown(columns, [*rows, memory])


def speed() -> str:
    """Verdicts a second."""
    found = load("grading")
    rows = [
        [key, *(statistics.median(paces[one]) for one in (MOTIF, "loop")), found["ratios"][key]]
        for key, paces in found["verdicts_per_second"].items()
    ]
    return markdown(["answers", "motif, verdicts/s", "math-verify in a loop", "motif ÷ loop"], rows)


def agreement() -> str:
    """Errors by origin of the case."""
    counts = load("grading")["agreement"]
    columns = ["right", "wrong", "false positives", "false negatives", "ungraded"]
    names = {"published": "published", "ours": "our instances", "contestable": "contestable label"}
    return markdown(["cases", *columns], [[names[name], *(counts[name][c] for c in columns)] for name in names])


def answers() -> str:
    """Errors of the campaign of wrong answers and right phrasings."""
    rows = [
        [kind, row["want"], *(f"{row[rule]} of {row[f'of_{rule}']:,}" for rule in ("math", "numeric"))]
        for kind, row in load("answers").items()
    ]
    return markdown(["answers", "should be", "math errs", "numeric errs"], rows)


def view() -> str:
    """How fast the page of a run is."""
    numbers = load("view")
    names = {
        "charts": "show the charts",
        "page": "show the list, with a tree open",
        "open": "open another tree after a click",
        "filter": "apply a filter",
        "order": "change the order",
        "search": "search the questions",
        "deep": "search all responses",
    }
    text = (
        f"A synthetic run of 500 steps with {numbers['trees']:,} trees, {numbers['trees_mb']:.0f} MB, in a headless "
        "Chromium on two cores without a GPU, medians of three fresh pages (`python benchmarks/view.py`). The live "
        f"server reads the trees in {numbers['index_seconds']:.1f} s. The saved page is written in "
        f"{numbers['save_seconds']:.1f} s and holds {numbers['saved_trees']} of the trees."
    )
    rows = [[what, *(round(numbers[kind][key]) for kind in ("live", "saved"))] for key, what in names.items()]
    return text + "\n\n" + markdown(["milliseconds to", "live", "saved"], rows)


CAMPAIGNS = ROOT / "studies" / "reliability" / "results"
TARGETS = {
    "recipe": "recipe files",
    "setting": "`--set`",
    "study": "study files",
    "rows": "rows as a task",
    "table": "rows as a table",
    "answer_file": "files of `motif grade`",
    "response": "responses and notes",
    "question": "questions",
    "simple": "`exact`, `numeric`, extraction",
    "mathematics": "`math` with its worker",
    "program_tests": "unit tests as gold answers",
    "reported": "values that programs report",
    "sandboxed": "programs in the sandbox",
    "circuits": "circuits (the parsers; not Yosys)",
    "terminal": "terminal",
    "weights": "safetensors",
}
"""What the fuzzing campaign calls its targets, in words."""


def campaign(name: str) -> Any:
    """The result of one campaign."""
    return json.loads((CAMPAIGNS / f"{name}.json").read_text(encoding="utf-8"))


def fuzzing() -> str:
    """Tries and failures of each target of the fuzzing campaign."""
    targets = campaign("fuzz_60min")["targets"]
    rows = [[TARGETS[name], result["tries"], result["failures"]] for name, result in targets.items()]
    total = [sum(result[key] for result in targets.values()) for key in ("tries", "failures")]
    return markdown(["target", "tries", "failures"], [*rows, ["all", *total]])


def waiting() -> str:
    """Waiting times of clients in the load campaign."""
    numbers = campaign("load_200_clients_600s")
    names = {
        "seconds_to_first_text": "first text of an admitted request",
        "longest_pause_in_a_stream": "longest pause in a stream",
        "seconds_to_answer": "whole answer (one to 32 rounds)",
        "seconds_until_let_in": "until a client that was sent away is admitted (it comes back when told to)",
    }
    rows = [
        [what, *(f"{numbers[key][one]:.3g} s" for one in ("median", "percentile_99", "most"))]
        for key, what in names.items()
    ]
    return markdown(["what", "median", "99 of 100", "most"], rows)


def demo() -> str:
    """What `make demo` shows: accuracy before and after, from the summary.json of its run."""
    summary = load("demo")

    def accuracy(when: str, rounds: str) -> str:
        row = summary[when][rounds]
        return f"{percent(row['accuracy'])} % [{percent(row['low'])}–{percent(row['high'])}]"

    steps = summary["ledger"]["updates"]
    rows = [["1 round", "rounds_1"], ["3 rounds", "rounds_3"]]
    cells = [[name, accuracy("before", key), accuracy("after", key)] for name, key in rows]
    return markdown(["held-out accuracy", "before", f"after {steps} steps"], cells)


def percent(share: float) -> str:
    """A share in per cent, with one decimal."""
    return f"{100 * share:.1f}"


STUDY = ROOT / "studies" / "sample_efficiency"
CLAIMS = {
    "untrained": "untrained, three rounds of 29 tokens",
    "single": "single-round GRPO, one window of 29 tokens",
    "long-8": "**single-round GRPO, one window of 87 tokens**",
    "long-24": "the same with 24 responses",
    "paper": "MOTIF as published, `[8, 4, 1]`, round 1 trained",
    "recommended": "`recommended`: `[4, 2, 1]`, all rounds trained",
    "multi-24": "multi-round GRPO, 24 trajectories, all rounds trained",
}
"""The arms of studies/sample_efficiency/study.toml that README's first table has, in words."""
CONTRASTS = {
    "Where a long window holds the thought: recommended against one window of 87 tokens, N questions each": (
        "`recommended` against one trained window of 87 tokens"
    ),
    "MOTIF with 0.15 N questions against single-round GRPO with N, each as deployed": (
        "MOTIF, 18 questions, against single-round GRPO, 120 questions: the published claim"
    ),
    "Is it the layout? MOTIF against multi-round GRPO with 8 trajectories, N questions each": (
        "MOTIF against multi-round GRPO with 8 trajectories, which takes a third of the tokens"
    ),
    "Recommended against MOTIF at 45,000 generated tokens": "`recommended` against MOTIF, equal generated tokens",
    "Recommended against multi-round GRPO with 24 trajectories at 45,000 generated tokens": (
        "`recommended` against multi-round GRPO with 24 trajectories, equal generated tokens"
    ),
    "Recommended against multi-round GRPO with 8 trajectories at 45,000 generated tokens": (
        "`recommended` against multi-round GRPO with 8 trajectories, equal generated tokens"
    ),
}
"""Contrasts of the study, by name, in the words of docs/method.md."""


def claims() -> str:
    """What the main study says first: each arm's accuracy in the row it is used in, and what it spent."""
    summary = json.loads((STUDY / "results" / "summary.json").read_text())
    outside = json.loads((STUDY / "outside.json").read_text())["arms"]
    rows, told = [], False
    for name, words in CLAIMS.items():
        arm = summary["arms"][name]
        complete = arm["runs"] == len(summary["seeds"])
        found = arm["rows"][arm["row"]]["accuracy"] if complete else outside[name]
        spent = arm["spent"]["generated_tokens"] if complete else outside[name]["generated_tokens"]
        told |= not complete
        accuracy = f"{100 * found['mean']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
        rows.append([words + ("" if complete else " †"), accuracy, f"{round(spent, -3):,.0f}"])
    table = markdown(["trained with", "held-out accuracy, %, 95 % interval", "generated tokens"], rows)
    note = "† Measured before these arms stood in the study's file (`studies/sample_efficiency/outside.json`)."
    return f"{table}\n\n{note}" if told else table


def study() -> str:
    """The main results of the study of sample efficiency: differences in points, with intervals."""
    contrasts = json.loads((STUDY / "results" / "summary.json").read_text())["contrasts"]
    rows = []
    for one in contrasts:
        if one["name"] in CONTRASTS and one["difference"] and one["difference"]["low"] is not None:
            mean, low, high = (100 * one["difference"][key] for key in ("mean", "low", "high"))
            shown = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")
            rows.append([CONTRASTS[one["name"]], shown if low <= 0 <= high else f"**{shown}**"])
    return markdown(["comparison", "difference in points, 95 % interval"], rows)


def evidence() -> str:
    """Every claim with its contrast and verdict (studies/claims.toml); addresses are seen from the report."""
    rows = [
        [cell.replace("](", "](../").replace("](../sample_efficiency/", "](") for cell in row] for row in judged.rows()
    ]
    return markdown(["claim (whose)", "contrast", "points", "seeds", "task", "model", "verdict"], rows)


def peers() -> str:
    """What others do in place of motif, and how long they take."""
    steps, growing = load("step")["ratios"], load("rollout")["ratios"]

    def times(ratio: float) -> str:
        return f"{ratio:.1f} × the time"

    rows = [
        ["GRPO, a whole step", "1", times(steps["trl"]), "not measured", "–"],
        ["MOTIF, a whole step", "1", f"{times(steps['trl_motif'])}, in a `rollout_func`", "not measured", "–"],
        [
            "growing one tree of 72 responses", "1", f"{times(growing['hf_generate'])} (`generate` by levels)",
            f"{times(growing['vllm'])} (vLLM's CPU build)", f"{times(growing['serial'])} (one call after another)",
        ],
        ["rounds that can be trained", "all", "one; all with motif inside", "one", "the first"],
        ["rounds 2 and 3 are continued by", "the current model", "–", "–", "the base model: a bug"],
    ]  # fmt: skip
    return markdown(["", "motif", "TRL 1.16", "verl 0.9.1", "the authors' script"], rows)


def recipes() -> str:
    """The shipped recipes with what each says about itself."""
    found = {file.stem: tomllib.loads(file.read_text(encoding="utf-8")) for file in sorted(RECIPES.glob("*.toml"))}
    rows = [[f"`{name}`", f"`{branching(one)}`", one["about"]] for name, one in found.items()]
    return markdown(["recipe", "branching", "what it is"], rows)


def branching(recipe: dict[str, Any]) -> str:
    """The shape of a recipe's trees."""
    return str(recipe["rollout"]["branching"])


def presets() -> str:
    """What the recipes for one model and one data set differ in."""
    rows = []
    for name in ("vanilla-grpo", "paper", "multi-round-grpo", "recommended"):
        recipe = load_recipe(name)
        trained = "round 1" if recipe.credit.train_rounds == "first" else "all rounds"
        compared = {"siblings": "siblings", "round": "the round, one shared reward"}[recipe.credit.group]
        rows.append([f"`{recipe.rollout.branching}`", trained, compared, f"`{name}`: {recipe.about}"])
    return markdown(["branching", "trained", "compared with", "recipe"], rows)


GSM8K = {"train": [None] * 7473, "test": [None] * 1319, "skipped": [], "name": "gsm8k", "grader": "numeric"}
PROMPT, SEAM = 250, 30
"""Tokens of a typical first prompt, and what the scaffold adds in later rounds: assumed, and of little weight."""


def device_plan(recipe: str, devices: str, *settings: str) -> Any:
    """What `motif train RECIPE --dry-run --on DEVICES` computes, for Qwen2.5-3B on GSM8K, without downloads."""
    from motif.models.shape import Shape
    from motif.planning.devices import parse_devices
    from motif.planning.lengths import Lengths
    from motif.planning.plan import DevicePlan
    from motif.planning.workload import Workload

    shape = Shape.dense(3_085_938_688, 36, 2048, 11_008, 151_936, 2 * 36 * 2 * 128, 32_768)
    work = Workload(load_recipe(recipe, settings), shape, SimpleNamespace(**GSM8K), PROMPT, SEAM)
    count, device = parse_devices(devices)
    return DevicePlan(work, work.forecast(device, count, Lengths(), half=True))


def forecast() -> str:
    """What the plan says of `paper` on eight GPUs."""
    shown = ("tokens", "memory", "or", "fastest", "balance", "time", "price")
    lines = [f"{name:8}  {text}" for name, text in device_plan("paper", "8xH100").rows() if name in shown]
    return "\n".join(["```text", *lines, "```"])


def costs() -> str:
    """What the recipes of the paper's table take on one GPU."""
    rows = []
    for recipe in ("paper", "vanilla-grpo", "multi-round-grpo", "recommended", "original-code"):
        row = [f"`{recipe}`"]
        for plan in (device_plan(recipe, "1xH100"), device_plan(recipe, "1x4090", "rollout.max_rows=64")):
            alone = plan.forecast.local(1)
            row += [f"{alone.seconds:.0f} s (train {_cell(alone.training)} s)", gpu_hours(plan)]
        rows.append(row)
    tested = ("train.steps=0", "eval.samples=8", "eval.temperature=0.8")
    hours = [gpu_hours(device_plan("paper", "1xH100", *tested))]
    hours += ["", gpu_hours(device_plan("paper", "1x4090", "rollout.max_rows=64", *tested))]
    rows.append(["one evaluation on GSM8K test, 8 samples at 1 and 3 rounds", "", *hours])
    columns = ["recipe", "a step on 1xH100", "whole run, evaluations included", "a step on 1x4090", "whole run"]
    return markdown(columns, rows)


def gpu_hours(plan: Any) -> str:
    """Of the whole run, in one process that samples and trains."""
    return f"{plan.forecast.run_seconds(plan.forecast.local(1), plan.workload.evaluations) / 3600:.1f} GPU-hours"


def _mode(row: dict[str, Any] | None) -> str:
    """How an architecture is trained in one mode."""
    if row is None:
        return "not measured"
    if row["verdict"] != "works":
        return f"**{row['verdict']}**"
    paths = [row["sampler_path"], row["update_path"]]
    return paths[0] if paths[0] == paths[1] else f"{paths[0]}, {paths[1]}"


def architectures() -> str:
    """The matrix of architectures: one row for each, both ways of training together."""
    modes: dict[str, dict[str, Any]] = {}
    for row in load("architectures")["rows"]:
        modes.setdefault(row["name"], {})[row["mode"]] = row
    rows = []
    for name, found in sorted(modes.items(), key=lambda item: item[0].lower()):
        numbers = [row for row in found.values() if "sampler_max" in row]
        means = [_largest(numbers, f"{part}_mean") for part in ("sampler", "update")]
        mosts = [_largest(numbers, key) for key in ("sampler_max", "update_max", "gradient")]
        back = _largest([row["commands"] for row in numbers], "read_back")
        window = next(iter(found.values()))["window"]
        past = f"{min(row['tokens'] for row in numbers) / window:.1f} ×" if window and numbers else ""
        pairs = [f"{mean} / {most}" if mean else "" for mean, most in zip(means, mosts[:2], strict=True)]
        used = "yes" if numbers and all(_used(row["commands"]) for row in numbers) else "not tried"
        rows.append([name, *(_mode(found.get(mode)) for mode in ("lora", "full")), *pairs, mosts[2], past, back, used])
    columns = [
        "architecture",
        "LoRA",
        "all weights",
        "sampler",
        "update",
        "gradient",
        "windows",
        "read back",
        "commands",
    ]
    return markdown(columns, rows)


def _used(ends: dict[str, Any]) -> bool:
    """Whether every command ended well."""
    return bool(ends) and all(ends[name] == "ok" for name in ("train", "eval", "export", "solve"))


def _largest(rows: Sequence[dict[str, Any]], key: str) -> str:
    """The largest of some numbers, in powers of ten; nothing if there is none."""
    found = [row[key] for row in rows if row.get(key) is not None]
    return f"{max(found):.0e}".replace("e-0", "e-") if found else ""


def general() -> str:
    """How fast the paths are, family by family: the fast one over the general one, and that one over `generate`."""
    rows = [
        [
            row["name"],
            row["sampler_path"]
            if row["sampler_path"] == row["update_path"]
            else f"{row['sampler_path']}, {row['update_path']}",
            *(_times(row["fast"].get(case)) for case in ("siblings", "mixed", "update")),
            *(_times(row["over_generate"][case]) for case in ("siblings", "mixed")),
        ]
        for row in load("general")["rows"]
    ]
    return markdown(
        ["family", "path", "fast ÷ general: siblings", "mixed", "update", "general ÷ `generate`: siblings", "mixed"],
        rows,
    )


def _times(ratio: float | None) -> str:
    return f"{ratio:.1f}" if ratio else "no fast path"


def refusals() -> str:
    """Every architecture that does not work in some way, and why."""
    rows = [
        [row["name"], {"lora": "LoRA", "full": "all weights"}[row["mode"]], row["verdict"], row["reason"]]
        for row in load("architectures")["rows"]
        if row["verdict"] != "works"
    ]
    return markdown(["architecture", "training", "", "why"], rows) if rows else "None."


def trained() -> str:
    """How many architectures train."""
    found = load("architectures")["summary"]
    return ", ".join(f"{count} {what}" for what, count in found.items()) + "."


MAKERS = (
    machines, rollout, limits, precision, rounding, operations, step, scaling, overhead, speed, agreement, answers,
    view, fuzzing, waiting, demo, claims, study, evidence, peers, recipes, presets, forecast, costs, tree, layer_table,
    architectures, refusals, trained, general,
)  # fmt: skip
MARKED = re.compile(r"<!-- from: (\w+) -->.*?<!-- end -->", flags=re.DOTALL)


def main() -> None:
    """Fill in every page, or with --check none; exit status 1 if one differs then."""
    makers = {maker.__name__: maker for maker in MAKERS}

    def filled(match: re.Match[str]) -> str:
        return f"<!-- from: {match[1]} -->\n\n{makers[match[1]]()}\n\n<!-- end -->"

    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = MARKED.sub(filled, text)
        if new != text:
            stale.append(page.relative_to(ROOT))
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8")
    print(*stale, sep="\n")
    if stale and "--check" in sys.argv:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
