"""A policy's program put into a module: the function's new body under its own head, and what it needs beside it.

A program is a function at the left margin, or a class around a method, with helpers and imports. What the module has
already (by name) stays as it is there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dreamprm_trainer.mine.functions import (
    Definition,
    Function,
    Module,
    Unreadable,
    indented,
    module,
    moved,
    parsed,
    split_lines,
)


def placed(own: Module, function: Function, program: str) -> str:
    """The module's text with the program in the function's place. Raises Unreadable for a program that is none, or
    does not define the function."""
    theirs = module("program", program.encode("utf-8", "backslashreplace"))
    found = answering(theirs, function.qualname)
    tree, answer = parsed(own.text), parsed(theirs.text)
    lines = list(own.lines)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    known = _bound(tree.body) | {function.name}
    beside = [_text(theirs, node) for node in answer.body if _is_new(node, found, known)]
    imports = [_text(theirs, node) for node in answer.body if _is_missing_import(node, tree)]

    last = function.last_line
    new = indented(_under_its_head(function, theirs, found), function.indent)
    helpers = _helpers(own, function, theirs, found)
    lines[function.first_line - 1 : last] = [new, *(f"\n{indented(one, function.indent)}" for one in helpers)]
    top = _first_line(next(node for node in tree.body if _last_line(node) >= function.first_line))
    lines[top - 1 : top - 1] = [f"{one}\n\n" for one in beside]
    after = max((_last_line(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)), default=0)
    if not after and ast.get_docstring(tree, clean=False) is not None:
        after = _last_line(tree.body[0])
        imports[:0] = ["\n"] if imports else []
    lines[min(after, top - 1) : min(after, top - 1)] = imports
    return "".join(lines)


def answering(theirs: Module, qualname: str) -> Function:
    """A program's function of that name: in a class of the right name, else at the top, else in any class. Raises
    Unreadable where there is none."""
    owner, _, name = qualname.rpartition(".")
    owner = owner.rpartition(".")[2]
    wanted = [f"{owner}.{name}" if owner else name, name]
    ranked = sorted(
        (one for one in theirs.functions if one.name == name),
        key=lambda one: wanted.index(one.qualname) if one.qualname in wanted else len(wanted),
    )
    if not ranked:
        raise Unreadable(f"the program defines no {name}")
    return ranked[0]


def emptied(function: Function, statement: str) -> str:
    """The function with this one statement for a body, at the left margin."""
    node = _node(function.source)
    return _head(function, node) + indented(f"{statement}\n", _margin(node, function.source))


def _under_its_head(function: Function, theirs: Module, found: Function) -> str:
    """The new body under the module's own decorators, signature and docstring, at the left margin; with a signature of
    its own the program's whole function, under the module's decorators."""
    node, other = _node(function.source), _node(found.source)
    whole = found.body_line > found.last_line or found.on_one_line
    if whole or _parameters(node) != _parameters(other):
        decorators = "".join(split_lines(function.source)[: node.lineno - 1])
        return found.source if found.source.startswith("@") else decorators + found.source
    return _head(function, node) + indented(_body(theirs, found, other), _margin(node, function.source))


def head(function: Function) -> str:
    """Decorators, signature and docstring, without the comments that follow: those are about the body."""
    return _head(function, _node(function.source))


def _head(function: Function, node: Definition) -> str:
    lines = split_lines(function.head)
    if ast.get_docstring(node, clean=False) is not None:
        lines = lines[: node.body[0].end_lineno]
    while not lines[-1].strip() or lines[-1].lstrip().startswith("#"):
        lines.pop()
    return "".join(lines).rstrip("\n") + "\n"


def _body(theirs: Module, found: Function, node: Definition) -> str:
    """What follows a function's head, at the left margin."""
    first = theirs.lines[found.body_line - 1]
    start = found.first_line + len(split_lines(_head(found, node)))
    lines = moved(theirs, start, found.last_line, first[: len(first) - len(first.lstrip())])
    return "".join(lines).rstrip("\n") + "\n"


def _node(source: str) -> Definition:
    node = parsed(source).body[0]
    assert isinstance(node, Definition)  # it was cut out as one
    return node


def _parameters(node: Definition) -> list[str]:
    given = node.args
    named = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [*named, *(f"*{one.arg}" for one in (given.vararg, given.kwarg) if one is not None)]


def _margin(node: Definition, source: str) -> str:
    """What the body of a function at the left margin is indented by."""
    first = node.body[0]
    line = split_lines(source)[first.lineno - 1]
    return line[: len(line) - len(line.lstrip())] if first.lineno > node.lineno else "    "


def _helpers(own: Module, function: Function, theirs: Module, found: Function) -> Iterator[str]:
    """Further methods of the program's class that the module's class does not have, at the left margin."""
    if not found.owner or not function.owner:
        return
    known = {one.name for one in own.functions if one.owner == function.owner}
    for one in theirs.functions:
        if one.owner == found.owner and one.name not in known:
            yield one.source


def _is_new(node: ast.stmt, found: Function, known: set[str]) -> bool:
    """A helper beside the function: something it defines under a name that the module does not know."""
    if isinstance(node, ast.ClassDef) and node.name == found.qualname.partition(".")[0]:
        return False
    if not isinstance(node, Definition | ast.ClassDef | ast.Assign | ast.AnnAssign):
        return False
    names = _bound([node])
    return bool(names) and not names & known


def _is_missing_import(node: ast.stmt, tree: ast.Module) -> bool:
    if not isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.ImportFrom) and _is_future(node)):
        return False
    bound = {(one.name, one.asname) for one in node.names}
    source = node.module if isinstance(node, ast.ImportFrom) else None
    for other in tree.body:
        if type(other) is type(node) and (other.module if isinstance(other, ast.ImportFrom) else None) == source:
            assert isinstance(other, ast.Import | ast.ImportFrom)
            bound -= {(one.name, one.asname) for one in other.names}
    return bool(bound)


def _is_future(node: ast.ImportFrom) -> bool:
    return node.module == "__future__"


def _bound(body: list[ast.stmt]) -> set[str]:
    """Names that these statements define."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, Definition | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(one.asname or one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
        elif isinstance(node, ast.If | ast.Try):
            found |= _bound([*node.body, *node.orelse, *(s for one in getattr(node, "handlers", []) for s in one.body)])
    return found


def _first_line(node: ast.stmt) -> int:
    marks = node.decorator_list if isinstance(node, Definition | ast.ClassDef) else []
    return min([node.lineno, *(one.lineno for one in marks)])


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _text(one: Module, node: ast.stmt) -> str:
    return "".join(one.lines[_first_line(node) - 1 : _last_line(node)]).rstrip("\n") + "\n"
