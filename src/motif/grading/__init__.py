"""Graders: is an answer right, wrong, or impossible to grade?

`Grader` runs one of the rules by its name, under a hard time limit.
"""

from motif.grading.grader import Grader
from motif.grading.registry import RULES
from motif.grading.verdict import Grade

__all__ = ["RULES", "Grade", "Grader"]
