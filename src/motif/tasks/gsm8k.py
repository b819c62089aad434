"""GSM8K (Cobbe et al., arXiv 2110.14168): 7,473 and 1,319 grade-school word problems; the answer follows "#### "."""

from motif.tasks.table import Hub, TableTask

TASK = TableTask(
    grader="numeric",
    questions=("question",),
    answers=("answer",),
    train=Hub("openai/gsm8k", "main", "train", 7473),
    test=Hub("openai/gsm8k", "main", "test", 1319),
    pattern=r"#### *(.+)",
    clean=lambda gold: gold.replace(",", "").strip(),
)
