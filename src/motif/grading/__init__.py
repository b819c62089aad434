"""Graders: is an answer right, wrong, or impossible to grade? `Grader` runs one by name under a hard time limit."""

from motif.grading.grader import Grader
from motif.grading.registry import RULES
from motif.grading.verdict import Grade

__all__ = ["RULES", "Grade", "Grader"]
