"""From raw results to numbers: each arm's accuracy and cost, and the study's contrasts and thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from motif.compare.results import Record, mean, spelled_out
from motif.compare.study import COMPUTED, ArmTarget, Contrast, Point, Study, Threshold
from motif.compare.words import contrast_sentence, point_words, threshold_sentence
from motif.statistics.paired import (
    amount_to_reach,
    crossed_interval,
    discordant,
    mcnemar,
    mean_interval,
    ratio_interval,
    student_interval,
    value_at,
)
from motif.statistics.variance import Components
from motif.text import counted

Results = dict[str, dict[int, Record]]
"""Runs by arm and seed."""
BUDGETS = ("questions", "generated_tokens", COMPUTED, "seconds")
"""What arms are compared at equal amounts of."""


def summarise(study: Study, lines: Sequence[Record]) -> Record:
    """All numbers of a study, as table, page and summary.json show them.

    Args:
        lines: those of results.jsonl; runs of arms or seeds that are not in the study are left out, and counted.
    """
    head, *runs = lines
    results: Results = {arm: {} for arm in study.arms}
    others = 0
    for run in runs:
        if run["arm"] in study.arms and run["seed"] in study.seeds:
            results[run["arm"]][run["seed"]] = measured(run, study.arms[run["arm"]].measure)
        else:
            others += 1
    row = study.row or head["row"]
    of = {name: arm.row or row for name, arm in study.arms.items()}
    arms = {arm: summarise_arm(study, arm, results, of) for arm in study.arms}
    made_with = versions(runs)
    return {
        "study": study.name,
        "about": study.about,
        "row": row,
        "rows": list(dict.fromkeys(name for arm in arms.values() for name in arm["rows"])),
        "reference": study.reference or None,
        "seeds": study.seeds,
        "arms": arms,
        "budgets": {arm: budgets(arm, study.reference, of, results) for arm in of if study.reference not in ("", arm)},
        "contrasts": [contrast(one, of, results) for one in study.contrasts],
        "thresholds": [threshold(one, row, of, results) for one in study.thresholds],
        "versions": made_with,
        "notes": notes(study, results, others, made_with, head),
    }


def measured(run: Record, measure: str) -> Record:
    """The run with the majority vote of its answers in the place of their mean, if that is what counts of its arm.

    Outcomes are kept of the mean only, so there is then no test by question.
    """
    if measure == "accuracy":
        return run
    curve = []
    for point in run["curve"]:
        voted = {name: row | {"accuracy": row["majority"]["value"]} for name, row in point["rows"].items()}
        curve.append(point | {"rows": voted})
    return run | {"curve": curve, "outcomes": {}}


def summarise_arm(study: Study, name: str, results: Results, of: Mapping[str, str]) -> Record:
    """An arm: its final accuracy in every row, over seeds and against the reference, and what it spent.

    Args:
        of: the row in which each arm is used.
    """
    runs = results[name]
    rows: Record = {}
    for row in dict.fromkeys(row for run in runs.values() for row in run["curve"][-1]["rows"]):
        values = values_of(Point(arm=name), row, runs)
        if not values:
            continue
        rows[row] = {"accuracy": accuracy_interval(list(values.values())), "by_seed": values}
        rows[row] |= {
            key: mean([run["curve"][-1]["rows"].get(row, {}).get(key) for run in runs.values()])
            for key in ("truncated", "mean_tokens", "ungraded")
        }
        if study.reference and study.reference != name:
            other = of[study.reference] if row == of[name] else row
            rows[row]["difference"] = difference(
                values, values_of(Point(arm=study.reference), other, results[study.reference])
            )
    ledgers = [run["ledger"] for run in runs.values()]
    iccs = [icc for run in runs.values() if (icc := pooled_icc(run["diagnostics"])) is not None]
    return {
        "about": study.arms[name].about,
        "row": of[name],
        "settings": next((run["settings"] for run in runs.values()), {}),
        "runs": len(runs),
        "rows": rows,
        "spent": {key: mean([ledger.get(key) for ledger in ledgers]) for key in (ledgers[0] if ledgers else {})},
        "dead_groups": mean([run["dead_groups"] for run in runs.values()]),
        "truncated": mean([run["truncated"] for run in runs.values()]),
        "wall_seconds": mean([run["wall_seconds"] for run in runs.values()]),
        "icc": mean_interval(iccs).to_dict() if iccs else None,
    }


def accuracy_interval(values: Sequence[float]) -> Record:
    """The mean over seeds, with an interval that stays between 0 and 1."""
    interval = mean_interval(values).to_dict()
    ends = {end: interval[end] for end in ("low", "high")}
    return interval | {end: None if value is None else min(1.0, max(0.0, value)) for end, value in ends.items()}


def values_of(point: Point, row: str, runs: Mapping[int, Record]) -> dict[int, float]:
    """The accuracy at a point, by seed; seeds whose curve does not reach it are left out."""
    values = {}
    for seed, run in sorted(runs.items()):
        if not point.at:
            value = run["curve"][-1]["rows"].get(row, {}).get("accuracy")
        else:
            [(currency, amount)] = point.at.items()
            value = value_at(*curve(run, row, currency), amount)
        if value is not None:
            values[seed] = value
    return values


def curve(run: Record, row: str, currency: str) -> tuple[list[float], list[float]]:
    """The amounts spent by every evaluation that has the row, and its accuracies."""
    points = [
        (float(point["spent"][currency]), float(point["rows"][row]["accuracy"]))
        for point in run["curve"]
        if point["rows"].get(row, {}).get("accuracy") is not None and point["spent"].get(currency) is not None
    ]
    return [amount for amount, _ in points], [value for _, value in points]


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Record | None:
    """a - b over the seeds that both have; None if there are none."""
    by_seed = {seed: a[seed] - b[seed] for seed in a if seed in b}
    if not by_seed:
        return None
    values = list(by_seed.values())
    return mean_interval(values).to_dict() | {"student": student_interval(values).to_dict(), "by_seed": by_seed}


def budgets(arm: str, reference: str, of: Mapping[str, str], results: Results) -> Record:
    """An arm against the reference at equal amounts of each currency: the most that all runs of both have spent."""
    compared: Record = {}
    for currency in BUDGETS if results[arm] and results[reference] else ():
        runs = [(one, curve(run, of[one], currency)[0]) for one in (arm, reference) for run in results[one].values()]
        most = min((amounts[-1] for _, amounts in runs if amounts), default=0.0)
        if most > 0:
            sides = [values_of(Point(arm=one, at={currency: most}), of[one], results[one]) for one in (arm, reference)]
            compared[currency] = {"amount": most, "difference": difference(*sides)}
    return compared


def contrast(wanted: Contrast, of: Mapping[str, str], results: Results) -> Record:
    """A contrast: its difference with interval and per seed, its finding, and tests by question at the end of runs."""
    a, b = (contrast_side(point, of[point.arm], results) for point in (wanted.a, wanted.b))
    result: Record = {"name": wanted.name, "a": a, "b": b, "margin": wanted.margin}
    result["difference"] = difference(a["by_seed"], b["by_seed"])
    result["notes"] = [
        f"{side['words']}: no value for seed{'s' * (len(side['none']) > 1)} {', '.join(map(str, side['none']))}, whose "
        "evaluations do not reach that point."
        for side in (a, b)
        if side["none"]
    ]
    result |= question_tests(a, b, results) if not (wanted.a.at or wanted.b.at) else {}
    result["finding"] = finding(result["difference"], wanted.margin)
    return result | {"sentence": contrast_sentence(result)}


def contrast_side(point: Point, default_row: str, results: Results) -> Record:
    """One side of a contrast: its values by seed, and the seeds (`none`) that have none."""
    row = point.row or default_row
    values = values_of(point, row, results[point.arm])
    return {
        "arm": point.arm,
        "row": row,
        "at": point.at,
        "words": point_words(point.arm, row, point.at),
        "by_seed": values,
        "none": sorted(results[point.arm].keys() - values.keys()),
    }


def question_tests(a: Record, b: Record, results: Results) -> Record:
    """The interval over seeds and questions, and McNemar's test for each seed, where final outcomes are known."""
    tables: list[list[float | None]] = []
    tests: Record = {}
    for seed in sorted(results[a["arm"]].keys() & results[b["arm"]].keys()):
        sides = [results[side["arm"]][seed]["outcomes"].get(side["row"]) for side in (a, b)]
        if None in sides:
            continue
        x, y = (spelled_out(side) for side in sides)
        if len(x) != len(y):
            continue
        tables.append([None if p is None or q is None else p - q for p, q in zip(x, y, strict=True)])
        only_a, only_b = discordant(x, y)
        tests[str(seed)] = {"only_a": only_a, "only_b": only_b, "p": mcnemar(only_a, only_b)}
    if not any(value is not None for table in tables for value in table):
        return {}
    return {"over_questions": crossed_interval(tables).to_dict(), "mcnemar": tests}


