"""The result of a run in words and tables: before and after, warnings, the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator

from motif.evaluation.accuracy import row_words
from motif.report.charts import row_names
from motif.runs.read import Metrics, Record, number, section
from motif.text import counted, percent, percent_interval

RECENT = 10  # steps that a warning looks back on
MOST_CUT, MOST_DEAD = 0.1, 0.8  # shares above which there is a warning
CLIPPED = "completions/clipped_ratio"
LEDGER = {
    "questions": ("Questions", "count"),
    "distinct_questions": ("Distinct questions", "count"),
    "dropped_questions": ("Dropped questions (all groups dead)", "count"),
    "updates": ("Optimiser updates", "count"),
    "generated_tokens": ("Generated tokens", "tokens"),
    "prefill_tokens": ("Prefill tokens (prompts read)", "tokens"),
    "prefill_saved": ("Prefill tokens saved by sharing", "tokens"),
    "trained_tokens": ("Trained tokens", "tokens"),
    "flops": ("Floating-point operations", "flops"),
    "seconds": ("Time", "seconds"),
}


def evaluations(metrics: Metrics, summary: Record) -> tuple[Record, Record, dict[int, Record]]:
    """Results before and after training, and by step; metrics.jsonl and summary.json each fill in what the other lacks.

    An evaluation during training never counts as the one after it.
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
    """A row per number of rounds: accuracy and interval before and after, and whether the intervals overlap."""
    rows = []
    for name in row_names(before, after):
        old, new = (_result(results, name) for results in (before, after))
        rows.append({"row": row_words(name), "before": old, "after": new, "finding": _finding(old, new)})
    return rows


def paths(summary: Record) -> str:
    """How sampler and updates computed, as the run's summary has it."""
    words = []
    for name in section(summary, "paths"):
        way = section(section(summary, "paths"), name)
        gap, slower = number(way.get("largest_gap")), number(way.get("times_slower"))
        more = [str(way["reason"])] if way.get("reason") else []
        more += [f"at most {gap:.0e} nats from a plain pass"] if gap is not None else []
        more += [f"{slower:.2g} times the seconds of the fast path"] if slower is not None else []
        words.append(f"{name} {way.get('path', '?')}" + (f" ({'; '.join(more)})" if more else ""))
    return ", ".join(words)


def reading(before: Record, after: Record, latest: tuple[int, Record] | None, rounds: int | None) -> str:
    """The result in one honest sentence, at the training number of rounds where it was evaluated."""
    both = [row for row in row_names(before, after) if _result(before, row) and _result(after, row)]
    if name := _main_row(both, rounds):
        old, new = _result(before, name), _result(after, name)
        assert old is not None and new is not None
        return _comparison(name, old, new)
    for results, words in ((before, "before training was"), (after, "after training is")):
        name = _main_row([row for row in row_names(results) if _result(results, row)], rounds)
        if name:
            result = _result(results, name)
            assert result is not None
            missing = "after" if results is before else "before"
            text = f"{_accuracy_words(name)} {words} {_interval(result)}{_tested_on(result, result)}; "
            text += f"not evaluated {missing} training, so no comparison can be made."
            during = _result(latest[1], name) if latest else None
            if results is before and latest and during:
                text += f" The latest evaluation, at step {latest[0]}, gave {_interval(during)}."
            return text
    return "Not evaluated: this run has no measurement on held-out questions, so nothing can be said about a gain."


def _comparison(name: str, old: Record, new: Record) -> str:
    accuracy, tested = _accuracy_words(name), _tested_on(old, new)
    finding = _finding(old, new)
    if finding == "apart":
        verb = "rose" if new["accuracy"] > old["accuracy"] else "fell"
        return f"{accuracy} {verb} from {_interval(old)} to {_interval(new)}{tested}; the intervals do not overlap."
    end = (
        "the intervals overlap: this run does not show a difference."
        if finding == "overlap"
        else "without intervals, this cannot be distinguished from chance."
    )
    return f"{accuracy} went from {_interval(old)} to {_interval(new)}{tested}; {end}"


def _main_row(names: list[str], rounds: int | None) -> str | None:
    """The row that a sentence is about: that of the training number of rounds, else that of the most rounds."""
    if f"rounds_{rounds}" in names:
        return f"rounds_{rounds}"
    return max(names, key=lambda name: (not name.endswith("_matched"), names.index(name)), default=None)


def _accuracy_words(name: str) -> str:
    rounds, _, matched = name.removeprefix("rounds_").partition("_")
    return f"{rounds}-round accuracy" + (" with matched tokens" if matched else "")


def ledger(metrics: Metrics, summary: Record) -> list[Record]:
    """What the run has consumed: from the summary, else from the last step that records it."""
    rows = []
    for key, (name, unit) in LEDGER.items():
        value = _spent(metrics, summary, key)
        if value is not None:
            rows.append({"name": name, "unit": unit, "value": value})
    return rows


def tokens(metrics: Metrics, summary: Record, recipe: Record) -> list[Record]:
    """Where the tokens went: the parts of all generated tokens and of all prompts, as far as the ledger has them."""
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
    named = [
        *_cut_off(steps[-RECENT:], section(recipe, "rollout")),
        *_cut_off_answers(by_step),
        *_ungraded(steps),
        *_dead_groups(steps[-RECENT:]),
        *_short(steps[-RECENT:], section(recipe, "rollout")),
    ]
    return [{"title": title, "text": text} for title, text in named]


