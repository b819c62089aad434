"""Graders: is an answer right, wrong, or impossible to grade? `Grader` runs one by name under a hard time limit."""

from motif.grading.verdict import Grade
from motif.grading.worker import GRADERS, Grader

__all__ = ["GRADERS", "Grade", "Grader"]
