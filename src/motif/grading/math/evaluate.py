r"""Equal expressions: exact for rational numbers, otherwise by their values at several points to many digits.

Two expressions are equal if they agree at points that nobody can foresee from the text. Values carry so many digits
that rounding cannot hide a difference: a second look with more digits follows where it could. Real points on both
sides of zero tell `|x|` from x; a point where a root or a logarithm is not real is not used. What is too large to be
written out is not compared at all.
"""

from __future__ import annotations

import functools
import hashlib
import math
import operator
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from motif.grading.math.expression import Node, letters

LARGEST = 1 << 18  # bits of an exact number
LARGEST_ROOT = 1 << 12  # bits of a number whose cube root, or a higher one, is looked for
MOST_DIGITS = 4_000
CLOSE = 5e-7
"""How near a decimal must be to an exact answer: six places, or six digits for answers below 1."""
NOISE = 1e-9
"""How near a decimal must be to a number that has few decimals itself: what programs print."""
FEW_PLACES = 6
_POINTS = 4  # of each kind


class Undefined(ArithmeticError):
    """The expression has no value here, or none that can be computed."""


@functools.lru_cache(maxsize=1024)
def exact(node: Node) -> Fraction | None:
    """The rational value of a tree of rational numbers; None for other trees.

    Raises:
        Undefined: a division by zero, or a number of more than 2^18 bits.
    """
    kind = node[0]
    if kind == "n":
        value: Fraction = node[1]
        return value
    if kind not in _EXACT:
        return None
    parts = [exact(part) for part in node[1:]]
    if any(part is None for part in parts):
        return None
    result: Fraction | None = _EXACT[kind](*parts)
    if result is not None and max(result.numerator.bit_length(), result.denominator.bit_length()) > LARGEST:
        raise Undefined("a number of too many digits")
    return result


def _divided(a: Fraction, b: Fraction) -> Fraction:
    if b == 0:
        raise Undefined("a division by zero")
    return a / b


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        root = _root(Fraction(exponent.denominator), base) if exponent.denominator <= 64 else None
        return None if root is None else _power(root, Fraction(exponent.numerator))
    if base == 0 and exponent <= 0:
        raise Undefined("a power of zero")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and base != 0 and abs(exponent) * size > LARGEST:
        raise Undefined("a power of too many digits")
    if abs(base) == 1 or base == 0:
        return base if base == 0 or exponent % 2 else Fraction(1)
    return base ** int(exponent)


def _root(index: Fraction, value: Fraction) -> Fraction | None:
    if index.denominator != 1 or not 2 <= index <= 64 or value < 0:
        return None
    if index > 2 and max(value.numerator, value.denominator).bit_length() > LARGEST_ROOT:
        return None
    parts = [_whole_root(part, int(index)) for part in (value.numerator, value.denominator)]
    return None if None in parts else Fraction(parts[0] or 0, parts[1] or 1)


