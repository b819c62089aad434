"""What each pair of types may count as equal: `RULES` is the table of docs/grading.md, and nothing else is equal.

A pair of types that is not in the table is different. Every rule takes the gold's value first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from motif.grading.math import region
from motif.grading.math.evaluate import Undefined, exact, points, same, value_at
from motif.grading.math.expression import Node, Unreadable, letters, parse
from motif.grading.math.values import (
    Chain,
    Choice,
    Choices,
    Date,
    Equation,
    Listing,
    Matrix,
    Named,
    Numeral,
    Pattern,
    Qualified,
    Range,
    Ratio,
    Region,
    Relation,
    Scalar,
    Set,
    System,
    Time,
    Tuple,
    Value,
    Words,
)  # fmt: skip

HUNDRED: Node = ("n", Fraction(100), 0)


def equal(gold: Value, given: Value) -> bool:
    """Whether the answer means what the gold answer means."""
    rule = RULES.get((type(gold), type(given)))
    if rule is None:
        rule = next((RULES[pair] for pair in ((type(gold), Any), (Any, type(given))) if pair in RULES), None)
    try:
        return bool(rule and rule(gold, given))
    except (Unreadable, Undefined, RecursionError):
        return False


def _scalars(gold: Scalar, given: Scalar) -> bool:
    units = {gold.unit, given.unit} - {""}
    if gold.unit != given.unit and "%" in units and len(units) == 1:
        percent, plain = (gold, given) if gold.unit else (given, gold)
        if _same_value(percent.node, ("*", HUNDRED, plain.node)):
            return True
        whole = percent is gold or abs(exact(plain.node) or Fraction(0)) >= 1
        return whole and same(gold.node, given.node)
    if len(units) > 1 and not _same_things(gold.unit, given.unit):
        return False
    if same(gold.node, given.node):
        return True
    # A letter alone may name an option: c is C.
    lone = gold.node[0] == given.node[0] == "s" and len(gold.node[1]) == 1
    return lone and gold.node[1].casefold() == given.node[1].casefold() and gold.node[1].casefold() in "abcd"


def _same_value(one: Node, other: Node) -> bool:
    values = exact(one), exact(other)
    return values[0] == values[1] if None not in values else same(one, other)


def _same_things(gold: str, given: str) -> bool:
    """Whether two names of things differ only in what is said beside the thing (right triangles), or are pounds."""
    if "pound" in (gold, given):
        return {gold, given} <= {"pound", "lb", "£"}
    return (
        gold.isascii() and min(len(gold), len(given)) > 3 and (gold.endswith(f" {given}") or given.endswith(f" {gold}"))
    )


def _numeral_as_number(gold: Numeral, given: Scalar) -> bool:
    value = exact(given.node) if not given.unit and given.literal else None
    return value is not None and str(value) == gold.digits


def _number_as_numeral(gold: Scalar, given: Numeral) -> bool:
    return given.base == 10 and exact(gold.node) == Fraction(given.digits)


def _in_order(gold: Sequence[Value], given: Sequence[Value]) -> bool:
    return len(gold) == len(given) and all(map(equal, gold, given))


def _in_any_order(gold: Sequence[Value], given: Sequence[Value]) -> bool:
    if len(gold) != len(given):
        return False
    left = list(given)
    for item in gold:
        found = next((index for index, other in enumerate(left) if equal(item, other)), None)
        if found is None:
            return False
        del left[found]
    return True


def _lists(gold: Listing, given: Listing) -> bool:
    # Three and more words in a row are in an order that somebody asked for.
    ordered = len(gold.items) > 2 and all(isinstance(item, Words) for item in gold.items)
    return (_in_order if ordered else _in_any_order)(gold.items, given.items)


def _sets(gold: Set, given: Set) -> bool:
    covered = all(any(equal(item, other) for other in given.items) for item in gold.items)
    return covered and all(any(equal(item, other) for item in gold.items) for other in given.items)


def _tuples(gold: Tuple, given: Tuple) -> bool:
    # (0,1) and [0,1] may be intervals.
    if {gold.brackets, given.brackets} == {"()", "[]"} and len(gold.items) == 2:
        return False
    return _in_order(gold.items, given.items)


def _region_of(value: Value) -> Node | None:
    """The condition of a set, a pair or a set of numbers that can be read as a set of numbers."""
    if isinstance(value, Region):
        return value.condition
    if isinstance(value, Tuple) and len(value.items) == 2 and value.brackets in ("()", "[]"):
        ends = [item.node for item in value.items if isinstance(item, Scalar) and not item.unit]
        if len(ends) == 2:
            low, high = (">", "<") if value.brackets == "()" else (r"\ge", r"\le")
            return ("and", (low, ends[0]), (high, ends[1]))
    if isinstance(value, Set):
        nodes = [item.node for item in value.items if isinstance(item, Scalar) and not item.unit]
        return ("or", *(("=", node) for node in nodes)) if len(nodes) == len(value.items) else None
    return None


def _regions(gold: Value, given: Value) -> bool:
    names = {one.variable for one in (gold, given) if isinstance(one, Region)} - {""}
    one, other = _region_of(gold), _region_of(given)
    if one is None or other is None or len(names) > 1:
        return False
    # (5,-3) is a point, not an empty interval.
    is_point = any(isinstance(side, Tuple) for side in (gold, given)) and region.same_condition(one, region.EMPTY)
    return not is_point and region.same_condition(one, other)


def _matrices(gold: Matrix, given: Matrix) -> bool:
    return len(gold.rows) == len(given.rows) and all(map(_in_order, gold.rows, given.rows))


def _vector(matrix: Matrix) -> Sequence[Value]:
    if len(matrix.rows) == 1:
        return matrix.rows[0]
    return [row[0] for row in matrix.rows] if len(matrix.rows[0]) == 1 else ()


def _proportional(one: Node, other: Node, positive: bool = False) -> bool:
    """Whether two trees with the same letters differ only by a constant factor that is not zero."""
    if letters(one) != letters(other) or not letters(one):
        return False
    factor, agreed = None, 0
    for point in points(sorted(letters(one))):
        try:
            values = [value_at(node, point) for node in (one, other)]
        except Undefined:
            continue
        if abs(values[0]) < 1e-30 or abs(values[1]) < 1e-30:
            return False
        quotient = values[0] / values[1]
        if factor is not None and abs(quotient - factor) > abs(factor) * 1e-30:
            return False
        factor, agreed = quotient, agreed + 1
    return agreed > 1 and (not positive or bool(factor.imag == 0 and factor.real > 0))  # type: ignore[union-attr]


def _equations(gold: Equation, given: Equation) -> bool:
    return _proportional(_difference(gold.left, gold.right), _difference(given.left, given.right))


def _difference(left: Node, right: Node) -> Node:
    return ("+", left, ("neg", right))


def _as_equation(value: Named) -> Equation | None:
    is_simple = value.left is not None and isinstance(value.value, Scalar) and not value.value.unit
    return Equation(value.left, value.value.node) if is_simple else None  # type: ignore[arg-type, union-attr]


def _named_as_equation(gold: Value, given: Value) -> bool:
    one, other = (_as_equation(side) if isinstance(side, Named) else side for side in (gold, given))
    return isinstance(one, Equation) and isinstance(other, Equation) and _equations(one, other)


def _names(gold: Named, given: Named) -> bool:
    if gold.name == given.name or (gold.plain != given.plain and not given.plain):
        return equal(gold.value, given.value)
    if not equal(gold.value, given.value):
        return _named_as_equation(gold, given)
    # y = 2x and f(x) = 2x are one function, but y = 5 and x = 5 are not one number.
    if gold.name.casefold() == given.name.casefold():
        return True
    function = any(one.name == "y" or (one.left or "s")[0] in ("call", "*") for one in (gold, given))
    return function and isinstance(gold.value, Scalar) and bool(letters(gold.value.node) - {gold.name, given.name})


def _value_of_name(gold: Named, given: Value) -> bool:
    return gold.plain and equal(gold.value, given)


def _system_in_order(gold: System, given: Tuple | Listing) -> bool:
    return _in_order([value for _, value in gold.parts], given.items)


def _solutions(gold: Listing, given: System) -> bool:
    """`x_1 = 2, x_2 = 3` are the values 2 and 3 of one letter."""
    stems = {name.partition("_")[0] for name, _ in given.parts}
    values = [value for _, value in given.parts]
    return len(stems) == 1 and _in_any_order(gold.items, values)


def _rows(gold: Matrix, given: Tuple) -> bool:
    if _in_order(_vector(gold), given.items):
        return True
    rows = [item.items for item in given.items if isinstance(item, Tuple) and item.brackets == given.brackets]
    return len(rows) == len(given.items) == len(gold.rows) and all(map(_in_order, gold.rows, rows))


def _systems(gold: System, given: System) -> bool:
    parts = dict(given.parts)
    return len(gold.parts) == len(parts) and all(
        name in parts and equal(value, parts[name]) for name, value in gold.parts
    )


def _all_equal(gold: Value, given: Chain) -> bool:
    if not given.rounded:
        return all(equal(gold, value) for value in given.values)
    first = given.values[0]
    counted = given.values[:1] if isinstance(first, Scalar) and first.literal and first.node[2] else given.values
    return any(equal(gold, value) for value in counted) and _rounds(given.values)


def _rounds(values: Sequence[Value]) -> bool:
    """Whether each number is the first one, or its rounding."""
    if not all(isinstance(value, Scalar) for value in values):
        return False
    first = values[0].node  # type: ignore[union-attr]
    for value in values[1:]:
        node = value.node  # type: ignore[union-attr]
        gap = abs(value_at(_difference(first, node), {}))
        if not (same(first, node) or (node[0] == "n" and gap <= 0.51 * 10.0 ** -node[2])):
            return False
    return True


def _times(gold: Time, given: Time) -> bool:
    if (gold.half and given.half) or not (gold.half or given.half):
        return _clock(gold) == _clock(given)
    if _clock(gold) == _clock(given):
        return True
    return (gold.hour, gold.minute, gold.second) == (given.hour, given.minute, given.second)


def _clock(time: Time) -> tuple[int, int, int]:
    hour = time.hour % 12 + 12 * (time.half == "pm") if time.half else time.hour
    return hour, time.minute, time.second


def _dates(gold: Date, given: Date) -> bool:
    years = {gold.year, given.year} - {0}
    return (gold.month, gold.day) == (given.month, given.day) and (len(years) < 2)


def _time_as_ratio(time: Time, ratio: Ratio) -> bool:
    values = [exact(part) for part in ratio.parts]
    return not time.half and values == [time.hour, time.minute, *([time.second] if len(values) == 3 else [])]


def _ratios(gold: Ratio, given: Ratio) -> bool:
    if len(gold.parts) != len(given.parts):
        return False
    if all(map(same, gold.parts, given.parts)):
        return True
    first, second = gold.parts[0], given.parts[0]
    return all(
        same(("*", one, second), ("*", other, first)) for one, other in zip(gold.parts, given.parts, strict=True)
    )


def _ratio_as_fraction(ratio: Ratio, fraction: Scalar) -> bool:
    whole = (exact(fraction.node) or Fraction(1)).denominator == 1
    return len(ratio.parts) == 2 and not fraction.unit and not whole and same(("/", *ratio.parts), fraction.node)


def _range_as_ratio(gold: Range, given: Ratio) -> bool:
    return given.with_to and [exact(part) for part in given.parts] == [gold.low, gold.high]


def _choices(gold: Choice, given: Choice) -> bool:
    same_text = gold.text is None or given.text is None or equal(gold.text, given.text)
    return gold.letter == given.letter and same_text


def _word_of_choices(gold: Words, given: Choices) -> bool:
    return len(gold.words) == 1 and gold.words[0].upper() == "".join(given.letters)


def _word_as_product(word: Words, product: Scalar) -> bool:
    """Letters side by side are a product, if the other side shows it: xy and y x."""
    text = word.words[0] if len(word.words) == 1 else ""
    if not re.fullmatch("[A-Za-z]{2,4}", text) or product.unit or product.literal:
        return False
    return same(parse(" ".join(text)), product.node)


def _qualified(gold: Qualified, given: Qualified) -> bool:
    if gold.domain and given.domain and gold.domain != given.domain:
        return False
    if len(gold.letters) == len(given.letters) == 1 and gold.letters != given.letters:
        (old,), (new,) = given.letters, gold.letters
        return equal(gold.value, renamed(given.value, old, new))
    return equal(gold.value, given.value)


def renamed(value: Any, old: str, new: str) -> Any:
    """A value with a letter in its expressions replaced."""
    if isinstance(value, Scalar):
        return Scalar(_renamed(value.node, old, new), value.unit)
    if isinstance(value, Named):
        return Named(value.name, renamed(value.value, old, new), value.plain)
    if isinstance(value, (Listing, Set)):
        return type(value)(tuple(renamed(item, old, new) for item in value.items))
    return value


def _renamed(node: Node, old: str, new: str) -> Node:
    if node == ("s", old):
        return ("s", new)
    return tuple(_renamed(part, old, new) if isinstance(part, tuple) else part for part in node)


def _words(gold: Words, given: Words) -> bool:
    return gold.words in (given.words, given.said)


def _one(items: Set, single: Value) -> bool:
    return len(items.items) == 1 and equal(items.items[0], single)


def _relations(gold: Relation, given: Relation) -> bool:
    return gold.strict == given.strict and _proportional(gold.difference, given.difference, positive=True)


def _swapped(rule: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda gold, given: rule(given, gold)


RULES: dict[tuple[Any, Any], Callable[[Any, Any], bool]] = {
    (Scalar, Scalar): _scalars,
    (Numeral, Numeral): lambda gold, given: gold == given,
    (Numeral, Scalar): _numeral_as_number,
    (Scalar, Numeral): _number_as_numeral,
    (Tuple, Tuple): _tuples,
    (Tuple, Listing): lambda gold, given: gold.brackets != "[]" and _in_order(gold.items, given.items),
    (Listing, Tuple): lambda gold, given: _in_order(gold.items, given.items),
    (Tuple, Region): _regions,
    (Region, Tuple): _regions,
    (Region, Region): _regions,
    (Region, Set): _regions,
    (Listing, Region): lambda gold, given: _regions(Set(gold.items), given),
    (Set, Region): _regions,
    (Set, Set): _sets,
    (Listing, System): _solutions,
    (Set, System): lambda gold, given: _solutions(Listing(gold.items), given),
    (Set, Listing): lambda gold, given: _sets(gold, Set(given.items)) and len(given.items) == len(gold.items),
    (Listing, Set): lambda gold, given: _sets(Set(gold.items), given),
    (Set, Scalar): _one,
    (Scalar, Set): _swapped(_one),
    (Set, Tuple): _one,
    (Listing, Listing): _lists,
    (Matrix, Matrix): _matrices,
    (Matrix, Tuple): _rows,
    (Tuple, Matrix): lambda gold, given: _in_order(gold.items, _vector(given)),
    (Equation, Equation): _equations,
    (Equation, Named): _named_as_equation,
    (Named, Equation): _named_as_equation,
    (Relation, Relation): _relations,
    (Named, Named): _names,
    (System, System): _systems,
    (System, Tuple): _system_in_order,
    (System, Listing): _system_in_order,
    (Tuple, System): lambda gold, given: _in_order(gold.items, [value for _, value in given.parts]),
    (Date, Date): _dates,
    (Time, Time): _times,
    (Time, Ratio): _time_as_ratio,
    (Ratio, Time): _swapped(_time_as_ratio),
    (Ratio, Ratio): _ratios,
    (Ratio, Scalar): _ratio_as_fraction,
    (Scalar, Ratio): _swapped(_ratio_as_fraction),
    (Range, Range): lambda gold, given: gold == given,
    (Range, Ratio): _range_as_ratio,
    (Ratio, Range): _swapped(_range_as_ratio),
    (Choice, Choice): _choices,
    (Choice, Scalar): lambda gold, given: (
        equal(gold.text, given) if gold.text is not None else given.node == ("s", gold.letter.lower())
    ),
    (Scalar, Choice): lambda gold, given: (
        equal(gold, given.text) if given.text is not None else gold.node == ("s", given.letter.lower())
    ),
    (Choice, Any): lambda gold, given: gold.text is not None and equal(gold.text, given),
    (Any, Choice): lambda gold, given: given.text is not None and equal(gold, given.text),
    (Choices, Choices): lambda gold, given: sorted(gold.letters) == sorted(given.letters),
    (Words, Choices): _word_of_choices,
    (Pattern, Pattern): lambda gold, given: gold == given,
    (Qualified, Qualified): _qualified,
    (Qualified, Any): lambda gold, given: equal(gold.value, given),
    (Any, Qualified): lambda gold, given: equal(gold, given.value),
    (Named, Any): _value_of_name,
    (Any, Named): lambda gold, given: equal(gold, given.value),
    (Chain, Chain): lambda gold, given: all(_all_equal(value, given) for value in gold.values),
    (Chain, Any): lambda gold, given: any(equal(value, given) for value in gold.values),
    (Words, Scalar): _word_as_product,
    (Scalar, Words): lambda gold, given: _word_as_product(given, gold),
    (Any, Chain): _all_equal,
    (Words, Words): _words,
}
