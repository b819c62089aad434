"""Whether a question is worded like those of a task that makes its own: small models know no other wording."""

from __future__ import annotations

import re
from itertools import islice

from motif.config import DataConfig
from motif.tasks.procedural import ProceduralTask

SAMPLE = 400
"""Questions that the wording is taken from: a prefix is a random sample."""


class Wording:
    """The words of a task's questions, and the lengths of their numbers. `example`: one of the questions."""

    def __init__(self, task: ProceduralTask, data: DataConfig):
        questions = list(islice(task.questions(data, "train"), SAMPLE))
        self.example = " ".join(questions[0].whole.split()) if questions else ""
        self._known = {part for question in questions for part in _parts(question.whole)}

    def knows(self, question: str) -> bool:
        """Whether the question holds nothing that the task's questions do not hold."""
        return self._known.issuperset(_parts(question))


def _parts(text: str) -> list[str]:
    """Words, signs, and numbers by their length: 27 and 93 are the same here, 27 and 127 are not."""
    return [re.sub(r"\d", "0", part) for part in re.findall(r"\d+|[^\W\d_]+|[^\w\s]", text)]
