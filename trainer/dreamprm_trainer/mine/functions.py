"""The functions of a module's text: what each looks like, how it is cut out, and how another is put in its place.

Functions on the module's top level and methods of classes (classes in classes too). Lines count from 1, both ends
included; a function's first line is that of its first decorator.
"""

from __future__ import annotations

import ast
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO, StringIO

from dreamprm_trainer.overlap import triples

_LONGEST = 200  # lines
EMPTY = "nothing in it"  # no task, but a function that waits for its body
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
Definition = ast.FunctionDef | ast.AsyncFunctionDef


class Unreadable(Exception):
    """The text is no Python that can be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """`source` and `head` (decorators, signature and docstring) are moved to the left margin."""

    path: str
    qualname: str  # "name", "Class.name", "Class.Inner.name"
    first_line: int
    inner_line: int  # of the docstring, or of the first statement where there is none
    body_line: int  # of the first statement after the docstring
    last_line: int
    on_one_line: bool  # the body begins on the last line of the signature
    indent: str
    head: str
    source: str
    docstring: str
    annotations: frozenset[str]  # names in the annotations of the signature
    calls: dict[str, str]  # called name -> the line of the first such call
    shingles: frozenset[int]  # of the syntax tree: equal for equal code, whatever its names
    unfit: str  # why it can be no task; empty when it can

    @property
    def id(self) -> str:
        return f"{self.path}::{self.qualname}"

    @property
    def name(self) -> str:
        return self.qualname.rpartition(".")[2]

    @property
    def owner(self) -> str:
        """The class it is a method of; empty for a function."""
        return self.qualname.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Class:
    path: str
    qualname: str
    outline: str  # its head, fields, and the signature of `__init__`


@dataclass(frozen=True, slots=True)
class Module:
    """`text` has "\\n" line ends; `encoding` is what the file is written in."""

    path: str
    text: str
    encoding: str
    functions: tuple[Function, ...] = ()
    classes: tuple[Class, ...] = ()
    lines: tuple[str, ...] = field(default=(), repr=False)


def decoded(data: bytes) -> tuple[str, str]:
    """(text, encoding) as Python would read the file. Raises Unreadable."""
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise Unreadable(f"not text in its encoding ({str(error).splitlines()[0][:80]})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def parsed(text: str) -> ast.Module:
    """The syntax tree. Raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in a stranger's strings
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(f"does not parse ({str(error).splitlines()[0][:80]})") from None


def module(path: str, data: bytes) -> Module:
    """The module in a file's bytes. Raises Unreadable."""
    text, encoding = decoded(data)
    tree = parsed(text)
    lines = split_lines(text)
    try:
        found = list(_definitions(tree.body, ""))
        counts: dict[str, int] = {}
        for name, _ in found:
            counts[name] = counts.get(name, 0) + 1
        functions = [
            _function(path, name, node, lines, counts[name])
            for name, node in found
            if not isinstance(node, ast.ClassDef)
        ]
        classes = [Class(path, name, _outline(node, lines)) for name, node in found if isinstance(node, ast.ClassDef)]
    except RecursionError:
        raise Unreadable("nested too deep") from None
    return Module(path, text, encoding, tuple(functions), tuple(classes), tuple(lines))


def split_lines(text: str) -> list[str]:
    """The lines as Python counts them (a form feed ends none), each with its end."""
    return _LINE.findall(text)


def texts(data: bytes) -> dict[str, str]:
    """The functions of a file as they stand in it, by qualified name; those defined twice are none of them. Cheaper
    than `module`. Raises Unreadable."""
    text, _ = decoded(data)
    lines = split_lines(text)
    found: dict[str, list[str]] = {}
    for name, node in _definitions(parsed(text).body, ""):
        if not isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found.setdefault(name, []).append("".join(lines[first - 1 : node.end_lineno]))
    return {name: some[0] for name, some in found.items() if len(some) == 1}


def at_margin(text: str) -> str:
    """A function as it stands in its file, moved to the left margin."""
    indent = text[: len(text) - len(text.lstrip(" \t\f"))]
    whole = f"if 1:\n{text}" if indent else text
    try:
        inside = _inside_strings(parsed(whole), split_lines(whole))
    except Unreadable:
        inside = frozenset()
    # The line put before it moved the others down by one.
    lines = _moved(split_lines(text), 2 if indent else 1, inside, indent)
    return "".join(lines).rstrip("\n") + "\n"


def _definitions(body: Sequence[ast.stmt], owner: str) -> Iterator[tuple[str, Definition | ast.ClassDef]]:
    for node in body:
        if isinstance(node, Definition | ast.ClassDef):
            yield owner + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{owner}{node.name}.")


