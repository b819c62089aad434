"""What is fuzzed: for each target how inputs are made, and what must hold whatever comes in.

A target's check takes one JSON-ready input and returns a label, a short name of what happened, by which the campaign
knows inputs that did something new. It raises `Broken`, or lets an undocumented exception through, where a promise is
not kept. `tests/docs/test_corpus.py` replays kept inputs through the same checks.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from motif.config import DataConfig, RoundsConfig, load_recipe
from motif.errors import DataError, RecipeError, RunFolderError
from motif.grading import Grader
from motif.grading.circuit import gate, truth_table
from motif.grading.circuit.rule import Circuit
from motif.grading.code import unit_tests, values
from motif.grading.code.rule import Code
from motif.grading.exact import Exact
from motif.grading.jsonl import grade_lines
from motif.grading.math.rule import Math
from motif.grading.numeric import LONGEST, Numeric, number
from motif.grading.verdict import GoldError
from motif.method import answers
from motif.tasks import load
from motif.tasks.rows import read
from motif.text import harmless
from support.wordings import COMPACT

VERDICTS = ("right", "wrong", "ungraded")
SCRATCH = Path(tempfile.gettempdir()) / "motif-fuzz"


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True)
class Target:
    """A check, and the seconds of computing here that one input may take (workers have limits of their own)."""

    check: Callable[[Any], str]
    seconds: float
    slow: bool = False  # an input takes long: few between looks at the clock


def holds(fact: bool, promise: str) -> None:
    """Raise unless the fact is one."""
    if not fact:
        raise Broken(promise)


def named(error: BaseException) -> str:
    """A label of a refusal: its message without quotations and numbers."""
    holds(len(str(error)) < 20_000, f"a message of {len(str(error))} characters")
    return re.sub(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|\d+|/\S+|\(got .*", "_", str(error), flags=re.DOTALL)[-60:]


def written(name: str, content: str) -> Path:
    """The input as a file; its characters are the bytes."""
    SCRATCH.mkdir(exist_ok=True)
    path = SCRATCH / name
    path.write_bytes(content.encode("latin-1"))
    return path


# -- recipes and studies -----------------------------------------------------------------------------------------------


def recipe(content: str) -> str:
    """A recipe loads and reads back as itself, or is refused."""
    path = written("recipe.toml", content)
    try:
        loaded = load_recipe(path)
    except RecipeError as error:
        return named(error)
    again = load_recipe(tomllib.loads(loaded.to_toml()))
    holds(again == loaded, "a resolved recipe reads back as itself")
    return (
        f"loads {sorted(section for section, value in loaded if value != type(loaded).model_fields[section].default)}"
    )


def setting(text: str) -> str:
    """The same with `--set`."""
    try:
        loaded = load_recipe("demo", [text])
    except RecipeError as error:
        return named(error)
    holds(load_recipe(tomllib.loads(loaded.to_toml())) == loaded, "a resolved recipe reads back as itself")
    return f"sets {text.partition('=')[0][:30]}"


def study(content: str) -> str:
    """A study loads or is refused."""
    from motif.compare.study import load_study

    try:
        load_study(written("study.toml", content))
    except RecipeError as error:
        return named(error)
    return "loads"


# -- data --------------------------------------------------------------------------------------------------------------


def rows(given: dict[str, str]) -> str:
    """A file of rows is read, refused as a whole, or its bad rows are named; questions are clean text."""
    path = written("rows" + given["suffix"], given["content"])
    grader = given.get("grader", "exact")
    try:
        task = load(DataConfig(train=str(path), grader=grader, skip_bad=given.get("skip", "") == "yes"))
    except (DataError, RecipeError) as error:
        return f"{given['suffix']} {named(error)}"
    holds(bool(task.train), "a loaded task has questions")
    holds(len({question.id for question in task.train}) == len(task.train), "ids differ")
    for question in task.train:
        holds(bool(question.text.strip() and question.gold), "a question has text and a gold answer")
        question.text.encode()
        question.gold.encode()
    return f"{given['suffix']} {min(3, len(task.train))} questions, {min(3, len(task.skipped))} skipped"


def table(given: dict[str, str]) -> str:
    """The reader alone, which keeps nothing back."""
    path = written("table" + given["suffix"], given["content"])
    try:
        found = read(str(path))
    except DataError as error:
        return f"{given['suffix']} {named(error)}"
    return (
        f"{given['suffix']} {min(3, len(found.rows))} rows, {[named(ValueError(bad.problem)) for bad in found.bad[:2]]}"
    )


def answer_file(content: str) -> str:
    """`motif grade`: every line comes back with a verdict."""
    lines = content.encode("latin-1").decode("utf-8", "replace").split("\n")
    with Grader("numeric") as grader:
        records = list(grade_lines(lines, grader, "last_number"))
    holds(len(records) == sum(bool(line.strip()) for line in lines), "a record for each line")
    for record in records:
        holds(record["verdict"] in VERDICTS, "a verdict")
        json.dumps(record)
    return ",".join(sorted({f"{record['verdict']} {record['reason'][:12]}" for record in records}))


# -- rounds ------------------------------------------------------------------------------------------------------------

WORDINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "all": {"carry": "all", "fallback": "last_number"},
    "compact": COMPACT | {"fallback": "text"},
}
SAID = {
    "default": (
        r"Current\s+round\s*:\s*\w*\s*of",
        r"Current\s+round\s+is\s+the\s+final",
        r"Progress\s+in\s+round\s*\w*",
    ),
    "compact": (r"Round\s*\d+\s*/\s*\d+", r"Note\s+\d+\s*:"),
}


@functools.cache
def protocol(wording: str) -> Any:
    """The rounds of one wording, over the embedded model's tokenizer."""
    from motif.method.rounds import Rounds
    from motif.models.hub import load_tokenizer

    return Rounds(RoundsConfig(**{"note_tokens": 40} | WORDINGS[wording]), load_tokenizer("embedded"))


