"""GSM8K (Cobbe et al., arXiv 2110.14168): 7,473 and 1,319 grade-school word problems; the answer follows "#### "."""

from motif.tasks.table import Source, TableTask

TASK = TableTask(
    grader="numeric",
    questions=("question",),
    answers=("answer",),
    train=Source("openai/gsm8k", "main", "train", 7473),
    test=Source("openai/gsm8k", "main", "test", 1319),
    pattern=r"#### *(.+)",
    worked="answer",
    clean=lambda gold: gold.replace(",", "").strip(),
)