def _whole_root(value: int, index: int) -> int | None:
    if index == 2:
        root = math.isqrt(value)
    else:
        low, high = 0, 1 << (value.bit_length() // index + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**index <= value else (low, middle - 1)
        root = low
    return root if root**index == value else None


def _factorial(value: Fraction) -> Fraction | None:
    if value.denominator != 1 or value < 0:
        return None
    if value > 10_000:
        raise Undefined("a factorial of too many digits")
    return Fraction(math.factorial(int(value)))


def _binomial(n: Fraction, k: Fraction) -> Fraction | None:
    if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        return None
    if n > 10_000:
        raise Undefined("a binomial of too many digits")
    return Fraction(math.comb(int(n), int(k)))


_EXACT: dict[str, Any] = {
    "+": lambda *terms: sum(terms),
    "*": lambda a, b: a * b,
    "/": _divided,
    "neg": lambda a: -a,
    "^": _power,
    "sqrt": lambda a: _root(Fraction(2), a),
    "root": _root,
    "!": _factorial,
    "binom": _binomial,
    "abs": abs,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
}


def same(gold: Node, given: Node) -> bool:
    """Whether the answer's tree means what the gold's tree means. A decimal may be the other's rounding to 6 places."""
    if gold == given:
        return True
    try:
        wanted, found = exact(gold), exact(given)
        if wanted is not None and found is not None:
            return wanted == found or _rounded(wanted, found, gold, given)
    except Undefined:
        return False
    return _agree(gold, given)


def _rounded(wanted: Fraction, found: Fraction, gold: Node, given: Node) -> bool:
    """Whether one is a decimal that the other was rounded to."""
    if not (_places(gold) or _places(given)):
        return False
    few = _few_places(wanted)
    if few and _few_places(found):
        return False
    return abs(wanted - found) <= Fraction(NOISE if few else CLOSE) * min(Fraction(1), abs(wanted))


def _few_places(value: Fraction) -> bool:
    return (value * 10**FEW_PLACES).denominator == 1


@functools.lru_cache(maxsize=8192)
def _places(node: Node) -> int:
    """The most decimals of a number in the tree."""
    if node[0] == "n":
        return int(node[2])
    return max((_places(part) for part in node[1:] if isinstance(part, tuple)), default=0)


def _agree(gold: Node, given: Node) -> bool:
    names = sorted(letters(gold) | letters(given))
    is_decimal = bool(_places(gold) or _places(given))
    agreed = 0
    for point in points(names):
        outcome = _compare(gold, given, point, is_decimal)
        if outcome is False:
            return False
        agreed += outcome is True
    return agreed > 0


def points(names: Iterable[str]) -> Iterable[dict[str, Fraction]]:
    """Values for letters: positive ones first, then ones of both signs."""
    names = list(names)
    for index in range(2 * _POINTS if names else 1):
        values = {}
        for name in names:
            draw = _hashed(f"{index} {name}")
            sign = -1 if index >= _POINTS and _hashed(f"sign {index} {name}") > Fraction(1, 2) else 1
            values[name] = sign * (draw * 3 + Fraction(1, 7))
        yield values


def _hashed(text: str) -> Fraction:
    """A number between 0 and 1 that a text determines."""
    return Fraction(int.from_bytes(hashlib.sha256(text.encode()).digest()[:12], "big"), 1 << 96)


def _compare(gold: Node, given: Node, point: dict[str, Fraction], is_decimal: bool) -> bool | None:
    """Whether both agree at a point; None where one of them has no value there."""
    digits, grown = 50, 0
    while digits <= MOST_DIGITS and grown < 3:  # a value that grows with the digits, as the tangent of a right angle
        try:
            (wanted, wide), (found, long) = (Evaluation(point, digits).value(node) for node in (gold, given))
        except Undefined:
            return None
        if _infinite(wanted) or _infinite(found):
            return bool(wanted == found)
        largest = max(wide, long, 1)
        needed = 50 + int(math.log10(largest)) if largest < 1e300 else 50 + int(_mpmath().log10(largest))
        if needed > digits + 10:
            digits, grown = needed, grown + 1
            continue
        gap, size = abs(wanted - found), abs(wanted)
        noise = largest * _mpmath().mpf(10) ** (12 - digits)
        if gap > noise:
            return is_decimal and bool(gap <= CLOSE * min(1, size))
        if size > noise * 10**15 or digits >= 800:
            return True
        digits *= 4
    return None


def _infinite(value: Any) -> bool:
    return bool(_mpmath().isinf(value))


def value_at(node: Node, point: dict[str, Fraction], digits: int = 50) -> Any:
    """The value of a tree at a point, as a number of mpmath.

    Raises:
        Undefined: it has none.
    """
    return Evaluation(point, digits).value(node)[0]


@functools.cache
def _mpmath() -> Any:
    import mpmath

    return mpmath.mp.clone()


class Evaluation:
    """The value of a tree at a point, and the largest value on the way, which bounds the rounding error."""

    def __init__(self, point: dict[str, Fraction], digits: int) -> None:
        self.mp, self.point, self.largest = _mpmath(), point, 1
        self.mp.dps = digits

    def value(self, node: Node) -> tuple[Any, Any]:
        """The value and the size of the largest value on the way.

        Raises:
            Undefined: there is no value, or none that can be computed.
        """
        try:
            return self._of(node), self.largest
        except (ZeroDivisionError, OverflowError, ValueError, TypeError, RecursionError) as error:
            raise Undefined(str(error)) from None

    def _of(self, node: Node) -> Any:
        known = exact(node)
        if known is not None:
            result = self._rational(known)
        elif node[0] == "s":
            result = self._letter(node[1])
        elif node[0] == "inf":
            return self.mp.inf
        elif node[0] == "call":
            result = self._unknown(node[1], self._of(node[2]))
        else:
            parts = [self._of(part) for part in node[1:]]
            plain = _PLAIN.get(node[0])
            result = plain(*parts) if plain else getattr(self, _METHODS.get(node[0], "_function"))(node[0], *parts)
        if not self.mp.isfinite(result):
            if node[0] in ("neg", "+"):
                return result
            raise Undefined("infinite")
        self.largest = max(self.largest, abs(result))
        return result

    def _rational(self, value: Fraction) -> Any:
        return self.mp.mpf(value.numerator) / value.denominator

    def _letter(self, name: str) -> Any:
        if name == "pi":
            return +self.mp.pi
        if name == "e" and "e" not in self.point:
            return +self.mp.e
        if name == "i" and "i" not in self.point:
            return self.mp.mpc(0, 1)
        return self._rational(self.point[name])

    def _unknown(self, name: str, argument: Any) -> Any:
        """A function of which nothing is known: equal arguments have equal values."""
        digits = self.mp.nstr(argument, 20)
        return self._rational(_hashed(f"{name}({digits})") + Fraction(1, 3))

    def _add(self, _: str, *terms: Any) -> Any:
        return self.mp.fsum(terms) if len(terms) > 2 else terms[0] + terms[1]

    def _power(self, _: str, base: Any, exponent: Any) -> Any:
        if base == 0 and not (self.mp.im(exponent) == 0 and exponent > 0):
            raise Undefined("a power of zero")
        if base != 0 and abs(exponent) * abs(self.mp.log(base)) > 10_000:
            raise Undefined("a power of too many digits")
        self._real(base, self.mp.isint(exponent) if self.mp.im(exponent) == 0 else False)
        return base**exponent

    def _root(self, _: str, index: Any, value: Any) -> Any:
        if value < 0 and self.mp.isint(index) and int(index) % 2:
            return -self._power("", -value, 1 / index)
        return self._power("", value, 1 / index)

    def _square_root(self, _: str, value: Any) -> Any:
        self._real(value, False)
        return self.mp.sqrt(value)

    def _real(self, value: Any, whole_power: bool) -> None:
        # Identities such as sqrt(ab) = sqrt(a) sqrt(b) hold where the roots are real.
        if not whole_power and self.point and self.mp.im(value) == 0 and self.mp.re(value) < 0:
            raise Undefined("not real")

    def _function(self, name: str, *arguments: Any) -> Any:
        mp, value = self.mp, arguments[-1]
        match name:
            case "floor" | "ceil":
                return getattr(mp, name)(value)
            case "!":
                return mp.factorial(value) if abs(value) < 2_000 else self._refuse()
            case "binom":
                return mp.binomial(*arguments) if max(map(abs, arguments)) < 2_000 else self._refuse()
            case "ln":
                self._real(value, False)
                return mp.log(value)
            case "lg":
                self._real(value, False)
                return mp.log(value) / mp.log(10)
            case "log":  # of a base that everybody knows, and nobody says
                self._real(value, False)
                return mp.log(value) * self._rational(_hashed("log") + 1)
            case "logb":
                self._real(value, False)
                return mp.log(value) / mp.log(arguments[0])
        if name.startswith("arc"):
            return getattr(mp, "a" + name.removeprefix("arc"))(value)
        return getattr(mp, name)(value)

    def _refuse(self) -> Any:
        raise Undefined("too large")


_PLAIN: dict[str, Any] = {"*": operator.mul, "/": operator.truediv, "neg": operator.neg, "abs": abs}
_METHODS = {"+": "_add", "^": "_power", "root": "_root", "sqrt": "_square_root"}
