"""MATH-500 (Lightman et al., arXiv 2305.20050): 500 problems of the MATH test set, for testing only."""

from motif.tasks.table import Source, TableTask

TASK = TableTask(
    grader="math",
    questions=("problem", "question"),
    answers=("answer",),
    test=Source("HuggingFaceH4/MATH-500", split="test", rows=500),
)
