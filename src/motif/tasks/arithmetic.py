"""Products and sums of two whole numbers. Both orders of a pair are on the same side."""

from __future__ import annotations

from motif.config import ArithmeticConfig
from motif.method.tree import Question
from motif.tasks.procedural import ProceduralTask
from motif.tasks.splits import Split, hashed, split_of

SYMBOLS = {"multiply": "×", "add": "+"}
TEST_ONE_IN = 6
DRAWN_PAIRS = 20_000
MAX_ENUMERATED_DIGITS = 2


def questions(settings: ArithmeticConfig, split: Split) -> list[Question]:
    """The questions of one side, such as `What is 23 × 45?`, in a fixed random order."""
    operation = settings.operation
    pairs = [pair for pair in _pairs(settings) if _split_of(operation, *pair) == split]
    pairs.sort(key=lambda pair: hashed(f"order {operation} {pair[0]} {pair[1]}"))
    return [_question(settings, first, second) for first, second in pairs]


def _pairs(settings: ArithmeticConfig) -> list[tuple[int, int]]:
    """Every ordered pair of operands, or a fixed draw of 20,000 if they have more than two digits."""
    digits = settings.digits
    low, high = 10 ** (digits - 1), 10**digits
    if settings.largest or digits <= MAX_ENUMERATED_DIGITS:
        operands = range(settings.smallest, settings.largest + 1) if settings.largest else range(low, high)
        return [(first, second) for first in operands for second in operands]
    drawn: dict[tuple[int, int], None] = {}
    counter = 0
    while len(drawn) < DRAWN_PAIRS:
        first, second = (low + hashed(f"draw {digits} {counter} {place}") % (high - low) for place in (0, 1))
        drawn[first, second] = None
        counter += 1
    return list(drawn)


def _split_of(operation: str, first: int, second: int) -> Split:
    return split_of(f"{operation} {min(first, second)} {max(first, second)}", TEST_ONE_IN)


def _question(settings: ArithmeticConfig, first: int, second: int) -> Question:
    operation = settings.operation
    gold = first * second if operation == "multiply" else first + second
    text = settings.template.replace("{a}", str(first)).replace("{op}", SYMBOLS[operation]).replace("{b}", str(second))
    return Question(id=f"{operation}-{first}-{second}", text=text, gold=str(gold))


TASK = ProceduralTask("numeric", lambda data, split: questions(data.arithmetic, split))
