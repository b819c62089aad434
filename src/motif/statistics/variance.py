"""How much of the outcome the first response decides, from the trees that training grows anyway.

The outcome of a trajectory varies for two reasons: the first-round responses to a question differ in value (variance
s_b^2 between responses), and the continuations of one response differ by chance (s_w^2 within a response). A one-way
random analysis of variance separates the two. Take one question with a responses, n_i graded continuations of response
i, N in all, and their outcomes y_ij:

    SS_b = sum_i n_i (mean_i - mean)^2        df_b = a - 1      E[SS_b] = df_b s_w^2 + (N - sum_i n_i^2 / N) s_b^2
    SS_w = sum_ij (y_ij - mean_i)^2           df_w = N - a      E[SS_w] = df_w s_w^2

All five quantities are sums, so questions and steps are pooled by addition (Searle, Casella & McCulloch, Variance
Components, 1992, chapter 3). With n_0 = (N - sum n_i^2 / N) / df_b, the size of equal groups with as much information:

    s_w^2 = SS_w / df_w               s_b^2 = (SS_b / df_b - s_w^2) / n_0
    ICC = s_b^2 / (s_b^2 + s_w^2)     reliability of the mean of k = s_b^2 / (s_b^2 + s_w^2 / k)

(These are ICC(1) and, for k = n_0, ICC(1, k) of Shrout & Fleiss, Psychological Bulletin 86, 1979.) Both are reported
as estimated, so they can be negative where the responses differ less than chance alone would make them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from motif.method.tree import Tree
from motif.statistics.paired import t_quantile

KEYS = ("ss_between", "df_between", "ss_within", "df_within")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; None for what is undefined or cannot be determined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        # Adding 0 makes a rounded -0 a 0.
        value, *ends = (f"{round(part, 2) + 0.0:.2f}" for part in (self.value, self.low, self.high) if part is not None)
        return f"{value} [{', '.join(ends)}]" if ends else value


@dataclass(frozen=True)
class Components:
    """Sums of squares and degrees of freedom, of one question or added up over many.

    `weight` is the sum of n_0 · df_between. A property is None where the data do not determine it: with one trajectory
    per response, in a single round, or where all outcomes are the same.
    """

    ss_between: float = 0.0
    df_between: int = 0
    ss_within: float = 0.0
    df_within: int = 0
    weight: float = 0.0

    def __add__(self, other: Components) -> Components:
        return Components(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def n0(self) -> float | None:
        """The number of continuations per response; where it varies, its effective value n_0."""
        return self.weight / self.df_between if self.df_between else None

    @property
    def within(self) -> float | None:
        """s_w^2, the variance within a response."""
        return self.ss_within / self.df_within if self.df_within else None

    @property
    def between(self) -> float | None:
        """s_b^2, the variance between responses; negative where they differ less than chance alone would make them."""
        if self.within is None or not self.n0:
            return None
        return (self.ss_between / self.df_between - self.within) / self.n0

    @property
    def icc(self) -> float | None:
        """The share of the outcome's variance within a question that the first response explains."""
        return self.reliability(1)

    def reliability(self, k: float | None = None) -> float | None:
        """The share of the variance of k-trajectory rewards that is not due to chance (default: k = n_0)."""
        between, within = self.between, self.within
        if between is None or within is None:
            return None
        total = between + within / (k or self.n0 or 1)
        return between / total if total > 0 else None

    def metrics(self) -> dict[str, float | None]:
        """The estimates for metrics.jsonl, and the sums from which `from_metrics` pools steps."""
        sums = {key: getattr(self, key) for key in KEYS}
        values = {"icc": self.icc, "reliability": self.reliability()} | sums | {"n0": self.n0}
        return {f"diag/{name}": value for name, value in values.items()}

    @classmethod
    def from_metrics(cls, line: Mapping[str, Any]) -> Components:
        """The inverse of `metrics`; zero components if the line has none."""
        sums = {key: line.get(f"diag/{key}") or 0 for key in KEYS}
        return cls(**sums, weight=(line.get("diag/n0") or 0) * sums["df_between"])


