"""Answers are read whole into typed values: neighbours of old faults, equal and different values of each type."""

from __future__ import annotations

import json
import re
import time
from datetime import date
from fractions import Fraction
from typing import Any

import answers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motif.grading.math import compare, values
from motif.grading.math.latex import clean
from motif.grading.math.read import read
from motif.grading.math.rule import Math
from motif.grading.math.words import spelled_number, unit
from motif.grading.numeric import number
from support import ROOT

MATH = Math()
CASES = [
    line.split("\t") for line in (ROOT / "tests/cases/math_values.tsv").read_text(encoding="utf-8").splitlines()[1:]
]


def right(gold: str, answer: str) -> bool:
    return MATH.grade(gold, answer).verdict == "right"


def test_neighbours_of_faults():
    assert len(CASES) > 600
    assert [case for case in CASES if MATH.grade(case[1], case[2]).verdict != case[0]] == []


def test_every_case_is_the_same_in_a_box_and_between_dollars():
    for want, gold, answer in CASES:
        if "$" not in answer and "`" not in answer and not answer.endswith("\\"):
            assert right(gold, f"${answer}$") == (want == "right"), (gold, answer)


def test_the_campaign_meets_its_bars_and_the_table_shows_it():
    found = answers.count()
    assert found["kinds"] == json.loads((ROOT / "docs/performance/answers.json").read_text(encoding="utf-8"))
    rows = found["kinds"].values()
    wrong, refused = ([row for row in rows if row["want"] == want] for want in ("wrong", "right"))
    assert sum(row["of_math"] for row in wrong) >= 1_444
    assert sum(row["of_math"] for row in refused) >= 440
    assert sum(row["math"] + row["numeric"] for row in wrong) <= 10
    assert sum(row["math"] + row["numeric"] for row in refused) <= 5
    assert found["slowest"] < 2  # hanging answers, too


def test_the_table_of_types_is_that_of_the_code():
    page = (ROOT / "docs" / "grading.md").read_text(encoding="utf-8")
    table = page[page.index("| gold | answer | equal if |") :]
    rows = re.findall(r"^\| (\w+) \| (\w+) \| .+ \|$", table[: table.index("\n\n")], re.MULTILINE)[1:]
    names = {name.__name__.lower(): name for name in values.Value.__args__} | {"any": Any}
    assert {(names[gold], names[answer]) for gold, answer in rows} == set(compare.RULES)


def test_different_types_are_different_unless_the_table_says_so():
    examples = [
        "3", "x+1", "1011_2", "(1,2,3)", r"\{1,2\}", "4, 5", "x > 2", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "x^2=y",
        "x+y<5", "x=9", "x=1,y=2", "2023-05-01", "3:45 pm", "2:7", "10-15", "C", "ABD", r"1, 2, \ldots", "parallel",
    ]  # fmt: skip
    found = [read(clean(example)) for example in examples]
    assert len({type(value) for value in found}) >= 17
    for one in found:
        assert [other for other in found if compare.equal(one, other)] == [one]


whole = st.integers(-(10**9), 10**9)
small = st.integers(-50, 50)
fractions = st.fractions(min_value=-1000, max_value=1000, max_denominator=999)
days = st.dates(min_value=date(1800, 1, 1))
letters = st.lists(st.sampled_from("ABCDEFGHIJ"), min_size=2, max_size=6, unique=True)


