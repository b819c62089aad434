r"""Equal numbers: both sides are read as exact rationals, so 0.5, 1/2, .50 and \frac{1}{2} are the same answer.

`motif.grading.math` reads them, with one parser for both rules. Here an answer must be one number as it is written
down: digits, decimals, fractions, mixed numbers, powers of ten, words ("forty-two"), a name before it (`x = 5`) and a
unit after it. What has to be computed first is not a number.

Two rules are choices. A percent sign is ignored: 60% equals 60, not 0.6. A unit is ignored, too, and not compared. But
words that change the value count: 3 million is 3,000,000, and "2 pi" is not a number.
"""

from __future__ import annotations

from fractions import Fraction

from motif.grading.exact import canonical
from motif.grading.math.evaluate import exact
from motif.grading.math.expression import Node
from motif.grading.math.latex import clean
from motif.grading.math.quantity import LONGEST, plain_number
from motif.grading.math.read import read
from motif.grading.math.values import Chain, Named, Scalar, Value
from motif.grading.rule import Rule
from motif.grading.verdict import Grade


class Numeric(Rule):
    """Equal rationals."""

    name = "numeric"
    in_process = True

    def thorough(self, gold: str, prediction: str) -> Grade:
        """`ungraded` if the gold answer is not a number, `wrong` if the prediction is not."""
        wanted = number(gold)
        if wanted is None:
            return Grade("ungraded", f"the gold answer is not a number: {gold[:60]!r}")
        if len(prediction) > LONGEST:
            return Grade("wrong", f"too long for a number: {len(prediction)} characters")
        given = number(prediction)
        if given is None:
            return Grade("wrong", "not a number")
        return Grade("right" if given == wanted else "wrong")


def number(text: str) -> Fraction | None:
    """The exact value, or None if the text is not one number of at most 200 characters."""
    if len(text) > LONGEST:
        return None
    plain = plain_number(text)
    return _number(read(clean(canonical(text)))) if plain is None else plain


def _number(value: Value) -> Fraction | None:
    if isinstance(value, Named):
        value = value.value
    if isinstance(value, Chain) and not value.rounded:  # 3 x 4 = 12
        values = {_exact(part) for part in value.values}
        return _number(value.values[-1]) if len(values) == 1 else None
    return _exact(value) if isinstance(value, Scalar) and _is_written(value.node) else None


def _exact(value: Value) -> Fraction | None:
    try:
        return exact(value.node) if isinstance(value, Scalar) else None
    except ArithmeticError:
        return None


def _is_written(node: Node) -> bool:
    """Whether a tree is a number as it is written down: digits, a sign, a fraction."""
    if node[0] in ("neg", "/"):
        return all(part[0] == "n" or (part[0] == "neg" and part[1][0] == "n") for part in node[1:])
    return bool(node[0] == "n")