def components(trees: Iterable[Tree]) -> Components:
    """The components over all questions of graded trees.

    The observations of a response are the mean outcomes below its children. Where nothing branches later ([m, k, 1, …])
    these are the outcomes of its trajectories. Otherwise they are means over later branches: given the note, these are
    independent of each other, which single trajectories would not be. Ungraded leaves are left out. A response that
    gave the answer itself decides the outcome: every continuation that it left out counts as one with its outcome.
    """
    return sum((question_components(_observations(tree)) for tree in trees), Components())


def question_components(outcomes: Sequence[Sequence[float]]) -> Components:
    """The components of one question; `outcomes[i]` are the outcomes of the continuations of response i."""
    groups = [group for group in outcomes if group]
    if not groups:
        return Components()
    means = [sum(group) / len(group) for group in groups]
    total = sum(map(len, groups))
    mean = sum(map(sum, groups)) / total
    return Components(
        ss_between=sum(len(group) * (level - mean) ** 2 for group, level in zip(groups, means, strict=True)),
        df_between=len(groups) - 1,
        ss_within=sum((value - level) ** 2 for group, level in zip(groups, means, strict=True) for value in group),
        df_within=total - len(groups),
        weight=total - sum(len(group) ** 2 for group in groups) / total,
    )


def pooled_icc(parts: Iterable[Components]) -> Estimate:
    """The ICC over independent parts (steps, or questions), with a 95 % interval.

    The interval is the jackknife's on log F, F = (SS_b / df_b) / (SS_w / df_w). It does not need normal outcomes
    (Arvesen & Schmitz, Biometrics 26, 1970).
    """
    rows = np.array([[getattr(part, f.name) for f in fields(part)] for part in parts])
    if not len(rows):
        return Estimate(None)
    whole = Components(*rows.sum(0).tolist())
    if whole.icc is None or whole.n0 is None:
        return Estimate(whole.icc)
    log_f = jackknife(rows, lambda s: np.log(s[..., 0] / s[..., 1] / (s[..., 2] / s[..., 3])))
    low, high = (_icc_of_log_f(bound, whole.n0) for bound in (log_f.low, log_f.high))
    return Estimate(whole.icc, low, high)


def jackknife(rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """A statistic of sums over independent units, with the delete-one jackknife's 95 % interval (Student's t).

    Args:
        rows: (units, features), the contribution of each unit to the sums.
        statistic: a function of sums (…, features), vectorised over all but the last axis.

    The value is the statistic itself. The interval is centred on the jackknife estimate, which has less bias (Tukey
    1958). For a mean, value and interval are the usual ones.
    """
    units = len(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(rows.sum(0)))
        without = statistic(rows.sum(0) - rows)
    if not math.isfinite(value):
        return Estimate(None)
    if units < 2 or not np.isfinite(without).all():
        return Estimate(value)
    pseudo = units * value - (units - 1) * without
    half = t_quantile(0.975, units - 1) * float(pseudo.std(ddof=1)) / math.sqrt(units)
    return Estimate(value, float(pseudo.mean()) - half, float(pseudo.mean()) + half)


def _observations(tree: Tree) -> list[list[float]]:
    means = ([child.mean_outcome() for child in root.children or [root] * sum(root.unused[:1])] for root in tree.roots)
    return [[mean for mean in group if mean is not None] for group in means]


def _icc_of_log_f(log_f: float | None, n0: float) -> float | None:
    # (F - 1) / (F - 1 + n_0), written in 1/F and clipped far out, so that nothing overflows.
    if log_f is None:
        return None
    inverse = math.exp(min(-log_f, 700))
    return (1 - inverse) / (1 + (n0 - 1) * inverse)
