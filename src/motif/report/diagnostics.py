"""What the reward tells: how much of the outcome the first response decides, and what a probe found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from motif.report.charts import Chart
from motif.runs.read import Record, number, section
from motif.statistics.variance import Components, Estimate, pooled_icc

MOST_BINS = 8
FEWEST_STEPS = 4  # in a bin, or else its interval says little
KINDS = {"own": "own note", "empty": "empty note", "shuffled": "note to another question"}


def diagnostics(steps: list[Record], probes: dict[int, Record]) -> list[Record]:
    """The section, or none where the run has neither several trajectories a response nor a probe."""
    pooled = icc_chart(steps)
    charts = [pooled] if "missing" not in pooled else []
    text = share_explained(steps)
    if probes:
        latest = max(probes)
        text += [f"The probe {_when(latest)}:", *readings(probes[latest])]
        charts += probe_charts(probes)
    if not charts:
        return []
    lead = "How much of the outcome the first response decides, and whether the reward sees it."
    return [{"id": "diagnostics", "title": "What the reward tells", "lead": lead, "text": text, "charts": charts}]


def share_explained(steps: list[Record]) -> list[str]:
    """A sentence on the intraclass correlation over the whole run."""
    parts = [part for _, part in _parts(steps)]
    found, whole = pooled_icc(parts), sum(parts, Components())
    if found.value is None:
        return []
    reliability, size = whole.reliability(), whole.n0
    text = (
        f"Over the run, the first response explains {_percent(found)} of the variance of the outcomes to one question; "
        "the rest is what happened after its note."
    )
    if reliability is not None and size is not None:
        text += (
            f" So {_percent(Estimate(reliability))} of the variance of rewards from {size:.3g} trajectories is due to "
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
        "continuations, and more trajectories pay; near one, a single trajectory would do.",
    }
    kept = _parts(steps)
    size = max(FEWEST_STEPS, -(-len(kept) // MOST_BINS))
    points = []
    for start in range(0, len(kept), size):
        stretch = kept[start : start + size]
        first, last = stretch[0][0], stretch[-1][0]
        found = _estimate(pooled_icc(part for _, part in stretch))
        if found:
            title = f"steps {first:,}–{last:,}" if last > first else f"step {last:,}"
            points.append(_point((first + last) / 2, found) | {"title": title})
    if not points:
        return chart | {"missing": "Not recorded in this run."}
    return chart | {"series": [{"name": "explained by the first response", "points": points}]}


def probe_charts(probes: dict[int, Record]) -> list[Chart]:
    """What notes are worth, whether the reward sees it, and rewards of k trajectories against the truth."""
    shown = [
        _by_step(
            probes,
            KINDS,
            lambda probe: section(probe, "values"),
            id="note-value",
            title="What the note is worth",
            y="continuations that end right (%)",
            unit="percent",
            caption="Continuations from the own note, from none, and from a note to another question, with 95 % "
            "intervals over questions. The later rounds use the note as far as these are apart.",
        ),
        _by_step(
            probes,
            {"correlation": "advantage with true value (r)", "icc": "variance explained by the note"},
            lambda probe: probe,
            id="probe-r",
            title="Does the reward see it?",
            y="share or correlation",
            unit="number",
            caption="Correlation of the advantage with the true value of the note, within questions, and the "
            "intraclass correlation of the true values. An oracle's advantages would have r = 1.",
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
            rows.append([f"{reward['k']:g}", _told(bias, 3) if bias else "–", *(_fixed(cell, 3) for cell in cells)])
    return {
        "id": "rewards",
        "kind": "table",
        "title": "Rewards from k trajectories",
        "head": ["k", "Bias", "Variance", "Reliability"],
        "rows": rows,
        "caption": "Against the true value of the note, at the latest probe. Variance is luck alone and falls as 1/k; "
        "reliability is the share of the rewards' variance within a question that is not luck.",
    }


def readings(probe: Record) -> list[str]:
    """What a probe found, in sentences."""
    said = []
    if found := _estimate(probe.get("correlation")):
        seen = "the reward sees the worth of a note" if (found.low or 0) > 0 else "this does not show that it sees it"
        said.append(
            f"The advantage and the true value of a note correlate with r = {_told(found)} within "
            f"questions (an oracle's would with 1): {seen}."
        )
    if found := _estimate(probe.get("icc")):
        said.append(f"The notes explain {_percent(found)} of the variance of the outcomes to one question.")
    values = {name: _estimate(section(probe, "values").get(name)) for name in KINDS}
    shares = [f"{words} {_percent(found)}" for name, words in KINDS.items() if (found := values[name])]
    if shares:
        said.append(f"Continuations that end right, by what they begin with: {', '.join(shares)}.")
    for name, words in (("own_minus_empty", "no note"), ("own_minus_shuffled", "a note to another question")):
        if found := _estimate(section(probe, "values").get(name)):
            said.append(_gain(found, words))
    found = _estimate(probe.get("trained_bias"))
    if found and found.low is not None and found.high is not None and not found.low <= 0 <= found.high:
        said.append(
            f"The values that training saw are off by {_points(found)} on average: they are not those of the deployed "
            "policy."
        )
    return said


def _gain(found: Estimate, words: str) -> str:
    if found.low is not None and found.low > 0:
        return f"The own note is worth {_points(found)} more than {words}."
    return f"Against {words} the own note makes {_points(found)}: that later rounds use it is not shown."


def _by_step(probes: dict[int, Record], names: dict[str, str], where: Callable[[Record], Record], **told: str) -> Chart:
    series = []
    for key, name in names.items():
        found = {step: _estimate(where(probe).get(key)) for step, probe in sorted(probes.items())}
        points = [_point(step, estimate) for step, estimate in found.items() if estimate]
        if points:
            series.append({"name": name, "points": points})
    return {"kind": "points", "series": series} | told


def _point(step: float, found: Estimate) -> Record:
    return {"step": step, "value": found.value, "low": found.low, "high": found.high, "n": None}


def _parts(steps: list[Record]) -> list[tuple[int, Components]]:
    """The components of the steps that have any, by step."""
    found = []
    for record in steps:
        diagnostics = {key: number(value) for key, value in record.items() if key.startswith("diag/")}
        part = Components.from_metrics(diagnostics)
        if part.df_within > 0 and part.df_between > 0:
            found.append((record["step"], part))
    return found


def _estimate(value: Any) -> Estimate | None:
    """An estimate from its fields; None where it has no value."""
    fields = vars(value) if isinstance(value, Estimate) else value if isinstance(value, dict) else {}
    middle, low, high = (number(fields.get(name)) for name in ("value", "low", "high"))
    if middle is None:
        return None
    return Estimate(middle) if low is None or high is None else Estimate(middle, low, high)


def _when(step: int) -> str:
    return "before training" if step == 0 else f"after step {step:,}"


def _fixed(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _told(found: Estimate, digits: int = 2, scale: float = 1, unit: str = "") -> str:
    """`0.12 [−0.03, 0.27]`, with the unit after the value."""
    value, low, high = (None if part is None else part * scale for part in (found.value, found.low, found.high))
    interval = "" if low is None else f" [{_fixed(low, digits)}, {_fixed(high, digits)}]"
    return f"{_fixed(value, digits)}{unit}{interval}"


def _percent(found: Estimate) -> str:
    return _told(found, 1, 100, " %")


def _points(found: Estimate) -> str:
    return _told(found, 1, 100, " points")
