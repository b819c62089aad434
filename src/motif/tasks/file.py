"""Your own questions: `data.train` and `data.test` name files or data sets. The default grader is `exact`."""

from motif.tasks.table import TableTask

TASK = TableTask(grader="exact", questions=("question",), answers=("answer",))
