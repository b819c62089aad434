"""The types that an answer is read into. docs/grading.md has the table of what may equal what."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from motif.grading.math.expression import Node


@dataclass(frozen=True)
class Scalar:
    """A number or an expression, and its unit, which may be empty."""

    node: Node
    unit: str = ""
    literal: bool = False
    """Whether it is a number as it is written down, not one to be computed."""


@dataclass(frozen=True)
class Numeral:
    """A number in the digits of a base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Tuple:
    """Values in order."""

    items: tuple[Value, ...]
    brackets: str = "()"


@dataclass(frozen=True)
class Set:
    """Values without order or repetition."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Listing:
    """Values side by side, in any order."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Region:
    """A set of real numbers, as a condition on `variable` (which may be unknown: empty)."""

    condition: Node
    variable: str = ""


@dataclass(frozen=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Equation:
    """Two expressions that are equal."""

    left: Node
    right: Node


@dataclass(frozen=True)
class Relation:
    """An inequality in several variables: `difference` is positive, or not negative."""

    difference: Node
    strict: bool


@dataclass(frozen=True)
class Named:
    """A value with the name before its equals sign. A `plain` name is one letter, object or function."""

    name: str
    value: Value
    plain: bool
    left: Node | None = None


@dataclass(frozen=True)
class Chain:
    """Expressions with equals signs between them, all of which are the value; `rounded`: some signs are ≈."""

    values: tuple[Value, ...]
    rounded: bool = False


@dataclass(frozen=True)
class System:
    """Named values, in an order: the one in which they are written, or that of neighbouring letters."""

    parts: tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Date:
    """A day; the year may be unknown (0)."""

    year: int
    month: int
    day: int


@dataclass(frozen=True)
class Time:
    """A time of day or a duration; `half` is am, pm or unknown (empty)."""

    hour: int
    minute: int
    second: int
    half: str


@dataclass(frozen=True)
class Ratio:
    """Parts with colons or "to" between them."""

    parts: tuple[Node, ...]
    with_to: bool = False


@dataclass(frozen=True)
class Range:
    """From one number to a larger one."""

    low: Fraction
    high: Fraction


@dataclass(frozen=True)
class Choice:
    """The letter of an option, and its text if it is there."""

    letter: str
    text: Value | None = None


@dataclass(frozen=True)
class Choices:
    """Several letters of options, in the order in which they are written."""

    letters: tuple[str, ...]


@dataclass(frozen=True)
class Pattern:
    """A list or sum with dots: what its author had in mind is not to be known."""

    text: str


@dataclass(frozen=True)
class Qualified:
    """A value with the domain of a letter: "for all real x", "k an integer"."""

    value: Value
    letters: frozenset[str]
    domain: str


@dataclass(frozen=True)
class Words:
    """Text: what is none of the above."""

    words: tuple[str, ...]
    said: tuple[str, ...] = ()
    """What it says, if it is a short sentence."""


Value = (
    Scalar | Numeral | Tuple | Set | Listing | Region | Matrix | Equation | Relation | Named | Chain | System | Date
    | Time | Ratio | Range | Choice | Choices | Pattern | Qualified | Words
)  # fmt: skip