def standstill(summary: Record) -> list[Record]:
    """Why the last steps of a run made no update, if that was so."""
    text = section(summary, "standstill").get("text")
    return [{"title": "Nothing was learnt in the last steps", "text": text}] if isinstance(text, str) and text else []


def _cut_off(recent: list[Record], rollout: Record) -> Iterator[tuple[str, str]]:
    keys = sorted({key for record in recent for key in record if re.fullmatch(r"truncated/round_\d+", key)})
    shares = {key: share for key in keys or [CLIPPED] if (share := _recent(recent, key)) is not None}
    worst = max(shares, key=lambda key: shares[key], default="")
    if not worst or shares[worst] <= MOST_CUT:
        return
    first = worst == "truncated/round_1" or len(rollout.get("branching") or [0, 0]) == 1
    setting = "tokens_first" if first else "tokens_continue"
    which = f"of round-{worst.removeprefix('truncated/round_')} responses" if keys else "of responses"
    limit = f" (now {rollout[setting]})" if number(rollout.get(setting)) is not None else ""
    yield (
        "Responses are cut off",
        f"{percent(shares[worst])} {which} {_lately(recent)} ran into the token limit, which leaves them without a "
        f"usable note or answer. Raise rollout.{setting}{limit}.",
    )


def _cut_off_answers(by_step: dict[int, Record]) -> Iterator[tuple[str, str]]:
    for step, results in sorted(by_step.items())[-1:]:
        for name in row_names(results):
            share = number(section(results, name).get("truncated"))
            if share is not None and MOST_CUT < share <= 1:
                yield (
                    "Evaluated answers are cut off",
                    f"At step {step}, {percent(share)} of the answers with {row_words(name)} have a response that ran "
                    "into the token limit, and may be wrong because of it.",
                )


def _ungraded(steps: list[Record]) -> Iterator[tuple[str, str]]:
    ungraded = sum(number(record.get("outcome/ungraded")) or 0 for record in steps)
    if ungraded > 0:
        yield (
            "Outcomes without a grade",
            f"{counted(round(ungraded), 'final response')} could not be graded. They count neither as right nor as "
            "wrong; the trees give the reason for each.",
        )


def _short(recent: list[Record], rollout: Record) -> Iterator[tuple[str, str]]:
    kept, short = (_recent(recent, f"refill/{key}") for key in ("kept", "short"))
    if kept is not None and short is not None and short > kept:
        yield (
            "Few dead questions could be replaced",
            f"For {percent(short / (short + kept))} of a step's questions no live one was found {_lately(recent)}, "
            f"among up to {rollout.get('refill')} tried for each. Raise rollout.refill, or choose other questions.",
        )


def _dead_groups(recent: list[Record]) -> Iterator[tuple[str, str]]:
    dead = _recent(recent, "dead_share")
    if dead is None or dead <= MOST_DEAD:
        return
    text = f"{percent(dead)} of groups {_lately(recent)} had equal rewards throughout, so nothing was learnt from them."
    never, always = (_recent(recent, f"outcome/{key}") for key in ("never", "always"))
    if never is not None and always is not None:
        why = "they are too hard for this model." if never > always else "there is little left to learn from them."
        text += f" {percent(never)} of the questions were never solved, {percent(always)} always: {why}"
    yield "Most groups are dead", text


def _lately(recent: list[Record]) -> str:
    return f"in the last {len(recent)} steps" if len(recent) > 1 else "in the only step so far"


def _recent(records: list[Record], key: str) -> float | None:
    values = [value for record in records if (value := number(record.get(key))) is not None]
    return sum(values) / len(values) if values else None


def _result(results: Record, name: str) -> Record | None:
    result = section(results, name)
    if number(result.get("accuracy")) is None:
        return None
    numbers = {key: number(result.get(key)) for key in ("accuracy", "low", "high", "n", "truncated", "mean_tokens")}
    return numbers | {"also": _also(result)}


def _also(result: Record) -> list[str]:
    """Other scores of the same answers, where several were sampled per question."""
    ways = {f"pass@{k}": value for k, value in section(result, "pass_at").items()}
    ways |= {"majority": result.get("majority"), "greedy": result.get("greedy")}
    scores = []
    for name, value in ways.items():
        fields = value if isinstance(value, dict) else {}
        middle, low, high = (number(fields.get(key)) for key in ("value", "low", "high"))
        if middle is not None:
            scores.append(f"{name} {percent_interval(middle, low, high)}")
    return scores


def _finding(old: Record | None, new: Record | None) -> str:
    if old is None or new is None:
        return "incomplete"
    if any(result[key] is None for result in (old, new) for key in ("low", "high")):
        return "no intervals"
    return "apart" if old["high"] < new["low"] or new["high"] < old["low"] else "overlap"


def _interval(result: Record) -> str:
    return percent_interval(result["accuracy"], result["low"], result["high"])


def _tested_on(old: Record, new: Record) -> str:
    if old["n"] is None or new["n"] is None:
        return ""
    if old["n"] != new["n"]:
        return f" on {old['n']:,.0f} held-out questions before and {new['n']:,.0f} after"
    return f" on {counted(round(old['n']), 'held-out question')}"