def latex(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    top, under = abs(value.numerator), value.denominator
    return f"{sign}{top}" if under == 1 else rf"{sign}\frac{{{top}}}{{{under}}}"


def decimal(value: Fraction) -> str:
    """Exactly, with a bar over what is repeated."""
    left, digits, seen = abs(value) % 1, "", {}
    while left and left not in seen:
        seen[left] = len(digits)
        left *= 10
        digits += str(int(left))
        left %= 1
    repeated = rf"{digits[: seen[left]]}\overline{{{digits[seen[left] :]}}}" if left else digits
    return f"{'-' if value < 0 else ''}{int(abs(value))}.{repeated or 0}"


def number_spellings(value: Fraction) -> list[str]:
    written = [
        latex(value),
        rf"\text{{{latex(value)}}}",
        f"x = {latex(value)}",
        rf"\({latex(value)}\)",
        f"({latex(value)})",
    ]
    written += [
        latex(value).replace("frac", "dfrac"),
        f"{value.numerator}/{value.denominator}",
        rf"\boxed{{{latex(value)}}}",
    ]
    if value.denominator < 60:
        written.append(decimal(value))
    if value.denominator == 1:
        written += [f"{value.numerator:,}", f"{value.numerator}.0", rf"{value.numerator}\text{{ apples}}"]
    whole_part, rest = divmod(abs(value), 1)
    if whole_part and rest and value > 0:
        written.append(f"{whole_part}{latex(rest)}")
    return written


@given(fractions, st.data())
def test_numbers(value, data):
    written = data.draw(st.sampled_from(number_spellings(value)))
    assert right(latex(value), written)
    assert number(written) == value
    other = data.draw(fractions.filter(lambda other: other != value))
    assert not right(latex(value), data.draw(st.sampled_from(number_spellings(other))))


@given(st.integers(1, 10**6), st.sampled_from(["cm", "kg", "dollars", "hours", "m/s", "apples", "₹", "米", "%"]))
def test_units(value, name):
    assert right(f"{value}", rf"{value} \text{{ {name}}}")
    assert right(rf"{value}\text{{ {name}}}", f"{value} {name}")
    assert not right(rf"{value}\text{{ {name}}}", f"{value} miles")
    assert not right(f"{value}", f"{value + 1} {name}")


def product(roots: list[int]) -> str:
    return "".join(f"(x {'-' if root >= 0 else '+'} {abs(root)})" for root in roots)


def expanded(roots: list[int], letter: str = "x") -> str:
    coefficients = [1]
    for root in roots:
        coefficients = [a - root * b for a, b in zip([*coefficients, 0], [0, *coefficients], strict=True)]
    degree = len(roots)
    return " + ".join(f"({c}) {letter}^{{{degree - index}}}" for index, c in enumerate(coefficients))


@settings(max_examples=50)
@given(st.lists(small, min_size=1, max_size=4), st.lists(small, min_size=1, max_size=4))
def test_expressions(roots, others):
    assert right(product(roots), expanded(roots))
    assert right(product(roots), product(roots[::-1]))
    assert not right(product(roots), expanded(roots, "y"))
    if sorted(roots) != sorted(others):
        assert not right(product(roots), expanded(others))


@settings(max_examples=50)
@given(st.lists(fractions, min_size=2, max_size=5), st.data())
def test_tuples_sets_and_lists(items, data):
    order = data.draw(st.permutations(items))
    written = ", ".join(map(latex, order))
    gold = ", ".join(map(latex, items))
    assert right(f"({gold})", f"({gold})".replace("frac", "dfrac"))
    assert right(f"({gold})", f"({written})") == (order == items)
    assert right(rf"\{{{gold}\}}", rf"\{{{written}\}}") and right(f"{gold} ", written)
    assert not right(rf"\{{{gold}\}}", f"({gold})")
    extra = data.draw(fractions.filter(lambda other: other not in items))
    assert not right(rf"\{{{gold}\}}", rf"\{{{written}, {latex(extra)}\}}")
    assert not right(f"{gold} ", f"{written}, {latex(extra)}") and not right(f"({gold})", f"({gold}, {latex(extra)})")
    assert not right(f"{gold} ", latex(items[0]))


@settings(max_examples=50)
@given(small, st.integers(1, 9), st.sampled_from(["()", "[]", "(]", "[)"]), st.sampled_from(["()", "[]", "(]", "[)"]))
def test_intervals(low, width, ends, others):
    high = low + width
    signs = {"(": "<", "[": r"\le", ")": "<", "]": r"\le"}
    spellings = [
        f"{ends[0]}{low}, {high}{ends[1]}",
        f"{'[' if ends[0] == '[' else ']'}{low}; {high}{']' if ends[1] == ']' else '['}",
        f"{low} {signs[ends[0]]} x {signs[ends[1]]} {high}",
        rf"\{{x \mid {low} {signs[ends[0]]} x {signs[ends[1]]} {high}\}}",
        rf"x {signs[ends[1]]} {high} \text{{ and }} {low} {signs[ends[0]]} x",
    ]
    gold = f"{ends[0]}{low},{high}{ends[1]}"
    for spelling in spellings:
        assert right(gold, spelling), spelling
        assert right(f"{others[0]}{low},{high}{others[1]}", spelling) == (ends == others), spelling
        assert not right(f"{ends[0]}{low},{high + 1}{ends[1]}", spelling), spelling


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), small, st.integers(-9, 9).filter(bool), st.integers(1, 9))
def test_equations_up_to_a_factor(a, b, c, factor, shift):
    gold = f"{a}x + {b}y = {c}"
    assert right(gold, f"{a * factor}x + {b * factor}y = {c * factor}".replace("+ -", "- "))
    assert right(gold, f"{a}x + {b}y - ({c}) = 0")
    assert not right(gold, f"{a}x + {b}y = {c + shift}")
    assert not right(gold, f"{a + shift}x + {b}y = {c}")
    assert not right(gold, str(c)) and not right(str(c), f"{a + 1}x = {c}")


