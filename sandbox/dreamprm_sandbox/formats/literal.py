"""Plain values out of test code, without running it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

_MAX_REPEAT = 1_000_000
_MAKERS: dict[str, Any] = {
    "set": set, "frozenset": frozenset, "list": list, "tuple": tuple, "dict": dict, "float": float, "int": int,
    "complex": complex, "str": str, "range": range, "sorted": sorted, "bool": bool,
}  # fmt: skip


def value(node: ast.expr, names: Mapping[str, Any] | None = None) -> Any:
    """The value of an expression of literals, `set([...])`-like makers, `+ - *`, and `names`. Raises ValueError."""
    known = names or {}
    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.List(elts=items):
            return [value(item, known) for item in items]
        case ast.Tuple(elts=items):
            return tuple(value(item, known) for item in items)
        case ast.Set(elts=items):
            return {value(item, known) for item in items}
        case ast.Dict(keys=keys, values=values):
            return {_key(key, known): value(item, known) for key, item in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(value(operand, known))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _number(value(operand, known))
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as operator, right=right):
            return _binary(operator, value(left, known), value(right, known))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _MAKERS and name not in known:
            try:
                made = _MAKERS[name](*(value(arg, known) for arg in args))
            except TypeError as error:
                raise ValueError(str(error)) from None
            return list(made) if isinstance(made, range) and len(made) <= _MAX_REPEAT else made
    raise ValueError(f"not a plain value: {type(node).__name__}")


def _key(node: ast.expr | None, names: Mapping[str, Any]) -> Any:
    if node is None:
        raise ValueError("not a plain value: **")
    return value(node, names)


def _number(operand: Any) -> Any:
    if not isinstance(operand, int | float | complex):
        raise ValueError("not a number")
    return operand


def _binary(operator: ast.operator, left: Any, right: Any) -> Any:
    sizes = [len(side) for side in (left, right) if isinstance(side, str | bytes | list | tuple)]
    if isinstance(operator, ast.Mult) and sizes:
        times = right if isinstance(right, int) else left
        if not isinstance(times, int) or sizes[0] * times > _MAX_REPEAT:
            raise ValueError("too long")
    try:
        if isinstance(operator, ast.Add):
            return left + right
        return left - right if isinstance(operator, ast.Sub) else left * right
    except TypeError as error:
        raise ValueError(str(error)) from None


def pythonic(text: str) -> str:
    """JSON's words for Python's, outside of string literals."""
    words = {"true": "True", "false": "False", "null": "None"}
    strings = r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\''
    return re.sub(rf"{strings}|\b(?:true|false|null)\b", lambda found: words.get(found[0], found[0]), text)


def json_like(text: str) -> Any:
    """A JSON value or a Python literal. Raises ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return value(ast.parse(pythonic(text.strip()), mode="eval").body)
    except (SyntaxError, RecursionError) as error:
        raise ValueError(str(error)) from None
