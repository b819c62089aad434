"""The answers of an evaluation on disk, so that it can be stopped at any time and resumed.

settings.json   the settings that decide the answers; their hash is the fingerprint of the evaluation
answers.jsonl   a line per question and row: every response, its notes, its verdict
results.json    the numbers, written at the end
outcomes.jsonl  the mean outcome of each question, a line per row, written at the end
overlap.json    words that held-out questions share with training questions, written at the end
disagreements.jsonl  a line per answer that a second grader judged otherwise, written at the end

Chunks of questions are appended as they are done. A chunk with a missing or unreadable line is dropped and answered
again as a whole. So every chunk is decoded with the same rows in its batch, whatever happened before.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from motif.errors import RunFolderError
from motif.evaluation.accuracy import Accuracy, Answers, GradedAnswer, answers_of
from motif.evaluation.rows import DecodingMode, EvalRow
from motif.method.rounds import Rounds
from motif.method.tree import Question, Tree
from motif.models.policy import Policy
from motif.runs.disk import replacing, try_lock, write_atomically, write_json
from motif.runs.provenance import digest, grader_digest, versions
from motif.runs.read import is_run
from motif.runs.settings import changed
from motif.session import Session

Key = tuple[str, str, str]


def settings_of(session: Session, questions: Sequence[Question]) -> dict[str, Any]:
    """All settings that decide the answers to these questions and their verdicts.

    The rows are left out: rows that are requested later are added to the folder.
    """
    recipe, rollout = session.recipe, session.recipe.rollout
    return {
        "weights": weights_digest(session.policy),
        "questions": questions_digest(questions, session.rounds),
        "grader": session.grader.name,
        "grader_file": grader_digest(session.grader.name),
        "grader_seconds": recipe.data.grader_seconds,
        "rounds": recipe.rounds.model_dump(mode="json"),
        "tokens_first": rollout.tokens_first,
        "tokens_continue": rollout.tokens_continue,
        "matched_tokens": recipe.matched_tokens,
        "max_rows": rollout.max_rows,
        "samples": recipe.eval.samples,
        "temperature": recipe.eval.temperature,
        "seed": recipe.train.seed,
        "device": str(session.policy.device),
        "versions": versions(),
    } | ({"precision": session.precision.name} if session.precision.int8 else {})


def fingerprint(settings: dict[str, Any]) -> str:
    """A hash of settings."""
    return digest([json.dumps(settings, sort_keys=True).encode()])


def weights_digest(policy: Policy) -> str:
    """A hash of all weights in memory, including an adapter's, wherever they come from."""
    import torch

    def parts() -> Iterator[bytes]:
        for name, tensor in sorted(policy.wrapped.state_dict().items()):
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

    return digest(parts())


def questions_digest(questions: Sequence[Question], rounds: Rounds) -> str:
    """A hash of the ids, texts and gold answers of the questions and of their prompts in tokens, so also of the
    tokenizer, the chat template and the system prompt."""
    facts = ([q.id, q.whole, q.gold, rounds.prompt(rounds.asked(q, 1), [], 1)] for q in questions)
    return digest(json.dumps(fact).encode() for fact in facts)


class EvalFolder:
    """A folder with the answers of one evaluation, for one process at a time. Use it as a context manager.

    Raises:
        RunFolderError: the folder holds an evaluation with other settings, or another process is writing to it.
    """

    def __init__(self, path: Path, settings: dict[str, Any], model: str):
        self.path, self.file = path, path / "answers.jsonl"
        self._chunks: dict[Key, Answers] = {}
        if is_run(path):
            raise RunFolderError(f"{path} is a run folder: choose another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = try_lock(path / ".lock")
        except OSError as error:
            raise RunFolderError(f"cannot write the answers to {path}: {error}") from None
        if lock is None:
            raise RunFolderError(
                f"another evaluation is writing to {path}: wait until it ends, or choose another --out"
            )
        self._lock = lock
        try:
            self._claim(settings, model)
            self._restore()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> EvalFolder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    @property
    def answers(self) -> int:
        """The number of answers that the folder held when it was opened."""
        return sum(len(of_question) for answers in self._chunks.values() for of_question in answers.values())

    def get(self, row: EvalRow, mode: DecodingMode, questions: Sequence[Question]) -> Answers | None:
        """The answers to these questions, if all of them are kept."""
        answers = self._chunks.get((row.name, mode.name, _chunk_name([question.id for question in questions])))
        return answers if answers and all(len(one) == mode.samples for one in answers.values()) else None

    def put(self, row: EvalRow, mode: DecodingMode, trees: Sequence[Tree]) -> None:
        """Append the graded trees of a chunk."""
        chunk = _chunk_name([tree.question.id for tree in trees])
        head = {"row": row.name, "drawing": mode.name, "chunk": chunk}
        lines = [json.dumps(head | tree.to_dict()) + "\n" for tree in trees]
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def finish(self, results: dict[str, Accuracy]) -> None:
        """Write the results."""
        numbers = {name: accuracy.to_dict() for name, accuracy in results.items()}
        write_json(self.path / "results.json", numbers)
        lines = [json.dumps(accuracy.outcomes_dict(name)) + "\n" for name, accuracy in results.items()]
        write_atomically(self.path / "outcomes.jsonl", "".join(lines))
        seconds = {name: accuracy.second for name, accuracy in results.items() if accuracy.second}
        if seconds:
            told = [json.dumps({"row": row} | one) + "\n" for row, two in seconds.items() for one in two.disagreements]
            write_atomically(self.path / "disagreements.jsonl", "".join(told))

    def _claim(self, settings: dict[str, Any], model: str) -> None:
        file = self.path / "settings.json"
        if not file.is_file():
            write_json(file, {"fingerprint": fingerprint(settings), "model": model, "settings": settings})
            return
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8"))["settings"])
        except (ValueError, KeyError, TypeError):
            raise RunFolderError(f"{file} does not belong to an evaluation: choose another --out") from None
        if changes := changed(before, settings):
            raise RunFolderError(
                f"{self.path} holds an evaluation with other {', '.join(changes)}: choose another --out"
            )

    def _restore(self) -> None:
        """Read the kept answers, and drop the chunks that are not complete."""
        total = 0
        for line in self._lines():
            total += 1
            with contextlib.suppress(ValueError, KeyError, TypeError):
                key, name, answers = _parse(line)
                self._chunks.setdefault(key, {})[name] = answers
        self._chunks = {key: answers for key, answers in self._chunks.items() if key[2] == _chunk_name(list(answers))}
        if total != sum(len(answers) for answers in self._chunks.values()):
            self._rewrite()

    def _rewrite(self) -> None:
        with replacing(self.file) as file:
            for line in self._lines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    if _parse(line)[0] in self._chunks:
                        file.write(line)

    def _lines(self) -> Iterator[bytes]:
        if self.file.is_file():
            with self.file.open("rb") as file:
                yield from file


def _parse(line: bytes) -> tuple[Key, str, list[GradedAnswer]]:
    if not line.endswith(b"\n"):
        raise ValueError("half a line")
    record = json.loads(line)
    return (record["row"], record["drawing"], record["chunk"]), *answers_of(record)


def _chunk_name(questions: Sequence[str]) -> str:
    """The name of a chunk: a hash of its questions' ids, in order."""
    return digest(name.encode() for name in questions)
