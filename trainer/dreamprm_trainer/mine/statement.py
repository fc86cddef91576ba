"""What a function is to do, in words: its docstring, and the types and callers around it. And its module without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dreamprm_trainer.mine.functions import Class, Function, Module, indented

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
    """The module with the function's body cut out, and the bodies of all that are `hidden`. Of a long module the bodies
    that stay are those of functions it calls, then the nearest, up to 4,000 letters."""
    bodies = {
        one: "".join(module.lines[one.body_line - 1 : one.last_line])
        for one in module.functions
        if one is function or (one.body_line <= one.last_line and not one.on_one_line)
    }
    size = len(module.text) - sum(map(len, bodies.values()))
    near = sorted(bodies, key=lambda one: (one.name not in function.calls, abs(one.first_line - function.first_line)))
    shown: set[Function] = set()
    for one in near:
        if one is not function and not hidden(one) and size + len(bodies[one]) <= _CONTEXT:
            size += len(bodies[one])
            shown.add(one)
    parts: list[str] = []
    at, here = 0, 0
    for one in sorted(bodies, key=lambda one: one.first_line):
        if one.on_one_line:
            parts += [*module.lines[at : one.first_line - 1], indented(one.head, one.indent)]
        else:
            parts += module.lines[at : one.body_line - 1]
        if one is function:
            here = sum(map(len, parts))
        parts.append(bodies[one] if one in shown else f"{_margin(module, one)}...\n")
        at = one.last_line
    text = unfenced("".join([*parts, *module.lines[at:]]))
    if len(text) <= _CONTEXT:
        return text
    start = text.rfind("\n", 0, max(0, min(here - _CONTEXT * 2 // 3, len(text) - _CONTEXT))) + 1
    return text[start : text.rfind("\n", 0, start + _CONTEXT) + 1]


def _margin(module: Module, function: Function) -> str:
    """What the function's body is indented by."""
    bare = function.on_one_line or function.body_line > function.last_line  # a docstring alone has no body below it
    line = "" if bare else module.lines[function.body_line - 1]
    return line[: len(line) - len(line.lstrip())] or f"{function.indent}    "
