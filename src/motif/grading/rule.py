"""What a rule of grading is: the contract between `Grader`, its workers and the rules themselves."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from motif.grading.gold import answer_in_box, problem
from motif.grading.own import Answered
from motif.grading.verdict import Grade


class Rule(Protocol):
    """Judges an answer against a gold answer. A rule has no state that a verdict depends on.

    `Grader` asks `quick` in its own process. Where that leaves the verdict open, a worker process, which can be killed,
    is asked for `thorough`.
    """

    name: str
    in_process: bool = False
    """Whether a verdict is always fast and safe: `thorough` then runs in the caller's process, without a worker."""
    reads_responses: bool = False
    """Whether the rule finds the answer in a whole response itself."""
    wrong_answers: tuple[str, ...] = ("", "0", "0.0")
    """Answers that must not pass for a gold answer, unless they equal it."""
    waits: bool = False
    """Whether a verdict may wait for something that is not the answer's fault: a server, a lock, a disk."""
    seconds: float = 0.0
    """The time that one verdict may need; 0 leaves it to the caller."""
    start_seconds: float = 120.0
    """The time that a worker may need to `prepare` on a busy machine."""
    memory: int = 2 << 30
    """The address space of a worker, in bytes."""
    own: bool = False
    """Whether it is a function of the user's own, which may ask for more than the gold answer and the answer."""
    here: bool = False
    """Whether it runs in this process only, as no other has it."""
    at_once: int = 0
    """Verdicts that may wait at the same time in this process."""

    def judge(self, answered: Answered) -> Grade:
        """The verdict on an answer with all that is known of it."""
        return self.grade(answered.gold, answered.answer or "")

    def grade(self, gold: str, prediction: str) -> Grade:
        """The verdict, whatever it takes."""
        return self.quick(gold, prediction) or self.thorough(gold, prediction)

    def quick(self, gold: str, prediction: str) -> Grade | None:
        """The verdict where it is cheap and safe to find in this process, else None."""
        return None

    @abstractmethod
    def thorough(self, gold: str, prediction: str) -> Grade:
        """The verdict without the shortcuts of `quick`."""
        ...

    def quick_check(self, gold: str) -> Grade | None:
        """`check_gold` where it needs no worker, else None."""
        return None

    def check_gold(self, gold: str) -> Grade:
        r"""Right if a response that boxes the gold answer is right, without shortcuts; else what is the matter with it.

        A rule that reads whole responses is given the gold answer as it is.
        """
        if self.reads_responses:
            return self.thorough(gold, gold)
        wrong = problem(gold)
        return Grade("wrong", wrong) if wrong else self.thorough(gold, answer_in_box(gold) or "")

    def prepare(self) -> None:
        """Load what is slow to load.

        Raises:
            DataError: something is missing; the message says what to install or to correct.
        """
        return

    def out_of_memory(self) -> Grade:
        """The verdict where a worker's memory does not suffice: the answer's own fault."""
        return Grade("wrong", "grading it takes too much memory")
