"""The function that `dreamprm solve --target PATH::NAME` is to write: found in its file, and a program put in its
place, with every other byte of the file as it was.

A function that is not there yet is taken from the signature that the problem's starter code gives: as the last of its
class, or at the end of its module.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_trainer.mine import layout
from dreamprm_trainer.mine.functions import (
    EMPTY,
    Definition,
    Function,
    Module,
    Unreadable,
    decoded,
    encoded,
    indented,
    module,
    parsed,
    split_lines,
    with_code,
)
from dreamprm_trainer.mine.placing import answering, emptied, placed

_LINE = re.compile(rb"[^\n]*\n|[^\n]+")  # as git counts
_NEAR = 3  # names told
_WAITING = "raise NotImplementedError"


@dataclass(frozen=True, slots=True)
class Target:
    """data: the file as it lies on disk. module: its text, with a stub in it where the function is new."""

    path: str
    data: bytes
    module: Module
    function: Function

    def runnable(self) -> bytes:
        """The file with a body to reach in the function: a docstring alone leaves no line that a test could run."""
        if self.function.body_line <= self.function.last_line:
            return encoded(self.module, self.module.text)
        return with_code(self.module, self.function, emptied(self.function, "pass"))

    def changed(self, program: str) -> bytes:
        """The file with a program in the function's place. Raises Unreadable for one that does not fit there."""
        text = placed(self.module, self.function, program)
        parsed(text)
        return encoded(self.module, _as_it_was(_lines(self.data), split_lines(text)))

    def diff(self, data: bytes) -> bytes:
        """From the file on disk to `data`, as `git apply` takes it; empty where they are equal."""
        name = self.path.encode("utf-8", "surrogateescape")
        before, after = (_LINE.findall(one) for one in (self.data, data))
        lines = difflib.diff_bytes(difflib.unified_diff, before, after, b"a/" + name, b"b/" + name)
        return b"".join(line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in lines)


def find(files: Mapping[str, bytes], name: str, starter: str = "") -> Target:
    """The target among a repository's files. name: `PATH::function` or `PATH::Class.method`; starter: code that gives
    the signature of one that is not there. Raises ConfigError, ProblemError."""
    path, mark, qualname = name.partition("::")
    path, qualname = str(PurePosixPath(path)), qualname.strip()
    if not mark or not qualname:
        raise ConfigError(f"--target {name!r} names no function", "write PATH.py::function or PATH.py::Class.method")
    if path not in files:
        raise ProblemError(f"the repository has no file {path}", _nearby_file(files, path, qualname))
    data = files[path]
    try:
        own = module(path, data)
        stub = "" if any(one.qualname == qualname for one in own.functions) else _stub(qualname, starter)
        if stub:
            own = module(path, encoded(own, _with_stub(own, qualname, stub)))
    except Unreadable as error:
        raise ProblemError(f"{path}: {error}") from None
    function = next((one for one in own.functions if one.qualname == qualname), None)
    if function is None:
        raise ProblemError(f"{path}: no function {qualname}", _nearby_name(own, qualname))
    if function.unfit not in ("", EMPTY):
        raise ProblemError(f"{path}: {qualname} cannot be a target: {function.unfit}")
    found = Target(path, data, own, function)
    try:
        module(path, found.runnable())
    except Unreadable:
        raise ProblemError(f"{path}: {qualname} cannot be a target: on one line with its docstring") from None
    return found


def _lines(data: bytes) -> list[str]:
    """A file's lines with the ends that they have. Raises Unreadable."""
    _, encoding = decoded(data)
    return split_lines(data.decode(encoding))


