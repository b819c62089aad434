"""The outcome of grading one answer."""

from dataclasses import dataclass

from motif.method.tree import Verdict


@dataclass(frozen=True)
class Grade:
    """A verdict, why (empty where it speaks for itself), and the wall-clock seconds it took.

    `ungraded` says that the grader could not decide; it is never evidence against the answer.
    """

    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
