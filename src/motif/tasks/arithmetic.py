"""Procedural arithmetic questions with a train and a test side that never share a pair of numbers."""

import hashlib

from motif.method.tree import Question

OPERATIONS = {"multiply": "×", "add": "+"}
TEMPLATE = "What is {a} {op} {b}?"
SPLITS = ("train", "test")
TEST_ONE_IN = 6
DRAWN_PAIRS = 20_000
LARGEST_ENUMERATED_DIGITS = 2


def questions(
    operation: str, digits: int, split: str, template: str = TEMPLATE, numbers: range | None = None
) -> list[Question]:
    """Return one side of the questions `What is a × b?` (or `a + b`) over numbers of exactly `digits` digits.

    `template` is the wording; `{a}`, `{b}` and `{op}` in it are replaced. `numbers`, where given, are the operands
    instead of those with `digits` digits, in every ordered pair.

    One and two digits give every ordered pair, more digits a fixed draw of 20,000 pairs; the order is a fixed
    shuffle, so a prefix is a random sample. Which side a pair is on does not depend on the order of its numbers.

    Raises ValueError if `operation`, `digits` or `split` is not an allowed value.
    """
    if operation not in OPERATIONS:
        raise ValueError(f"operation must be one of {', '.join(OPERATIONS)}, not {operation!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if isinstance(digits, bool) or not isinstance(digits, int) or digits < 1:
        raise ValueError(f"digits must be a whole number of at least 1, not {digits!r}")
    pairs = _pairs(digits) if numbers is None else [(first, second) for first in numbers for second in numbers]
    wanted = [pair for pair in pairs if _split_of(operation, *pair) == split]
    wanted.sort(key=lambda pair: _hash(f"order {operation} {pair[0]} {pair[1]}"))
    return [_question(operation, first, second, template) for first, second in wanted]


def _pairs(digits: int) -> list[tuple[int, int]]:
    low, high = 10 ** (digits - 1), 10**digits
    if digits <= LARGEST_ENUMERATED_DIGITS:
        return [(first, second) for first in range(low, high) for second in range(low, high)]
    drawn: dict[tuple[int, int], None] = {}
    counter = 0
    while len(drawn) < DRAWN_PAIRS:
        first, second = (low + _hash(f"draw {digits} {counter} {side}") % (high - low) for side in (0, 1))
        drawn[first, second] = None
        counter += 1
    return list(drawn)


def _split_of(operation: str, first: int, second: int) -> str:
    pair_hash = _hash(f"split {operation} {min(first, second)} {max(first, second)}")
    return "test" if pair_hash % TEST_ONE_IN == 0 else "train"


def _question(operation: str, first: int, second: int, template: str) -> Question:
    gold = first * second if operation == "multiply" else first + second
    text = template.replace("{a}", str(first)).replace("{op}", OPERATIONS[operation]).replace("{b}", str(second))
    return Question(id=f"{operation}-{first}-{second}", text=text, gold=str(gold))


def _hash(key: str) -> int:
    # 128 bits, so that taking it modulo even a nine-digit range stays uniform.
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big")