@settings(max_examples=50)
@given(small, small)
def test_named_values_bring_their_order(x, y):
    gold = f"x={x}, y={y}"
    assert right(gold, f"({x}, {y})") and right(gold, rf"y = {y} \text{{ and }} x = {x}") and right(f"({x}, {y})", gold)
    assert right(gold, f"({y}, {x})") == (x == y)
    assert right(gold, f"x={y}, y={x}") == (x == y)


@given(letters)
def test_letters_are_options_in_order_and_text_otherwise(chosen):
    word, ordered = "".join(chosen), "".join(sorted(chosen))
    if len(word) > 2:
        assert right(ordered, word) == (word == ordered)
        assert right(word, ", ".join(ordered)) == (word == ordered)
    assert right(ordered, ", ".join(chosen)) and right(word, ", ".join(chosen))
    assert not right(ordered, ordered[:-1]) and not right(ordered[0], word)


@settings(max_examples=50)
@given(days, days)
def test_dates(day, other):
    assert right(day.isoformat(), f"{day:%B} {day.day}, {day.year}") and right(
        day.isoformat(), f"{day.day} {day:%b} {day.year}"
    )
    assert right(day.isoformat(), other.isoformat()) == (day == other)
    assert not right(day.isoformat(), str(day.year - day.month - day.day))


@settings(max_examples=50)
@given(st.lists(st.lists(fractions, min_size=2, max_size=2), min_size=2, max_size=3), st.data())
def test_matrices(rows, data):
    def written(kind: str, cells: list[list[Fraction]]) -> str:
        return rf"\begin{{{kind}}}" + r" \\ ".join(" & ".join(map(latex, row)) for row in cells) + rf"\end{{{kind}}}"

    gold = written("pmatrix", rows)
    assert right(gold, written("bmatrix", rows)) and right(gold, "A = " + gold)
    other = [list(row) for row in rows]
    other[data.draw(st.integers(0, len(rows) - 1))][data.draw(st.integers(0, 1))] += 1
    assert not right(gold, written("pmatrix", other)) and not right(gold, latex(rows[0][0]))
    if len(rows) == 2 and rows[0][1] != rows[1][0]:
        assert not right(gold, written("pmatrix", [list(column) for column in zip(*rows, strict=True)]))


@settings(max_examples=50)
@given(st.integers(25, 99), st.integers(2, 99), st.integers(2, 9))
def test_ratios(a, b, factor):
    assert right(f"{a}:{b}", f"{a} : {b}") and right(f"{a}:{b}", rf"{a} \text{{ to }} {b}")
    assert right(f"{a}:{b}", f"{a * factor}:{b * factor}")
    assert right(f"{a}:{b}", f"{b}:{a}") == (a == b)
    assert not right(f"{a}:{b}", f"{a}:{b + 1}") and not right(f"{a}:{b}", f"{a}:{b}:{b}")


