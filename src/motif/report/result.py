"""What the run shows, in words and tables: before and after, warnings, the ledger."""

from __future__ import annotations

import re

from motif.evaluation.accuracy import row_words
from motif.report.charts import row_names
from motif.runs.read import Metrics, Record, number, section
from motif.text import percent

RECENT = 10  # steps that a warning looks back on
LEDGER = {
    "questions": ("Questions", "count"),
    "distinct_questions": ("Distinct questions", "count"),
    "updates": ("Optimiser updates", "count"),
    "generated_tokens": ("Generated tokens", "tokens"),
    "prefill_tokens": ("Prefill tokens (prompts read)", "tokens"),
    "prefill_saved": ("Prefill tokens saved by sharing", "tokens"),
    "trained_tokens": ("Trained tokens", "tokens"),
    "flops": ("Floating-point operations", "flops"),
    "seconds": ("Time", "seconds"),
}


def evaluations(metrics: Metrics, summary: Record) -> tuple[Record, Record, dict[int, Record]]:
    """Results before and after, and by step. Each of metrics.jsonl and summary.json fills in what the other lacks.

    An evaluation during training is never taken for the one after it.
    """
    by_step = dict(metrics.evals)
    before = section(summary, "before") or by_step.get(0, {})
    after = section(summary, "after")
    if before:
        by_step.setdefault(0, before)
    if after and metrics.steps:
        by_step.setdefault(metrics.steps[-1]["step"], after)
    return before, after, by_step


def table(before: Record, after: Record) -> list[Record]:
    """A row per number of rounds: accuracy and interval before and after, the change, and what it amounts to."""
    rows = []
    for name in row_names(before, after):
        old, new = (_result(results, name) for results in (before, after))
        rows.append({"row": row_words(name), "before": old, "after": new, "finding": _finding(old, new)})
    return rows


def reading(before: Record, after: Record, latest: tuple[int, Record] | None, rounds: int | None) -> str:
    """One honest sentence on the result, at the training number of rounds where it was evaluated."""
    name = _told_row([row for row in row_names(before, after) if _result(before, row) and _result(after, row)], rounds)
    if name:
        old, new = _result(before, name), _result(after, name)
        assert old is not None and new is not None
        what, asked = _accuracy_words(name), _asked(old, new)
        finding = _finding(old, new)
        if finding == "apart":
            verb = "rose" if new["accuracy"] > old["accuracy"] else "fell"
            return f"{what} {verb} from {_interval(old)} to {_interval(new)}{asked}; the intervals do not overlap."
        end = (
            "the intervals overlap: this run does not show a difference."
            if finding == "overlap"
            else "without intervals, this cannot be told from chance."
        )
        return f"{what} went from {_interval(old)} to {_interval(new)}{asked}; {end}"
    for results, words in ((before, "before training was"), (after, "after training is")):
        name = _told_row([row for row in row_names(results) if _result(results, row)], rounds)
        if name:
            found = _result(results, name)
            assert found is not None
            text = f"{_accuracy_words(name)} {words} {_interval(found)}{_asked(found, found)}; "
            text += (
                f"not evaluated {'after' if results is before else 'before'} training, so no comparison can be made."
            )
            during = _result(latest[1], name) if latest else None
            if results is before and latest and during:
                text += f" The latest evaluation, at step {latest[0]}, gave {_interval(during)}."
            return text
    return "Not evaluated: this run has no measurement on held-out questions, so nothing can be said about a gain."


def _told_row(names: list[str], rounds: int | None) -> str | None:
    """The row that a sentence is about: that of the training number of rounds, else that of the most rounds."""
    if f"rounds_{rounds}" in names:
        return f"rounds_{rounds}"
    return max(names, key=lambda name: (not name.endswith("_matched"), names.index(name)), default=None)


def _accuracy_words(name: str) -> str:
    rounds, _, matched = name.removeprefix("rounds_").partition("_")
    return f"{rounds}-round accuracy" + (" with matched tokens" if matched else "")


def ledger(metrics: Metrics, summary: Record) -> list[Record]:
    """What the run has consumed: from the summary, else from the last step that says so."""
    rows = []
    for key, (name, unit) in LEDGER.items():
        value = _spent(metrics, summary, key)
        if value is not None:
            rows.append({"name": name, "unit": unit, "value": value})
    return rows


def tokens(metrics: Metrics, summary: Record, recipe: Record) -> list[Record]:
    """Where the tokens went: parts of all that was generated and of all prompts, as far as the ledger has them."""
    generated = _spent(metrics, summary, "generated_tokens")
    if generated is None:
        return []
    passes = max(1, number(section(recipe, "loss").get("inner_epochs")) or 1)
    trained = min(generated, (_spent(metrics, summary, "trained_tokens") or 0) / passes)
    parts = {
        "generated, in the loss": trained,
        "generated, for the outcomes only": generated - trained,
        "prompts read": _spent(metrics, summary, "prefill_tokens"),
        "prompts shared, so not read": _spent(metrics, summary, "prefill_saved"),
    }
    return [{"name": name, "value": number(value)} for name, value in parts.items() if value is not None]