def finding(difference: Record | None, margin: float | None) -> str:
    """What a difference shows: better, worse, not inferior, within margin, not shown, one seed, none."""
    if difference is None:
        return "none"
    if difference["low"] is None:
        return "one seed"
    if difference["low"] > 0:
        return "better"
    inside = margin is not None and difference["low"] > margin
    if difference["high"] < 0:
        return "within margin" if inside else "worse"
    return "not inferior" if inside else "not shown"


def threshold(wanted: Threshold, default_row: str, of: Mapping[str, str], results: Results) -> Record:
    """How much each arm needs to reach the accuracy, and the ratios to the first arm."""
    row = wanted.row or default_row
    target = wanted.target
    if isinstance(target, ArmTarget):
        finals = list(values_of(Point(arm=target.arm), wanted.row or of[target.arm], results[target.arm]).values())
        aim = sum(finals) / len(finals) if finals else None
    else:
        aim = target
    arms = (
        {}
        if aim is None
        else {arm: needed(results[arm], wanted.row or of[arm], wanted.currency, aim) for arm in wanted.arms}
    )
    first, *others = wanted.arms
    ratios = {arm: ratio(arms[arm], arms[first]) for arm in others} if arms else {}
    result: Record = {
        "name": wanted.name,
        "row": row,
        "currency": wanted.currency,
        "target": aim,
        "target_arm": target.arm if isinstance(target, ArmTarget) else None,
        "first": first,
        "arms": arms,
        "ratios": ratios,
    }
    return result | {"sentence": threshold_sentence(result)}


