"""What a function is to do, in words: its docstring, and the types and callers around it. And its module without it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence

from dreamprm_trainer.mine.functions import (
    Class,
    Definition,
    Function,
    Module,
    Unreadable,
    indented,
    parsed,
    split_lines,
)

_MOST_CALLERS = 3
_MOST_TYPES = 3
_CONTEXT = 4000  # letters: some 1,200 tokens, of the 2,560 that the PRM reads of a problem


def statement(function: Function, callers: Sequence[tuple[str, str]], types: Sequence[Class]) -> str:
    """The task's text. callers: (function, line of the call); types: classes that the signature names, and its own."""
    kind = "method" if function.owner else "function"
    parts = [f"Write the {kind} `{function.qualname}` of `{function.path}`."]
    parts.append(unfenced(function.docstring) or "Its name, its signature and what surrounds it say what it does.")
    if types:
        parts.append("Types around it:\n" + _fenced("\n\n".join(one.outline for one in types[:_MOST_TYPES])))
    if callers:
        lines = [f"{line}  # {name}" for name, line in callers[:_MOST_CALLERS]]
        parts.append("It is called like this:\n" + _fenced("\n".join(lines)))
    return "\n\n".join(parts)


def brief(code: str) -> str:
    """A function at the left margin with the first line of its docstring alone: the statement has the rest."""
    try:
        node = parsed(code).body[0]
    except Unreadable:  # a head without a docstring
        return code
    if not isinstance(node, Definition) or not (text := ast.get_docstring(node)):
        return code
    said, lines = node.body[0], split_lines(code)
    last = said.end_lineno or said.lineno
    before, after = lines[said.lineno - 1][: said.col_offset], lines[last - 1].encode()[said.end_col_offset :]
    if before.strip() or after.strip():
        return code
    first = text.strip().partition("\n")[0].replace("\\", "\\\\").replace('"""', "'''")
    first += " " if first.endswith('"') else ""
    lines[said.lineno - 1 : last] = [f'{before}"""{first}"""\n']
    return "".join(lines)


def unfenced(text: str) -> str:
    """Code fences in the text of another shape: a policy that repeats a docstring would end its answer with it."""
    return text.replace("```", "~~~")


def _fenced(code: str) -> str:
    return f"```python\n{unfenced(code)}\n```"


class Surroundings:
    """Callers and types of all functions of a repository, by name."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self._callers: dict[str, list[tuple[Function, str]]] = {}
        self._classes: dict[str, list[Class]] = {}
        for one in modules:
            for function in one.functions:
                for name, line in function.calls.items():
                    self._callers.setdefault(name, []).append((function, line))
            for kind in one.classes:
                self._classes.setdefault(kind.qualname.rpartition(".")[2], []).append(kind)

    def statement(self, function: Function, shown: Callable[[Function], bool]) -> str:
        """The function's task; callers that are not to be `shown` are not."""
        # A name that half of the repository calls says little about which function is meant.
        callers = [
            (caller.qualname, line)
            for caller, line in self._callers.get(function.name, [])
            if caller.id != function.id and shown(caller)
        ]
        callers.sort(key=lambda pair: pair[0])
        own = function.owner.rpartition(".")[2]
        wanted = [own, *sorted(function.annotations - {own})] if own else sorted(function.annotations)
        types = [self._nearest(function, name) for name in wanted if name in self._classes]
        return statement(function, callers, types)

    def _nearest(self, function: Function, name: str) -> Class:
        """Of the classes of that name the one in the same file, else the first."""
        return min(self._classes[name], key=lambda one: (one.path != function.path, one.path, one.qualname))


def context(module: Module, function: Function, hidden: Callable[[Function], bool]) -> str:
    """The module around a function, of which the signature is left: up to 4,000 letters.

    What stands outside functions is there; half of the room goes to functions that it calls, and then to the nearest,
    as they are (of those that are `hidden`, head and docstring), the other half first to signatures of the others.
    """
    forms = {one: _forms(module, one, hidden(one)) for one in module.functions}
    order = sorted(forms, key=lambda one: (one.name not in function.calls, abs(one.first_line - function.first_line)))
    order.remove(function)
    chosen = {function: forms[function][0]}
    outside = len(module.text) - sum(len(_lines(module, one.first_line, one.last_line)) for one in forms)
    room = _CONTEXT - outside - len(chosen[function])

    def offer(which: int, spare: int) -> None:
        nonlocal room
        for one in order:
            more = len(forms[one][which]) - len(chosen.get(one, ""))
            if 0 <= more <= room - spare:
                chosen[one] = forms[one][which]
                room -= more

    offer(_WHOLE, room // 2)
    offer(_SIGNATURE, 0)
    offer(_WHOLE, 0)
    parts: list[str] = []
    at, here = 0, 0
    for one in sorted(forms, key=lambda one: one.first_line):
        parts += module.lines[at : one.first_line - 1]
        here = sum(map(len, parts)) if one is function else here
        parts.append(chosen.get(one, ""))
        at = one.last_line
    return _around(unfenced(_GAPS.sub("\n\n\n", "".join([*parts, *module.lines[at:]]))), here)


_SIGNATURE, _WHOLE = 0, 1
_GAPS = re.compile(r"\n(?:[ \t]*\n){3,}")


def _forms(module: Module, one: Function, hidden: bool) -> tuple[str, str]:
    """A function's signature, and the most that may be shown of it."""
    whole = _lines(module, one.first_line, one.last_line)
    empty = f"{_margin(module, one)}...\n"
    if one.on_one_line:
        head = indented(one.head, one.indent).rstrip().rstrip(";")
        signature = documented = f"{head}\n{empty}" if head.endswith(":") else f"{head}\n"
    elif one.inner_line > one.last_line:  # a docstring on the signature's line, and nothing else
        return whole, whole
    else:
        signature = _lines(module, one.first_line, one.inner_line - 1) + empty
        documented = _lines(module, one.first_line, one.body_line - 1) + empty
    return signature, documented if hidden else whole


def _lines(module: Module, first: int, last: int) -> str:
    return "".join(module.lines[first - 1 : last])


def _around(text: str, here: int) -> str:
    """What fits of a text, two thirds of it before `here`."""
    if len(text) <= _CONTEXT:
        return text
    start = text.rfind("\n", 0, max(0, min(here - _CONTEXT * 2 // 3, len(text) - _CONTEXT))) + 1
    return text[start : text.rfind("\n", 0, start + _CONTEXT) + 1]


def _margin(module: Module, one: Function) -> str:
    """What the function's body is indented by."""
    if one.on_one_line or one.inner_line > one.last_line:
        return f"{one.indent}    "
    line = module.lines[one.inner_line - 1]
    return line[: len(line) - len(line.lstrip())]
