r"""MATH (Hendrycks et al., arXiv 2103.03874): 7,500 competition problems to train on, tested on MATH-500.

A source without an `answer` column is read through its `solution`, whose last \boxed{...} is the answer.
"""

from motif.tasks.math500 import TASK as MATH500
from motif.tasks.table import Source, TableTask

TASK = TableTask(
    grader="math",
    questions=("problem", "question"),
    answers=("answer",),
    solution="solution",
    train=Source("DigitalLearningGmbH/MATH-lighteval", split="train", rows=7500),
    test=MATH500.test,
)