@given(st.times(), st.times())
def test_times(time_, other):
    gold = f"{time_:%H:%M}"
    assert right(gold, f"{time_.hour}:{time_:%M}")
    assert right(gold, f"{time_.hour % 12 or 12}:{time_:%M} {time_:%p}")
    assert right(gold, f"{other:%H:%M}") == (f"{other:%H:%M}" == gold)
    if time_.minute:
        assert not right(gold, rf"\frac{{{time_.hour}}}{{{time_.minute}}}")


@given(st.integers(2, 16), st.integers(17, 10**6), st.integers(2, 16))
def test_numerals(base, value, other):
    digits, left = "", value
    while left:
        left, digit = divmod(left, base)
        digits = "0123456789ABCDEF"[digit] + digits
    gold = f"{digits}_{{{base}}}"
    if digits[0].isdigit() or len(digits) > 1:
        assert right(gold, rf"({digits})_{{\text{{{in_words(base)}}}}}") and right(gold, f"{digits} in base {base}")
        assert right(gold, f"{digits}_{{{other}}}") == (base == other)
        assert not right(gold, f"{digits}1_{{{base}}}")
    assert not right(str(value), gold) or base == 10


@given(st.sampled_from("ABCDEFGHIJ"), st.sampled_from("ABCDEFGHIJ"), fractions)
def test_choices_with_their_texts(letter, other, value):
    forms = (
        "{c}",
        "({c})",
        "{c}.",
        "{c})",
        r"\text{{{c}}}",
        r"\textbf{{({c})}}\ {v}",
        "({c}) {v}",
        "Option {c}",
        "{c}. {v}",
    )
    for form in forms:
        answer = form.format(c=letter, v=latex(value))
        assert right(letter, answer), answer
        assert right(f"({other}) {latex(value)}", answer) == (letter == other), answer
        assert right(letter, form.format(c=other, v=latex(value))) == (letter == other), answer
    assert not right(letter, f"({letter}) or ({'A' if letter != 'A' else 'B'})")


@given(st.integers(0, 10**9 - 1))
def test_numbers_in_words(value):
    assert spelled_number(in_words(value)) == value


def in_words(value: int) -> str:
    small = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
    )
    small += "seventeen eighteen nineteen".split()
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= size:
            rest = f" and {in_words(value % size)}" if value % size and name == "hundred" else (
                f" {in_words(value % size)}" if value % size else "")  # fmt: skip
            return f"{in_words(value // size)} {name}{rest}"
    if value >= 20:
        return tens[value // 10 - 2] + (f"-{small[value % 10]}" if value % 10 else "")
    return small[value]


@pytest.mark.parametrize(
    "words", ["km/h", "miles per hour", "m s^-1", "right triangles", "dollars per day", "сек", "кг"]
)
def test_units_are_units(words):
    assert unit(words)


@pytest.mark.parametrize(
    "words", ["millions", "times six", "less", "below zero", "is wrong", "maybe six", "不", "half", ""]
)
def test_other_words_are_no_units(words):
    assert not unit(words)


@settings(max_examples=300)
@given(st.text(alphabet=r"\{}()[],.;:=<>+-*/^_!|&$%~ 0123xyAB", max_size=60))
def test_any_text_is_read_quickly_and_equals_itself(text):
    started = time.process_time()
    value = read(clean(text))
    assert isinstance(value, values.Value)
    compare.equal(value, value)
    assert time.process_time() - started < 2


def test_the_callers_process_evaluates_no_expression(monkeypatch):
    """mpmath has one precision for a whole process, and graders are used from several threads."""
    monkeypatch.setattr("motif.grading.math.evaluate._mpmath", lambda: pytest.fail("evaluated"))
    open_questions = sum(MATH.quick(gold, answer) is None for _, gold, answer in CASES)
    assert 0 < open_questions < len(CASES) / 2
    assert MATH.quick(r"x \cdot y", "no") is None