def _function(path: str, qualname: str, node: Definition, lines: Sequence[str], count: int) -> Function:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last = node.end_lineno or node.lineno
    indent = lines[node.lineno - 1][: len(lines[node.lineno - 1]) - len(lines[node.lineno - 1].lstrip(" \t\f"))]
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    start = min([body[0].lineno, *(one.lineno for one in getattr(body[0], "decorator_list", []))]) if body else last + 1
    # A docstring on the signature's last line cannot be parted from it.
    inside_line = start if len(body) == len(node.body) or _before(node.body[0], lines) else node.body[0].lineno
    inside = _inside_strings(node, lines)
    head = "".join(_moved(lines[first - 1 : start - 1], first, inside, indent))
    before = _before(body[0], lines) if body else ""
    if before:  # the body begins on the signature's last line
        head += f"{before}\n"
    signature = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    signature += [one for one in (node.args.vararg, node.args.kwarg) if one is not None]
    types = [one.annotation for one in signature if one.annotation] + ([node.returns] if node.returns else [])
    calls: dict[str, str] = {}
    for inner in (inner for statement in body for inner in ast.walk(statement)):
        if isinstance(inner, ast.Call):
            called = inner.func
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            calls.setdefault(name, lines[inner.lineno - 1].strip()[:160])
    return Function(
        path=path,
        qualname=qualname,
        first_line=first,
        inner_line=inside_line,
        body_line=start,
        last_line=last,
        on_one_line=bool(before),
        indent=indent,
        head=head,
        source="".join(_moved(lines[first - 1 : last], first, inside, indent)).rstrip("\n") + "\n",
        docstring=(ast.get_docstring(node) or "").strip(),
        annotations=frozenset(name for one in types for name in _names(one)),
        calls={name: line for name, line in calls.items() if name},
        shingles=frozenset(map(hash, triples(body))),
        unfit=_unfit(node, body, last - first + 1, count) or ("on one line" if before.endswith(";") else ""),
    )


def _before(node: ast.stmt, lines: Sequence[str]) -> str:
    """The code in front of a statement on its first line."""
    return lines[node.lineno - 1].encode()[: node.col_offset].decode().strip()


def _unfit(node: Definition, body: Sequence[ast.stmt], length: int, count: int) -> str:
    marks = {_last_name(one) for one in node.decorator_list}
    if count > 1:
        return "defined more than once"
    if "overload" in marks or "abstractmethod" in marks:
        return "no body of its own"
    if all(_says_nothing(one) for one in body):
        return EMPTY
    return f"longer than {_LONGEST} lines" if length > _LONGEST else ""


def _says_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Raise(exc=exc) if exc is not None:
            return _last_name(exc) == "NotImplementedError"
    return False


def _last_name(node: ast.expr) -> str:
    match node:
        case ast.Call(func=called):
            return _last_name(called)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _names(annotation: ast.expr) -> Iterator[str]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+", node.value)


def _outline(node: ast.ClassDef, lines: Sequence[str]) -> str:
    """The class's own line, its fields and how it is made: at most ten lines."""
    shown = [lines[node.lineno - 1].strip()]
    for inner in node.body:
        if isinstance(inner, ast.AnnAssign) or (isinstance(inner, Definition) and inner.name == "__init__"):
            shown.append("    " + lines[inner.lineno - 1].strip())
    return "\n".join(shown[:10])


def _inside_strings(tree: ast.AST, lines: Sequence[str]) -> frozenset[int]:
    """Of the lines that the tree was read from those that begin inside a string: moving them would change it."""
    found: set[int] = set()
    parts: set[ast.expr] = set()  # of an f-string: they lie in what is looked at as a whole
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
        elif not (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)):
            continue
        if node not in parts and (last := node.end_lineno or node.lineno) > node.lineno:
            # Strings that stand one below the other are one node; lines of them begin in a string or do not.
            first = lines[node.lineno - 1].encode()[node.col_offset :].decode("utf-8", "replace")
            text = first + "".join(lines[node.lineno : last])
            found.update(node.lineno + row for row in _rows_in_strings(text))
    return frozenset(found)


def _rows_in_strings(text: str) -> Iterator[int]:
    """The lines, from 0, of code that begins with a string, which begin inside a string."""
    deep = start = 0
    with suppress(tokenize.TokenError, SyntaxError):  # what follows the string may be no code by itself
        for token in tokenize.generate_tokens(StringIO(f"({text}").readline):
            kind = tokenize.tok_name[token.type]
            if kind == "FSTRING_START":
                start, deep = start if deep else token.start[0], deep + 1
            elif kind == "FSTRING_END":
                deep -= 1
            first = start if kind == "FSTRING_END" and not deep else token.start[0] if kind == "STRING" else 0
            if first and not deep:
                yield from range(first, token.end[0])


def _moved(lines: Sequence[str], first: int, inside: frozenset[int], indent: str) -> Iterator[str]:
    for number, line in enumerate(lines, first):
        yield line.removeprefix(indent) if number not in inside else line


def moved(module: Module, first: int, last: int, indent: str) -> Iterator[str]:
    """The module's lines `first` to `last` without that indent; what lies inside strings stays."""
    return _moved(module.lines[first - 1 : last], first, _inside_strings(parsed(module.text), module.lines), indent)


def indented(code: str, indent: str) -> str:
    """Code at the left margin, moved in; what lies inside strings stays."""
    try:
        inside = _inside_strings(parsed(code), split_lines(code))
    except Unreadable:
        inside = frozenset()
    return "".join(
        line if number in inside or not line.strip() else indent + line
        for number, line in enumerate(split_lines(code), 1)
    )


def with_code(module: Module, function: Function, code: str) -> bytes:
    """The module's file with `code` (at the left margin) in the function's place."""
    code = code.replace("\r\n", "\n").rstrip("\n") + "\n"
    lines = module.lines
    text = "".join([*lines[: function.first_line - 1], indented(code, function.indent), *lines[function.last_line :]])
    return encoded(module, text)


def encoded(module: Module, text: str) -> bytes:
    """A text for the module's file, in its encoding."""
    return text.encode(module.encoding, "backslashreplace")
