# SPDX-License-Identifier: Apache-2.0
"""The small language of ``filter_function`` and ``goodness_function``.

Numbers, texts in quotes, ``true`` and ``false``; ``+ - * / ^``; ``< <= > >= == != <>``, also in chains; ``and or not``
(``& | !``); ``condition ? this : that``; ``abs(x) min(a, b, …) max(a, b, …)``; and what is known of the case as
``stats.name``, or ``extra["vendor:name"]`` where a name is no plain word. A text that is a number counts as one. There
is nothing else: no attribute, no call, no loop, and an expression is at most 4,096 characters and 40 levels deep.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from volmgr import exception

Value = bool | int | float | str
Scope = Mapping[str, Mapping[str, Any]]
Code = Callable[[Scope], Value]

MAX_LENGTH, MAX_DEPTH = 4096, 40
#: no number of this size and more is a value: some of them have no float.
LARGE = 10**300
SCOPES = ("stats", "capabilities", "extra", "qos", "volume")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,30}(?:\.\d{0,30})?(?:[eE][+-]?\d{1,3})?)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")|(?P<sign><=|>=|==|!=|<>|[-+*/^<>!&|?:().,\[\]])|(?P<end>\Z))"
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
}
_SPELLINGS = {"&": "and", "|": "or", "!": "not"}


class ExpressionError(exception.Invalid):
    """An expression cannot be read, or has no value for this backend and volume."""

    code = "volmgr.invalid.expression"
    sentence = "The expression is wrong: {reason}"


def _wrong(reason: str) -> ExpressionError:
    return ExpressionError(reason=reason, field="expression")


def _shown(value: Value) -> str:
    """Return a value for a message; Python refuses to write down a very large number."""
    return "a large number" if isinstance(value, int) and abs(value) >= LARGE else repr(value)[:80]


def _number(value: Value) -> float | int:
    if isinstance(value, str):
        raise _wrong(f"{value!r} is no number")
    return value


def _power(base: Value, exponent: Value) -> Value:
    made: float | complex = float(_number(base)) ** float(_number(exponent))
    if isinstance(made, complex):
        raise _wrong("a root of a negative number")
    return made


_ARITHMETIC: dict[str, Callable[[Value, Value], Value]] = {
    "+": lambda a, b: _number(a) + _number(b),
    "-": lambda a, b: _number(a) - _number(b),
    "*": lambda a, b: _number(a) * _number(b),
    "/": lambda a, b: _number(a) / _number(b),
    "^": _power,
}
_FUNCTIONS: dict[str, tuple[int, int, Callable[[Sequence[Value]], Value]]] = {
    "abs": (1, 1, lambda values: abs(_number(values[0]))),
    "min": (1, 64, lambda values: min(map(_number, values))),
    "max": (1, 64, lambda values: max(map(_number, values))),
}


@functools.lru_cache(2048)
def _known(value: str) -> Value:
    try:
        return float(value)
    except ValueError:
        return value


def _variable(scope: str, key: str) -> Code:
    def read(scopes: Scope) -> Value:
        try:
            value = scopes[scope][key]
        except KeyError:
            raise _wrong(f"{scope}.{key} is not known") from None
        if isinstance(value, str):
            return _known(value)
        if not isinstance(value, bool | int | float):
            raise _wrong(f"{scope}.{key} is neither a number nor a text")
        return value

    return read


class _Parser:
    """One reading of a text, by recursive descent; each method returns the code of what it has read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._depth = 0
        self._next()

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._place)
        if match is None:
            raise _wrong(f"{self._text[self._place :].strip()[:20]!r} cannot be read, at {self._place}")
        self._kind = str(match.lastgroup)
        token = match[self._kind]
        self._token = _SPELLINGS.get(token, token) if self._kind in ("sign", "word") else token
        self._place = match.end()

    def _take(self, *tokens: str) -> str | None:
        """Return the next token and go on, if it is one of these signs and words."""
        if self._kind in ("sign", "word") and self._token in tokens:
            token = self._token
            self._next()
            return token
        return None

    def _must(self, token: str) -> None:
        if self._take(token) is None:
            raise _wrong(f"{token!r} is missing before {self._token!r}" if self._token else f"{token!r} is missing")

    def whole(self) -> Code:
        """Read everything."""
        code = self._choice()
        if self._kind != "end":
            raise _wrong(f"{self._token!r} is too much")
        return code

    def _choice(self) -> Code:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _wrong(f"it is more than {MAX_DEPTH} levels deep")
        code = self._either()
        if self._take("?"):
            this = self._choice()
            self._must(":")
            that, condition = self._choice(), code
            code = lambda scopes: this(scopes) if condition(scopes) else that(scopes)  # noqa: E731
        self._depth -= 1
        return code

    def _either(self) -> Code:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda scopes: any(part(scopes) for part in parts)

    def _both(self) -> Code:
        parts = [self._negation()]
        while self._take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else lambda scopes: all(part(scopes) for part in parts)

    def _negation(self) -> Code:
        count = 0
        while self._take("not"):
            count += 1
        code = self._comparison()
        if not count:
            return code
        return lambda scopes: bool(code(scopes)) is (count % 2 == 0)

    def _comparison(self) -> Code:
        first = self._sum()
        chain: list[tuple[Callable[[Any, Any], bool], Code]] = []
        while (sign := self._take(*_COMPARISONS)) is not None:
            chain.append((_COMPARISONS[sign], self._sum()))
        if not chain:
            return first

        def compare(scopes: Scope) -> bool:
            left = first(scopes)
            for holds, code in chain:
                right = code(scopes)
                try:
                    if not holds(left, right):
                        return False
                except TypeError:
                    raise _wrong(f"{_shown(left)} and {_shown(right)} cannot be compared") from None
                left = right
            return True

        return compare

    def _sum(self) -> Code:
        return self._chain(self._product, "+", "-")

    def _product(self) -> Code:
        return self._chain(self._signed, "*", "/")

    def _chain(self, part: Callable[[], Code], *signs: str) -> Code:
        first, rest = part(), []
        while (sign := self._take(*signs)) is not None:
            rest.append((_ARITHMETIC[sign], part()))
        if not rest:
            return first

        def calculate(scopes: Scope) -> Value:
            value = first(scopes)
            for apply, code in rest:
                value = apply(value, code(scopes))
            return value

        return calculate

    def _signed(self) -> Code:
        negative = False
        while (sign := self._take("+", "-")) is not None:
            negative ^= sign == "-"
        code = self._raised()
        return (lambda scopes: -_number(code(scopes))) if negative else code

    def _raised(self) -> Code:
        base = self._atom()
        if not self._take("^"):
            return base
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _wrong(f"it is more than {MAX_DEPTH} levels deep")
        exponent = self._signed()
        self._depth -= 1
        return lambda scopes: _power(base(scopes), exponent(scopes))

    def _atom(self) -> Code:
        kind, token = self._kind, self._token
        if self._take("("):
            code = self._choice()
            self._must(")")
            return code
        if kind in ("end", "sign"):
            raise _wrong(f"{token!r} stands where a value should" if token else "it ends where a value should stand")
        self._next()
        if kind == "number":
            number: Value = int(token) if token.isdigit() else float(token)
            return lambda _scopes: number
        if kind == "text":
            text = token[1:-1]
            return lambda _scopes: text
        if token in ("true", "false"):
            truth = {"true": True, "false": False}[token]
            return lambda _scopes: truth
        if token in _FUNCTIONS:
            return self._call(token)
        return self._name(token)

    def _call(self, name: str) -> Code:
        least, most, apply = _FUNCTIONS[name]
        self._must("(")
        arguments = [self._choice()]
        while self._take(","):
            arguments.append(self._choice())
        self._must(")")
        if not least <= len(arguments) <= most:
            raise _wrong(f"{name} takes {least if least == most else f'{least} to {most}'} values")
        return lambda scopes: apply([argument(scopes) for argument in arguments])

    def _name(self, scope: str) -> Code:
        if scope not in SCOPES:
            raise _wrong(f"{scope!r} is not known; there are {', '.join(SCOPES)}")
        bracket = self._take("[")
        if not bracket:
            self._must(".")
        key, wanted = self._token, "text" if bracket else "word"
        if self._kind != wanted:
            raise _wrong(f"a name is missing behind {scope}")
        self._next()
        if bracket:
            self._must("]")
            key = key[1:-1]
        return _variable(scope, key)


@functools.lru_cache(2048)
def compiled(text: str) -> Code:
    """Return the code of an expression.

    :raises ExpressionError: it cannot be read.
    """
    if len(text) > MAX_LENGTH:
        raise _wrong(f"it has {len(text)} characters, at most {MAX_LENGTH} are read")
    return _Parser(text).whole()


def evaluate(text: str, scopes: Scope) -> Value:
    """Return the value of an expression.

    :param scopes: by name of :data:`SCOPES`.
    :raises ExpressionError: it cannot be read, or has no value here.
    """
    code = compiled(text)
    try:
        value = code(scopes)
    except (ZeroDivisionError, OverflowError) as error:
        raise _wrong(str(error)) from None
    if not math.isfinite(value) if isinstance(value, float) else isinstance(value, int) and abs(value) >= LARGE:
        raise _wrong("the value is not finite, or too large")
    return value
