"""What the reward measures: how much of the outcome the first response decides, and what probes found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from motif.report.charts import Chart
from motif.runs.read import Record, number, section
from motif.statistics.variance import Components, Estimate, pooled_icc
from motif.text import NONE, fixed

MOST_BINS = 8
FEWEST_STEPS = 4  # in a bin, or else its interval says little
KINDS = {"own": "own note", "empty": "empty note", "shuffled": "note to another question"}


def diagnostics(steps: list[Record], probes: dict[int, Record]) -> list[Record]:
    """The section; empty for a run with neither several trajectories per response nor a probe."""
    pooled = icc_chart(steps)
    charts = [pooled] if "missing" not in pooled else []
    text = share_explained(steps)
    if probes:
        latest = max(probes)
        text += [f"The probe {_when(latest)}:", *readings(probes[latest])]
        charts += probe_charts(probes)
    if not charts:
        return []
    lead = "How much of the outcome does the first response decide, and does the reward see it?"
    return [{"id": "diagnostics", "title": "What the reward tells", "lead": lead, "text": text, "charts": charts}]


def share_explained(steps: list[Record]) -> list[str]:
    """A sentence on the intraclass correlation over the whole run."""
    parts = [part for _, part in _parts(steps)]
    icc, pooled = pooled_icc(parts), sum(parts, Components())
    if icc.value is None:
        return []
    reliability, size = pooled.reliability(), pooled.n0
    text = (
        f"Over the run, the first response explains {_percent(icc)} of the variance of the outcomes to one question; "
        "the rest comes from what happened after its note."
    )
    if reliability is not None and size is not None:
        text += (
            f" So {_percent(Estimate(reliability))} of the variance of rewards from {size:.3g} trajectories reflects "
            "what the responses are worth, and the rest is luck."
        )
    return [text]


def icc_chart(steps: list[Record]) -> Chart:
    """The intraclass correlation with its interval, pooled over up to eight stretches of the run."""
    chart: Chart = {
        "id": "icc",
        "kind": "points",
        "title": "Variance explained by the first response",
        "y": "share of variance (%)",
        "unit": "percent",
        "caption": "Intraclass correlation of outcomes within a question, by analysis of variance, pooled over the "
        "steps of each stretch, with 95 % intervals. Near zero, what a response is worth drowns in the luck of its "
        "continuations, and more trajectories pay off; near one, a single trajectory would do.",
    }
    kept = _parts(steps)
    size = max(FEWEST_STEPS, -(-len(kept) // MOST_BINS))
    points = []
    for start in range(0, len(kept), size):
        stretch = kept[start : start + size]
        first, last = stretch[0][0], stretch[-1][0]
        icc = _estimate(pooled_icc(part for _, part in stretch))
        if icc:
            title = f"steps {first:,}–{last:,}" if last > first else f"step {last:,}"
            points.append(_point((first + last) / 2, icc) | {"title": title})
    if not points:
        return chart | {"missing": "Not recorded in this run."}
    return chart | {"series": [{"name": "explained by the first response", "points": points}]}


def probe_charts(probes: dict[int, Record]) -> list[Chart]:
    """The worth of notes, whether the reward sees it, and rewards from k trajectories against the true value."""
    shown = [
        _by_step(
            probes,
            KINDS,
            lambda probe: section(probe, "values"),
            id="note-value",
            title="What the note is worth",
            y="continuations that end right (%)",
            unit="percent",
            caption="Continuations from the response's own note, from none, and from a note to another question, with "
            "95 % intervals over questions. The later rounds use the note as far as these differ.",
        ),
        _by_step(
            probes,
            {"correlation": "advantage with true value (r)", "icc": "variance explained by the note"},
            lambda probe: probe,
            id="probe-r",
            title="Does the reward see it?",
            y="share or correlation",
            unit="number",
            caption="Correlation of the advantage with the note's true value, within questions, and the intraclass "
            "correlation of the true values. An oracle's advantages would have r = 1.",
        ),
    ]
    table = reward_table(probes[max(probes)])
    return [chart for chart in shown if chart["series"]] + ([table] if table["rows"] else [])


def reward_table(probe: Record) -> Chart:
    """Bias, variance and reliability of a reward from k trajectories."""
    rows = []
    rewards = probe.get("rewards")
    for reward in rewards if isinstance(rewards, list) else []:
        if isinstance(reward, dict) and number(reward.get("k")):
            bias = _estimate(reward.get("bias"))
            cells = [number(reward.get(name)) for name in ("variance", "reliability")]
            rows.append([f"{reward['k']:g}", _interval(bias, 3) if bias else NONE, *(fixed(cell, 3) for cell in cells)])
    return {
        "id": "rewards",
        "kind": "table",
        "title": "Rewards from k trajectories",
        "head": ["k", "Bias", "Variance", "Reliability"],
        "rows": rows,
        "caption": "Against the note's true value, at the latest probe. Variance is luck alone and falls as 1/k; "
        "reliability is the share of the rewards' variance within a question that is not luck.",
    }


def readings(probe: Record) -> list[str]:
    """A probe in sentences."""
    sentences = []
    if correlation := _estimate(probe.get("correlation")):
        shows = "the reward sees" if (correlation.low or 0) > 0 else "this does not show that the reward sees"
        sentences.append(
            f"The advantage and the true value of a note correlate with r = {_interval(correlation)} within "
            f"questions (an oracle's would with 1): {shows} what a note is worth."
        )
    if icc := _estimate(probe.get("icc")):
        sentences.append(f"The notes explain {_percent(icc)} of the variance of the outcomes to one question.")
    values = section(probe, "values")
    shares = [f"{words} {_percent(value)}" for name, words in KINDS.items() if (value := _estimate(values.get(name)))]
    if shares:
        sentences.append(f"Continuations that end right, by what they begin with: {', '.join(shares)}.")
    for name, words in (("own_minus_empty", "no note"), ("own_minus_shuffled", "a note to another question")):
        if gain := _estimate(values.get(name)):
            sentences.append(_gain(gain, words))
    bias = _estimate(probe.get("trained_bias"))
    if bias and bias.low is not None and bias.high is not None and not bias.low <= 0 <= bias.high:
        sentences.append(
            f"The values that training saw are off by {_points(bias)} on average: they are not those of the deployed "
            "policy."
        )
    return sentences


def _gain(gain: Estimate, words: str) -> str:
    if gain.low is not None and gain.low > 0:
        return f"The own note is worth {_points(gain)} more than {words}."
    return f"The own note gains {_points(gain)} on {words}: this does not show that later rounds use it."


def _by_step(probes: dict[int, Record], names: dict[str, str], of: Callable[[Record], Record], **words: str) -> Chart:
    series = []
    for key, name in names.items():
        estimates = {step: _estimate(of(probe).get(key)) for step, probe in sorted(probes.items())}
        points = [_point(step, estimate) for step, estimate in estimates.items() if estimate]
        if points:
            series.append({"name": name, "points": points})
    return {"kind": "points", "series": series} | words


def _point(step: float, estimate: Estimate) -> Record:
    return {"step": step, "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": None}


def _parts(steps: list[Record]) -> list[tuple[int, Components]]:
    """The components of the steps that have any, by step."""
    parts = []
    for record in steps:
        diagnostics = {key: number(value) for key, value in record.items() if key.startswith("diag/")}
        part = Components.from_metrics(diagnostics)
        if part.df_within > 0 and part.df_between > 0:
            parts.append((record["step"], part))
    return parts


def _estimate(value: Any) -> Estimate | None:
    """An estimate from its fields; None where it has no value."""
    fields = vars(value) if isinstance(value, Estimate) else value if isinstance(value, dict) else {}
    middle, low, high = (number(fields.get(name)) for name in ("value", "low", "high"))
    if middle is None:
        return None
    return Estimate(middle) if low is None or high is None else Estimate(middle, low, high)


def _when(step: int) -> str:
    return "before training" if step == 0 else f"after step {step:,}"


def _interval(estimate: Estimate, digits: int = 2, scale: float = 1, unit: str = "") -> str:
    """`0.12 [−0.03, 0.27]`, with the unit after the value."""
    value, low, high = (
        None if part is None else part * scale for part in (estimate.value, estimate.low, estimate.high)
    )
    interval = "" if low is None else f" [{fixed(low, digits)}, {fixed(high, digits)}]"
    return f"{fixed(value, digits)}{unit}{interval}"


def _percent(estimate: Estimate) -> str:
    return _interval(estimate, 1, 100, " %")


def _points(estimate: Estimate) -> str:
    return _interval(estimate, 1, 100, " points")
