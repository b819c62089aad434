"""The outcome of grading one answer, and the error of gold answers."""

from dataclasses import dataclass

from motif.errors import DataError
from motif.method.tree import Verdict


@dataclass(frozen=True)
class Grade:
    """A verdict, its reason (empty where it speaks for itself), and the wall-clock seconds that it took.

    `ungraded` means that the grader could not decide. It is never evidence against the answer.
    """

    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0


class GoldError(DataError):
    """A gold answer that cannot be used; the message says why."""
