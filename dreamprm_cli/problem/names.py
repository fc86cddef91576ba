"""The names a problem holds: its language, and its entry point (None, "name" or "Class.method")."""

from __future__ import annotations

import difflib
import keyword
import re

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.prompts import LANGUAGE_NAMES

LANGUAGE_ALIASES = {
    "py": "python", "python3": "python", "js": "javascript", "ts": "typescript", "c++": "cpp", "cxx": "cpp",
    "cc": "cpp", "golang": "go", "rs": "rust",
}  # fmt: skip

_DEF = re.compile(r"^(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)
_CLASS = re.compile(r"^class[ \t]+(\w+)[^\n]*\n?", re.MULTILINE)
_METHOD = re.compile(r"^[ \t]+(?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\(", re.MULTILINE)
_STRING = re.compile(r'("""|\'\'\')(?:\\.|(?!\1).)*\1', re.DOTALL)


def language_name(value: str, where: str) -> str:
    """The language as the rest of the program knows it. Raises ProblemError naming those there are."""
    name = value.strip().lower()
    name = LANGUAGE_ALIASES.get(name, name)
    if name not in LANGUAGE_NAMES:
        close = difflib.get_close_matches(name, LANGUAGE_NAMES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ProblemError(f"{where}: unknown language {value!r}", f"{hint}known: {', '.join(LANGUAGE_NAMES)}")
    return name


def infer_entry_point(starter_code: str) -> str | None:
    """The one function, or `Solution.method` of a class Solution with one method; None when it is not plain.

    By pattern, since starter code often ends after a `def` line and does not parse. Methods beginning with `_` do
    not count.
    """
    code = _STRING.sub("''", starter_code)
    functions = _DEF.findall(code)
    classes = list(_CLASS.finditer(code))
    if len(functions) == 1 and not classes:
        return str(functions[0])
    solutions = [found for found in classes if found[1] == "Solution"]
    if functions or len(solutions) != 1:
        return None
    body = code[solutions[0].end() :]
    next_class = _CLASS.search(body)
    methods = _METHOD.findall(body[: next_class.start()] if next_class else body)
    public = [name for name in methods if not name.startswith("_")]
    return f"Solution.{public[0]}" if len(public) == 1 else None


def check_entry_point(entry_point: str, language: str, where: str) -> None:
    """Raises ProblemError unless it is an identifier, or two joined by a dot."""
    names = entry_point.split(".")
    fine = len(names) <= 2 and all(name.isidentifier() for name in names)
    if language == "python":
        fine = fine and not any(keyword.iskeyword(name) for name in names)
    elif language in ("javascript", "typescript"):
        fine = len(names) <= 2 and all(name.replace("$", "_").isidentifier() for name in names)
    if not fine:
        raise ProblemError(f"{where}: entry_point {entry_point!r} is not a name", "write `name` or `Class.method`")
