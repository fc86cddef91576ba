"""Comparisons on the host: plain values that came out of the codec against expected ones.

Nothing here calls code of a candidate. Numbers are never turned into text, since a hostile one has a million digits.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any

from dreamprm_sandbox.codec import Opaque

_CONTAINERS = (list, tuple, set, frozenset, dict)


def holds_opaque(value: Any) -> bool:
    """Whether a value that is not plain stands anywhere in it."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, Opaque):
            return True
        if isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, _CONTAINERS):
            stack.extend(item)
    return False


def equal(got: Any, expected: Any) -> bool:
    """Python's `==`, and a NaN where a NaN is expected."""
    if got == expected:
        return True
    if isinstance(got, float) and isinstance(expected, float):
        return math.isnan(got) and math.isnan(expected)
    if type(got) is type(expected) and isinstance(got, list | tuple) and len(got) == len(expected):
        return all(map(equal, got, expected))
    return False


def close(got: Any, expected: Any, *, rtol: float, atol: float) -> bool:
    """Numbers within `atol + rtol * |expected|`, element by element in lists and tuples of the same lengths."""
    if isinstance(expected, list | tuple):
        return (
            isinstance(got, list | tuple)
            and len(got) == len(expected)
            and all(close(a, b, rtol=rtol, atol=atol) for a, b in zip(got, expected, strict=True))
        )
    if not _number(got) or not _number(expected):
        return False
    try:
        return bool(got == expected or abs(got - expected) <= atol + rtol * abs(expected))
    except OverflowError:  # an int beyond any float
        return False


def _number(value: Any) -> bool:
    return isinstance(value, int | float | complex)


def tokens_equal(printed: str, expected: str) -> bool:
    """Split at white space, token by token."""
    return printed.split() == expected.split()


def lines_equal(printed: str, expected: str) -> bool:
    """LiveCodeBench: line by line after stripping, equal as text or all tokens equal as decimals."""
    got, want = _lines(printed), _lines(expected)
    return len(got) == len(want) and all(a == b or _decimals_equal(a, b) for a, b in zip(got, want, strict=True))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _decimals_equal(a: str, b: str) -> bool:
    try:
        return [Decimal(token) for token in a.split()] == [Decimal(token) for token in b.split()]
    except (InvalidOperation, ValueError):
        return False
