"""EvalPlus: inputs without outputs. The canonical solution tells what is expected, in the sandbox as well.

Source of the semantics: EvalPlus 0.3, `evalplus/eval` and `evalplus/data/mbpp.py` (which arguments JSON turned from
tuples, sets and complex numbers into lists and text, and the tasks with an oracle of their own). `compat` follows it
to the letter; strict differs in two tasks, where EvalPlus accepts any answer at all (Mbpp/164, Mbpp/295).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.codec import Opaque, TooLarge, check_hashes
from dreamprm_sandbox.compare import close, equal
from dreamprm_sandbox.formats import asserts
from dreamprm_sandbox.suite import UNKNOWN, Call, Calls, Compare

MIN_TIME_LIMIT_S = 4.0
REFERENCE_FACTOR = 4.0
_FLOAT_ATOL, _RTOL = 1e-6, 1e-7

_ALWAYS_RIGHT, _ZERO_IS_RIGHT = "are_equivalent", "sum_div"
_NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
_AS_SETS = {
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
    "intersection_array", "find_dissimilar", "Diff",
}  # fmt: skip

# How MBPP+ arguments look in JSON and have to be called.
_TUPLES = {2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809}
_LISTS_OF_TUPLES = {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}
_FIRST_LIST_OF_TUPLES = {75, 413, 444, 753}
_SECOND_TUPLE = {106, 750}
_FIRST_TUPLE = {250, 307, 405, 446, 617, 720, 763, 808}
_TUPLES_OF_TUPLES = {259, 401, 445}
_TUPLES_ALL_THE_WAY = {580, 615, 791}


def suite(problem: Problem, compat: bool = False) -> Calls:
    row = problem.tests.payload
    try:
        inputs = [*row["base_input"], *row["plus_input"]]
        asserted = () if compat else _asserted(str(row.get("assertion", "")), problem.entry_point)
        reference = row["prompt"] + row["canonical_solution"]
        entry_point = str(row["entry_point"])
        atol = float(row.get("atol") or 0)
    except (KeyError, TypeError) as error:
        raise ProblemError(f"{problem.id}: not a row of EvalPlus: {error}") from None
    task, _, number = problem.id.rpartition("/")
    mbpp = task == "Mbpp"
    tests = tuple(Call(tuple(_arguments(int(number), args) if mbpp else args), {}, UNKNOWN) for args in inputs)
    tests += asserted
    compare = _compare(entry_point, atol, mbpp, compat)
    return Calls(entry_point, tests, compare, reference=reference, accepts_opaque=mbpp and entry_point in _NOT_NONE)


def _asserted(code: str, entry_point: str | None) -> tuple[Call, ...]:
    """MBPP+ rows bring assertions too; some of their inputs are lost in `base_input`."""
    found = asserts.taken_apart(ast.parse(code), None, entry_point)
    return () if found is None else tuple(replace(call, expected=UNKNOWN) for call in found[1])


def _arguments(task: int, args: list[Any]) -> Sequence[Any]:
    if task in _TUPLES:
        return [tuple(arg) for arg in args]
    if task in _LISTS_OF_TUPLES:
        return [_tuples(arg) for arg in args]
    if task in _FIRST_LIST_OF_TUPLES:
        return [_tuples(args[0]), args[1]]
    if task in _SECOND_TUPLE:
        return [args[0], tuple(args[1])]
    if task in _FIRST_TUPLE:
        return [tuple(args[0]), *args[1:]]
    if task in _TUPLES_OF_TUPLES:
        return [tuple(_tuples(arg)) for arg in args]
    if task in _TUPLES_ALL_THE_WAY:
        return [_deep_tuple(arg) for arg in args]
    if task == 115:
        return [[set(item) if isinstance(item, list) and item else {} for item in args[0]]]
    if task == 124:
        return [float(args[0]), complex(args[1])]
    if task == 252:
        return [complex(args[0])]
    if task == 278:
        return [tuple(tuple(item) if isinstance(item, list) else item for item in args[0])]
    if task == 722:
        return [{key: tuple(value) for key, value in args[0].items()}, *args[1:]]
    return args


def _tuples(items: list[Any]) -> list[Any]:
    return [tuple(item) for item in items]


def _deep_tuple(value: Any) -> Any:
    return tuple(map(_deep_tuple, value)) if isinstance(value, list) else value


def _compare(entry_point: str, atol: float, mbpp: bool, compat: bool) -> Compare:
    oracle = _MBPP_ORACLES.get(entry_point) if mbpp else None

    def right(got: Any, call: Call) -> bool:
        expected = call.expected
        if not mbpp and entry_point == "find_zero":
            return _number(got) and bool(abs(_polynomial(call.args[0], got)) <= atol)
        if mbpp and compat and (entry_point == _ALWAYS_RIGHT or (entry_point == _ZERO_IS_RIGHT and equal(got, 0))):
            return True
        if mbpp and entry_point in _AS_SETS:
            return bool(_as_set(got) == _as_set(expected))
        if mbpp and entry_point in _NOT_NONE:
            wanted = expected is not None  # their reference returns a match object, or a bool
            said: bool = got if isinstance(got, bool) else got is not None
            return said is wanted
        if (got == expected if compat else equal(got, expected)) or (
            oracle is not None and _number(got) and oracle(got, call.args, atol)
        ):
            return True
        tolerance = _FLOAT_ATOL if atol == 0 and _floats(expected) else atol
        return tolerance != 0 and type(got) is type(expected) and close(got, expected, rtol=_RTOL, atol=tolerance)

    return right


def _as_set(value: Any) -> Any:
    if not isinstance(value, list | tuple | set | frozenset | str | dict):
        return value
    try:
        check_hashes(value)
        return set(value)
    except (TypeError, TooLarge):  # holds lists; or an attack on our time
        return value


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, Opaque)


def _polynomial(coefficients: Sequence[float], x: float) -> float:
    try:
        return sum(coefficient * math.pow(x, power) for power, coefficient in enumerate(coefficients))
    except (OverflowError, ValueError):
        return math.inf


def _surface_by_height(got: Any, args: tuple[Any, ...], atol: float) -> bool:
    """Mbpp/581: the height may be the pyramid's own, not its side's."""
    base, height = args
    surface = base**2 + 2 * base * math.sqrt((base / 2) ** 2 + height**2)
    return bool(abs(got - round(surface)) <= atol)


def _digits_padded(got: Any, args: tuple[Any, ...], atol: float) -> bool:
    """Mbpp/558: the shorter number may be filled with zeros."""
    first, second = map(str, args)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return bool(got == sum(abs(int(a) - int(b)) for a, b in pairs))


_MBPP_ORACLES: dict[str, Callable[[Any, tuple[Any, ...], float], bool]] = {
    "surface_Area": _surface_by_height,
    "digit_distance_nums": _digits_padded,
}