def _spent(metrics: Metrics, summary: Record, key: str) -> float | int | None:
    value = number(section(summary, "ledger").get(key))
    if value is not None:
        return value
    recorded = (number(record.get(f"ledger/{key}")) for record in reversed(metrics.steps))
    return next((entry for entry in recorded if entry is not None), None)


def warnings(steps: list[Record], by_step: dict[int, Record], recipe: Record) -> list[Record]:
    """What a reader should know before believing the charts. `steps` have `dead_share`."""
    found = []
    recent = steps[-RECENT:]
    lately = f"in the last {len(recent)} steps" if len(recent) > 1 else "in the only step so far"
    rollout = section(recipe, "rollout")

    keys = sorted({key for record in recent for key in record if re.fullmatch(r"truncated/round_\d+", key)})
    cut = [(key, share) for key in keys or ["completions/clipped_ratio"] if (share := _recent(recent, key)) is not None]
    worst = max(cut, key=lambda entry: entry[1], default=("", 0.0))
    if worst[1] > 0.1:
        first = worst[0] == "truncated/round_1" or len(rollout.get("branching") or [0, 0]) == 1
        setting = "tokens_first" if first else "tokens_continue"
        which = f"of round-{worst[0].removeprefix('truncated/round_')} responses" if keys else "of responses"
        limit = f" (now {rollout[setting]})" if number(rollout.get(setting)) is not None else ""
        found.append(
            _warning(
                "Responses are cut off",
                f"{percent(worst[1])} {which} {lately} ran into the token limit, "
                f"which leaves them without a usable note or answer. Raise rollout.{setting}{limit}.",
            )
        )
    for step, results in sorted(by_step.items())[-1:]:
        for name in row_names(results):
            share = number(section(results, name).get("truncated"))
            if share is not None and 0.1 < share <= 1:
                found.append(
                    _warning(
                        "Evaluated answers are cut off",
                        f"At step {step}, {percent(share)} of the "
                        f"answers with {row_words(name)} have a response that ran into the token limit, perhaps wrong "
                        "for it.",
                    )
                )
    ungraded = sum(number(record.get("outcome/ungraded")) or 0 for record in steps)
    if ungraded > 0:
        found.append(
            _warning(
                "Outcomes without a grade",
                f"{ungraded:,.0f} final response{'s' * (ungraded != 1)} could not be "
                "graded. They count neither as right nor as wrong; the trees give the reason at each.",
            )
        )
    dead = _recent(recent, "dead_share")
    if dead is not None and dead > 0.8:
        text = f"{percent(dead)} of groups {lately} had equal rewards throughout, so nothing was learnt from them."
        never, always = (_recent(recent, f"outcome/{key}") for key in ("never", "always"))
        if never is not None and always is not None:
            text += f" {percent(never)} of the questions were never solved, {percent(always)} always:"
            text += (
                " they are too hard for this model." if never > always else " there is little left to learn from them."
            )
        found.append(_warning("Most groups are dead", text))
    return found


def _warning(title: str, text: str) -> Record:
    return {"title": title, "text": text}


def _recent(records: list[Record], key: str) -> float | None:
    values = [value for record in records if (value := number(record.get(key))) is not None]
    return sum(values) / len(values) if values else None


def _result(results: Record, name: str) -> Record | None:
    result = section(results, name)
    if number(result.get("accuracy")) is None:
        return None
    found = {key: number(result.get(key)) for key in ("accuracy", "low", "high", "n", "truncated", "mean_tokens")}
    return found | {"also": _also(result)}


def _also(result: Record) -> list[str]:
    """Other ways of counting the same answers, where several were drawn to a question."""
    ways = {f"pass@{k}": value for k, value in section(result, "pass_at").items()}
    ways |= {"majority": result.get("majority"), "greedy": result.get("greedy")}
    told = []
    for name, value in ways.items():
        fields = value if isinstance(value, dict) else {}
        middle, low, high = (number(fields.get(key)) for key in ("value", "low", "high"))
        if middle is not None:
            told.append(f"{name} {_interval({'accuracy': middle, 'low': low, 'high': high})}")
    return told


def _finding(old: Record | None, new: Record | None) -> str:
    if old is None or new is None:
        return "incomplete"
    if any(result[key] is None for result in (old, new) for key in ("low", "high")):
        return "no intervals"
    return "apart" if old["high"] < new["low"] or new["high"] < old["low"] else "overlap"


def _interval(result: Record) -> str:
    text = percent(result["accuracy"])
    if result["low"] is None or result["high"] is None:
        return text
    return f"{text} [{100 * result['low']:.1f}–{100 * result['high']:.1f}]"


def _asked(old: Record, new: Record) -> str:
    if old["n"] is None or new["n"] is None:
        return ""
    if old["n"] != new["n"]:
        return f" on {old['n']:,.0f} held-out questions before and {new['n']:,.0f} after"
    return f" on {old['n']:,.0f} held-out question{'s' * (old['n'] != 1)}"