def needed(runs: Mapping[int, Record], row: str, currency: str, target: float) -> Record:
    """The amounts needed, by seed; a run that never reaches the target counts with all it spent, and is marked."""
    amounts: dict[int, float] = {}
    censored: list[int] = []
    for seed, run in sorted(runs.items()):
        xs, ys = curve(run, row, currency)
        if not xs:
            continue
        amount = amount_to_reach(xs, ys, target)
        if amount is None:
            censored.append(seed)
        amounts[seed] = xs[-1] if amount is None else amount
    mean = mean_interval(list(amounts.values())).to_dict() if amounts else None
    return {"by_seed": amounts, "not_reached": censored, "amount": mean}


def ratio(numerator: Record, denominator: Record) -> Record | None:
    """How many times as much one arm needs as another, over shared seeds.

    `bound` says what runs that never reach the target make of the ratio: a lower or an upper bound, or unknown.
    """
    seeds = sorted(numerator["by_seed"].keys() & denominator["by_seed"].keys())
    top, bottom = ([side["by_seed"][seed] for seed in seeds] for side in (numerator, denominator))
    interval = ratio_interval(top, bottom)
    if interval is None:
        return None
    above, below = (any(seed in side["not_reached"] for seed in seeds) for side in (numerator, denominator))
    bound = "unknown" if above and below else "lower" if above else "upper" if below else None
    return interval.to_dict() | {"bound": bound}


def pooled_icc(columns: Mapping[str, Sequence[float | None]]) -> float | None:
    """The share of outcome variance that the first response explains, over all steps of a run; None if unknown."""
    steps = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    parts = [Components.from_metrics({f"diag/{key}": value for key, value in step.items()}) for step in steps]
    return sum(parts, Components()).icc


def versions(runs: Sequence[Record]) -> dict[str, list[str]]:
    """All versions of each package that runs were made with."""
    seen: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, version in run["versions"].items():
            seen.setdefault(name, {})[version] = None
    return {name: list(several) for name, several in seen.items()}


def second_opinions(results: Results) -> list[str]:
    """What a second grader said of the final answers of each arm, where there was one."""
    told = []
    for arm, runs in results.items():
        found = [
            two for run in runs.values() for row in run["curve"][-1]["rows"].values() if (two := row.get("second"))
        ]
        if found:
            compared, apart = (sum(two[key] for two in found) for key in ("compared", "disagreements"))
            told.append(f"{arm}: {found[0]['grader']} disagrees on {apart:,} of {compared:,} final verdicts.")
    return told


def notes(
    study: Study, results: Results, others: int, made_with: Mapping[str, Sequence[str]], head: Record
) -> list[str]:
    """What a reader should know before believing the table."""
    remarks = []
    for arm, runs in results.items():
        if missing := [str(seed) for seed in study.seeds if seed not in runs]:
            remarks.append(f"{arm}: no finished run of seed{'s' * (len(missing) > 1)} {', '.join(missing)}.")
    if others:
        verb = "belongs" if others == 1 else "belong"
        remarks.append(f"{counted(others, 'run')} in the results {verb} to no arm or seed of the study.")
    for name, several in made_with.items():
        if len(several) > 1:
            remarks.append(f"The runs were made with different versions of {name}: {', '.join(several)}.")
    remarks += second_opinions(results)
    if overlapping := head.get("overlap"):
        remarks.append(overlapping)
    if sum(len(runs) for runs in results.values()) and len(study.seeds) < 5:
        remarks.append(f"{counted(len(study.seeds), 'seed')}: too few for intervals to be trusted much.")
    return remarks
