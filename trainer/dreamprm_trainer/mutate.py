"""A bug put into a known function: one small edit of the text, so that nothing but the edit tells the program apart.

Each operator looks at one node of the syntax tree and proposes another text for its place: a neighbouring comparison
or arithmetic operator, a constant off by one, a negated condition, another variable of the function, a statement left
out. The rest of the program keeps its bytes. Whether the edit is a bug is for the tests to say.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dreamprm_cli.steps import split
from dreamprm_cli.types import Step

_COMPARE = {
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
_BINARY = {
    ast.Add: ("+", ("-",)),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+", "//")),
    ast.FloorDiv: ("//", ("%", "*")),
    ast.Div: ("/", ("*", "//")),
    ast.Mod: ("%", ("//",)),
    ast.Pow: ("**", ("*",)),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """`code` differs from the program in its step number `step` alone, by `operator`."""

    code: str
    step: int
    operator: str


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int  # bytes from the program's beginning
    end: int
    text: str
    operator: str


def mutants(code: str, seed: int, limit: int) -> list[Mutant]:
    """Up to `limit` different mutants of functions and methods, spread over the steps; [] for text that does not parse.

    They parse, and split into the same steps as the program.
    """
    steps = split(code)
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return []
    draw = random.Random(seed)
    data = code.encode()
    by_step: dict[int, list[_Edit]] = {}
    bounds = _bounds(steps)
    for edit in _edits(tree, data):
        inside = [k for k, (start, end) in enumerate(bounds) if start <= edit.start and edit.end <= end]
        if inside and steps[inside[0]].kind in ("function", "method"):
            by_step.setdefault(inside[0], []).append(edit)
    for edits in by_step.values():
        draw.shuffle(edits)
    found: dict[str, Mutant] = {}
    while len(found) < limit and any(by_step.values()):
        for step, edits in by_step.items():
            if edits and len(found) < limit:
                edit = edits.pop()
                text = (data[: edit.start] + edit.text.encode() + data[edit.end :]).decode()
                if text != code and _differs_in_one(steps, text, step):
                    found.setdefault(text, Mutant(text, step, edit.operator))
    return list(found.values())


def _bounds(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """Where each step's bytes lie."""
    result, at = [], 0
    for step in steps:
        size = len(step.source.encode())
        result.append((at, at + size))
        at += size
    return result


def _differs_in_one(steps: Sequence[Step], text: str, step: int) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    other = split(text)
    return len(other) == len(steps) and all(
        a.name == b.name and (a.source == b.source) != (number == step)
        for number, (a, b) in enumerate(zip(steps, other, strict=True))
    )


def _edits(tree: ast.Module, data: bytes) -> Iterator[_Edit]:
    lines = [0]
    for line in data.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def start(node: ast.expr | ast.stmt) -> int:
        return lines[node.lineno - 1] + node.col_offset

    def end(node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return lines[node.end_lineno - 1] + node.end_col_offset

    def between(left: ast.expr, right: ast.expr, old: str, new: str, operator: str) -> Iterator[_Edit]:
        gap = data[end(left) : start(right)].decode()
        if gap.count(old) == 1:
            yield _Edit(end(left), start(right), gap.replace(old, new), operator)

    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        names = sorted({node.arg for node in function.args.args} - {"self", "cls"})
        for node in ast.walk(function):
            if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
                old, others = _COMPARE[type(node.ops[0])]
                for new in others:
                    yield from between(node.left, node.comparators[0], old, new, "comparison")
            elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
                old, others = _BINARY[type(node.op)]
                for new in others:
                    yield from between(node.left, node.right, old, new, "arithmetic")
            elif isinstance(node, ast.BoolOp) and len(node.values) == 2:
                old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                yield from between(node.values[0], node.values[1], old, new, "boolean")
            elif isinstance(node, ast.Constant) and type(node.value) is int:
                yield _Edit(start(node), end(node), str(node.value + 1), "constant")
            elif isinstance(node, ast.Constant) and type(node.value) is bool:
                yield _Edit(start(node), end(node), str(not node.value), "constant")
            elif isinstance(node, ast.If | ast.While):
                test = data[start(node.test) : end(node.test)].decode()
                yield _Edit(start(node.test), end(node.test), f"not ({test})", "negation")
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
                for other in names:
                    if other != node.id:
                        yield _Edit(start(node), end(node), other, "variable")
            elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
                yield _Edit(start(node), end(node), "pass", "statement")
            elif isinstance(node, ast.Return) and node.value is not None:
                yield _Edit(start(node.value), end(node.value), "None", "return")