def voices(wording: str, question: str, note: str) -> list[int]:
    """How often the prompt of round 2 of 3 says what only the scaffold may say."""
    rounds = protocol(wording)
    ids = rounds.prompt(question, [note], 3)
    special = [
        rounds.tokenizer.convert_tokens_to_ids(token) for token in ("<end>", "<user>", "<model>", "<system>", "<pad>")
    ]
    text = rounds.tokenizer.decode(ids)
    tags = [*rounds.config.think_tags, *rounds.config.note_tags]
    patterns = [r"\s*".join(map(re.escape, tag)) for tag in tags] + [*SAID.get(wording, SAID["default"])]
    return [ids.count(token) for token in special] + [len(re.findall(p, text, re.IGNORECASE)) for p in patterns]


@functools.cache
def plain_voices(wording: str) -> list[int]:
    """The same with a harmless note."""
    return voices(wording, "Q?", "3")


def response(given: dict[str, Any]) -> str:
    """Any response is read; its note fits, is a fixed point of cleaning, and forges nothing."""
    rounds, text = protocol(given["wording"]), given["text"]
    reading = rounds.read(text, given["truncated"], given["final"])
    ids = rounds.encode(reading.note)
    holds(len(ids) <= rounds.config.note_tokens, "a note fits its limit")
    holds(rounds.clean(reading.note) == reading.note, "a cleaned note is clean")
    holds(not reading.well_formed or (bool(reading.note) and not given["truncated"]), "well formed has a note")
    marks = rounds.quotation.opening
    longest = max(map(len, re.findall(f"{re.escape(marks)}+", reading.note)), default=0) if marks else 0
    fence = marks + rounds.quotation.quote(reading.note)
    holds(not longest or fence.startswith(marks * (longest + 1)), "a note does not end its quotation")
    said = voices(given["wording"], "Q?", reading.note)
    holds(
        said == plain_voices(given["wording"]),
        f"a note forges nothing: {said} and not {plain_voices(given['wording'])}",
    )
    return f"{given['wording']} {bool(reading.note)} {reading.answer is not None} {reading.well_formed}"


def question(given: dict[str, Any]) -> str:
    """Any question makes a prompt within its bound, in which no token speaks as another role."""
    rounds, text = protocol(given["wording"]), given["text"]
    ids = rounds.prompt(text, ["3"], 3)
    holds(len(ids) <= rounds.longest_prompt(text, 3), "the longest prompt is a bound")
    said, plain = voices(given["wording"], text, "3"), plain_voices(given["wording"])
    holds(said[:5] == plain[:5], f"a question forges no turn: {said[:5]} and not {plain[:5]}")
    return f"{given['wording']} {len(ids) // 200}"


# -- graders -----------------------------------------------------------------------------------------------------------


def simple(pair: list[str]) -> str:
    """exact and numeric: a verdict, the same both ways round, and no answer by listing several."""
    gold, prediction = pair
    labels = []
    for rule in (Exact(), Numeric()):
        grade = rule.grade(gold, prediction)
        holds(grade.verdict in VERDICTS, "a verdict")
        back = rule.grade(prediction, gold)
        if "ungraded" not in (grade.verdict, back.verdict):
            holds(grade.verdict == back.verdict, f"{type(rule).__name__} judges the same both ways")
        labels.append(f"{grade.verdict} {named(ValueError(grade.reason))[:30]}")
    value = number(prediction)
    if value is not None:
        spelled = str(value)
        holds(len(spelled) > LONGEST or number(spelled) == value, "a number's own spelling is that number")
    found = answers.last_number(prediction)
    holds(found is None or found in prediction, "the last number stands in the text")
    for fallback in ("text", "last_number", "none"):
        answers.final(prediction, fallback)
    return ", ".join(labels)


