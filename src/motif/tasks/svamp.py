"""SVAMP (Patel et al., arXiv 2103.07191): 700 and 300 short word problems whose wording varies what is asked.

A question is the columns `Body` and `Question` together; answers are numbers such as 27.0.
"""

from motif.tasks.table import Source, TableTask

TASK = TableTask(
    grader="numeric",
    questions=("Body", "Question"),
    answers=("Answer", "answer"),
    joined=True,
    train=Source("ChilleD/SVAMP", split="train", rows=700),
    test=Source("ChilleD/SVAMP", split="test", rows=300),
)