def _as_it_was(before: list[str], after: list[str]) -> str:
    """`after` with the line ends of `before`: of lines that stay their own, of new ones those that most lines have, and
    none at the end of a file that had none."""
    texts = [line.rstrip("\r\n") for line in before]
    ends = [line[len(text) :] for line, text in zip(before, texts, strict=True)]
    usual = max(("\n", "\r\n", "\r"), key=ends.count)
    made = [line.rstrip("\n") for line in after]
    found = [usual] * len(made)
    for a, b, size in difflib.SequenceMatcher(None, texts, made, autojunk=False).get_matching_blocks():
        found[b : b + size] = (end or usual for end in ends[a : a + size])
    if ends and not ends[-1]:
        found[-1:] = [""]
    return "".join(map(str.__add__, made, found))


def _stub(qualname: str, starter: str) -> str:
    """The function with nothing in it, at the left margin; empty where the starter code does not define it."""
    signature = starter.rstrip()
    last = signature.rpartition("\n")[2]
    margin = last[: len(last) - len(last.lstrip())]
    for code in (starter, f"{signature}\n{margin}    ...\n"):  # a signature alone is no code yet
        try:
            return emptied(answering(module("starter", code.encode("utf-8", "replace")), qualname), _WAITING)
        except Unreadable:
            continue
    return ""


def _with_stub(own: Module, qualname: str, stub: str) -> str:
    """The module's text with one more function. Raises Unreadable where its class is not there."""
    tree, lines = parsed(own.text), list(own.lines)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if "." in qualname:
        owner = _class(tree, qualname.split(".")[:-1])
        first = lines[owner.body[0].lineno - 1]
        indent = first[: len(first) - len(first.lstrip())] if owner.body[0].lineno > owner.lineno else "    "
        at, text = owner.end_lineno or len(lines), f"\n{indented(stub, indent)}"
    else:
        at = next((node.lineno - 1 for node in tree.body if _is_script(node)), len(lines))
        text = f"{stub}\n\n" if at < len(lines) else f"\n\n{stub}" if lines else stub
    return "".join([*lines[:at], text, *lines[at:]])


def _class(tree: ast.Module, names: list[str]) -> ast.ClassDef:
    body: list[ast.stmt] = tree.body
    node = None
    for name in names:
        node = next((one for one in body if isinstance(one, ast.ClassDef) and one.name == name), None)
        if node is None:
            raise Unreadable(f"no class {name}")
        body = node.body
    assert node is not None
    return node


def _is_script(node: ast.stmt) -> bool:
    """Whether it is the `if __name__ == ...` at a module's end."""
    return isinstance(node, ast.If) and any(
        isinstance(one, ast.Name) and one.id == "__name__" for one in ast.walk(node.test)
    )


def _nearby_file(files: Mapping[str, bytes], path: str, qualname: str) -> str:
    """A hint: files of nearly that path, else those that seem to define the function."""
    known = [one for one in files if layout.is_python(one)]
    near = difflib.get_close_matches(path, known, _NEAR)
    near += [one for one in known if PurePosixPath(one).name == PurePosixPath(path).name and one not in near]
    if not near:
        line = re.compile(rb"^\s*(async\s+)?def\s+%s\b" % re.escape(qualname.rpartition(".")[2]).encode(), re.MULTILINE)
        near = [one for one in known if line.search(files[one])]
    return f"did you mean {' or '.join(f'{one}::{qualname}' for one in near[:_NEAR])}?" if near else ""


def _nearby_name(own: Module, qualname: str) -> str:
    """A hint: functions of nearly that name, or why one of that name is none."""
    name = qualname.rpartition(".")[2]
    known = [one.qualname for one in own.functions if one.unfit in ("", EMPTY)]
    same = [one for one in known if one.rpartition(".")[2] == name]
    near = list(dict.fromkeys([*same, *difflib.get_close_matches(qualname, known, _NEAR)]))[:_NEAR]
    if near:
        return f"did you mean {' or '.join(f'{own.path}::{one}' for one in near)}?"
    if any(isinstance(node, Definition) and node.name == name for node in ast.walk(parsed(own.text))):
        return "it is defined within a function or under a condition, where it cannot be replaced"
    return "for one that is still to be written, give a problem with its signature in a fence marked `starter`"
