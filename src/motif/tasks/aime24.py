"""AIME 2024: 30 competition problems with answers from 000 to 999, for testing only."""

from motif.tasks.table import Source, TableTask

TASK = TableTask(
    grader="math",
    questions=("problem", "Problem", "question"),
    answers=("answer", "Answer"),
    test=Source("HuggingFaceH4/aime_2024", split="train", rows=30),  # its only split
)