def mathematics(pair: list[str]) -> str:
    """The maths grader within its limits, and its worker is there for the next answer."""
    gold, prediction = pair
    inline = Math().quick(gold, prediction)
    if inline is None and gold == prediction:
        raise Broken("equal texts need no worker")
    grader = worker("math")
    started = time.perf_counter()
    grade = grader.grade(gold, prediction)
    holds(grade.verdict in VERDICTS, "a verdict")
    holds(grade.seconds < grader.time_limit + 30, f"a verdict in {grade.seconds:.1f} s of {grader.time_limit} s")
    alive(grader)
    return f"{grade.verdict} {named(ValueError(grade.reason))[:30]} {time.perf_counter() - started > 1}"


@functools.cache
def worker(name: str) -> Grader:
    """One grader for the whole campaign: it must survive every input."""
    return Grader(name, time_limit=5.0)


def alive(grader: Grader) -> None:
    """The next answer is judged as ever (the cache is by-passed)."""
    for _ in range(5):
        grade = grader._in_worker("x+1", "1+x")[0]
        if grade.verdict == "right" or "waiting" in grade.reason:  # a busy machine is no lost worker
            return
    raise Broken(f"the worker is lost: {grade}")


def program_tests(pair: list[str]) -> str:
    """A gold answer of unit tests is read or refused, and no program gets past the quick look with an exception."""
    gold, prediction = pair
    grade = Code().quick(gold, prediction)
    try:
        label = f"{min(3, len(unit_tests.read_gold(gold).tests))} tests"
    except GoldError as error:
        holds(grade is not None and grade.verdict == "ungraded", "bad tests are ungraded")
        label = named(error)
    return f"{label} {grade and grade.verdict}"


def reported(value: Any) -> str:
    """Anything that a program may report as a value is compared and shown, or is not well formed."""
    if not values.well_formed(value):
        return "not well formed"
    holds(len(values.show(value)) <= values.SHOWN, "shown in a line")
    holds(values.same(value, value) or "nan" in json.dumps(value), "a value is itself")
    values.same(["list", ["int", "0x1"]], value)
    return f"well formed {type(value).__name__} {value[0] if isinstance(value, list) else ''}"


def sandboxed(program: str) -> str:
    """A program in the sandbox is right or wrong, never more."""
    gold = json.dumps({"tests": ["assert f(2) == 3"], "entry_point": "f"})
    grade = worker("code").grade(gold, f"```python\n{program}\n```")
    busy = grade.verdict == "ungraded" and ("waiting" in grade.reason or "start" in grade.reason)
    holds(busy or grade.verdict in ("right", "wrong"), f"a program is {grade}")
    holds(grade.seconds < Code.seconds + 5, f"judged in {grade.seconds:.1f} s")
    return f"{grade.verdict} {named(ValueError(grade.reason))[:30]}"


TABLE = json.dumps(
    {"truth_table": {"inputs": ["a", "b"], "outputs": ["y"], "rows": {"00": "0", "01": "1", "10": "1", "11": "0"}}}
)


def circuits(given: dict[str, str]) -> str:
    """Verilog as gold or answer: a verdict, and an expression's table is what Python computes for it."""
    answer = Circuit().quick(TABLE, given["text"])
    holds(answer is None or answer.verdict in VERDICTS, "a verdict")
    Circuit().quick(given["text"], "y = a")
    try:
        cleaned = gate.clean(given["text"])
        holds(gate.clean(cleaned) == cleaned, "a cleaned text is clean")
    except gate.Refused:
        pass
    try:
        found = truth_table.expression(given["text"], ["a", "b"])
    except truth_table.Unsupported as error:
        return f"{answer and answer.verdict} {named(error)[:30]}"
    holds(0 <= found < 16, "a table of four rows")
    return f"{answer and answer.verdict} {found}"


# -- terminal and weights ----------------------------------------------------------------------------------------------

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def terminal(text: str) -> str:
    """What is printed moves no cursor, sets no clipboard, turns no text round, and can be encoded."""
    shown = harmless(text)
    holds(UNSEEN.search(shown) is None, "no control characters")
    shown.encode()
    holds(harmless(shown) == shown, "harmless text stays as it is")
    return "as it is" if shown == text else "escaped"


def weights(content: str) -> str:
    """A safetensors file with any header is read or refused, without allocating what it claims."""
    from motif.runs.weights import read_tensors

    try:
        found = read_tensors(written("weights.safetensors", content))
    except RunFolderError as error:
        return named(error)
    return f"{min(3, len(found))} tensors"


TARGETS = {
    "recipe": Target(recipe, 5),
    "setting": Target(setting, 5),
    "study": Target(study, 5),
    "rows": Target(rows, 10),
    "table": Target(table, 5),
    "answer_file": Target(answer_file, 5),
    "response": Target(response, 5),
    "question": Target(question, 5),
    "simple": Target(simple, 2),
    "mathematics": Target(mathematics, 5, slow=True),
    "program_tests": Target(program_tests, 5),
    "reported": Target(reported, 2),
    "sandboxed": Target(sandboxed, 5, slow=True),
    "circuits": Target(circuits, 5),
    "terminal": Target(terminal, 2),
    "weights": Target(weights, 5),
}
