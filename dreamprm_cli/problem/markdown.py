"""Markdown -> Problem.

---
id: merge-intervals            # all of these are optional: id, title, language, entry_point,
time_limit_s: 2                # time_limit_s, tests (a path, from the file's folder, of a pytest suite)
---
# Merge intervals              the first heading is the title
Text of the task.
```python starter              the first fence marked `starter` is the starter code; it leaves the text
def merge(intervals):
```
```input                       paired fences are examples; they stay in the text, labelled.
3                              For a function: its arguments, one JSON value a line.
```
```output
2
```
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.problem.names import LANGUAGE_ALIASES, check_entry_point, infer_entry_point, language_name
from dreamprm_cli.prompts import LANGUAGE_NAMES
from dreamprm_cli.types import Example, Problem, Tests

KEYS = ("id", "title", "language", "entry_point", "time_limit_s", "tests")
_FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,})(?P<info>.*)")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(?P<title>.*?)[ \t]*#*[ \t]*")


@dataclass(frozen=True, slots=True)
class _Fence:
    """A fenced block: `line` (from 1) of its opening, the words after the marks, and its text."""

    line: int
    words: tuple[str, ...]
    text: str


def parse_markdown(text: str, where: str, *, problem_id: str, folder: Path = Path()) -> Problem:
    """The problem in `text`. `where` names the file in errors, `problem_id` is its id if it names none itself.

    folder: what a path in `tests` starts from. Raises ProblemError.
    """
    front, body_line, body = _split_front_matter(text, where)
    given = _front_matter(front, where)
    starter, examples, statement, title = _body(body, body_line, where)
    language = _language(given, starter, where)
    starter_code = starter.text if starter else ""
    entry_point = given.get("entry_point")
    if entry_point is not None:
        check_entry_point(entry_point, language, where)
    elif language == "python":
        entry_point = infer_entry_point(starter_code)
    if not statement:
        raise ProblemError(f"{where}: no text says what is to be done")
    return Problem(
        id=given.get("id") or problem_id,
        statement=statement,
        starter_code=starter_code,
        entry_point=entry_point,
        tests=_tests(given.get("tests"), examples, where, folder),
        title=given.get("title") or title,
        language=language,
        time_limit_s=given.get("time_limit_s"),
    )


def _split_front_matter(text: str, where: str) -> tuple[str, int, str]:
    """(YAML, line on which the body starts, body); the YAML is empty when there is none."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return "", 1, text
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() in ("---", "..."):
            return "\n".join(lines[1:number]), number + 2, "\n".join(lines[number + 1 :])
    raise ProblemError(f"{where}:1: the front matter is not closed", "end it with a line `---`")


def _front_matter(front: str, where: str) -> dict[str, Any]:
    """Its values, checked; absent and null ones are left out. Line numbers count the opening `---`."""
    try:
        node = yaml.compose(front, Loader=yaml.SafeLoader)
        values = yaml.safe_load(front)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 1
        raise ProblemError(f"{where}:{line}: front matter is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProblemError(f"{where}:1: front matter is not valid YAML: {said}") from None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise ProblemError(f"{where}:2: front matter must be `key: value` lines")
    checked: dict[str, Any] = {}
    for key_node, value_node in node.value:
        at = f"{where}:{key_node.start_mark.line + 2}"
        key = str(key_node.value)
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"keys are {', '.join(KEYS)}"
            raise ProblemError(f"{at}: unknown key {key!r} in the front matter", hint)
        if key in checked:
            raise ProblemError(f"{at}: {key} is given twice")
        if values[key] is None:
            continue
        if not isinstance(value_node, yaml.ScalarNode):
            raise ProblemError(f"{at}: {key} must be {_WANTED[key]}, not a {value_node.id}")
        # The text as it stands: `id: 1.10` is not 1.1, `title: No` is not False.
        checked[key] = _READERS.get(key, _text)(value_node.value, key, at)
    return checked


def _text(value: str, key: str, at: str) -> str:
    if not value.strip():
        raise ProblemError(f"{at}: {key} is empty")
    return value.strip()


def _seconds(value: str, key: str, at: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ProblemError(f"{at}: {key} must be {_WANTED[key]}, not {value!r}")
    return seconds


def _language_value(value: str, _key: str, at: str) -> str:
    return language_name(value, at)


_WANTED = {**dict.fromkeys(KEYS, "one line of text"), "time_limit_s": "a number of seconds above 0"}
_READERS: Mapping[str, Callable[[str, str, str], Any]] = {"time_limit_s": _seconds, "language": _language_value}


def _body(body: str, first_line: int, where: str) -> tuple[_Fence | None, tuple[Example, ...], str, str]:
    """(starter fence, examples, statement without the starter, first heading) of the text after the front matter."""
    starter: _Fence | None = None
    pending: _Fence | None = None  # an input that waits for its output
    examples: list[Example] = []
    kept: list[str] = []
    title = ""
    lines = body.split("\n")
    at = 0
    while at < len(lines):
        opening = _FENCE.fullmatch(lines[at])
        # A backtick in the info string of a backtick fence: inline code, not a fence (CommonMark).
        if opening is None or (opening["mark"][0] == "`" and "`" in opening["info"]):
            heading = _HEADING.fullmatch(lines[at])
            title = title or (heading["title"] if heading else "")
            kept.append(lines[at])
            at += 1
            continue
        fence, end = _read_fence(lines, at, opening, first_line, where)
        source = lines[at:end]
        at = end
        role = next((word for word in ("input", "output", "starter") if word in fence.words), "")
        if role == "starter" and starter is None:
            starter = fence
            if kept and not kept[-1].strip():  # one blank line where it stood, not two
                kept.pop()
            continue
        if role == "input":
            if pending is not None:
                raise ProblemError(f"{where}:{pending.line}: this input has no output (another input follows)")
            pending = fence
        elif role == "output":
            if pending is None:
                raise ProblemError(f"{where}:{fence.line}: this output has no input before it")
            examples.append(Example(pending.text, fence.text))
            pending = None
        if role in ("input", "output"):
            source = _labelled(role, fence)
        kept += source
    if pending is not None:
        raise ProblemError(f"{where}:{pending.line}: this input has no output")
    return starter, tuple(examples), "\n".join(kept).strip(), title


def _read_fence(lines: list[str], at: int, opening: re.Match[str], first_line: int, where: str) -> tuple[_Fence, int]:
    """The fence that opens on lines[at], and the index of the line after it."""
    mark = opening["mark"]
    indent = len(lines[at]) - len(lines[at].lstrip(" "))
    closing = re.compile(rf" {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*")
    for end in range(at + 1, len(lines)):
        if closing.fullmatch(lines[end]):
            content = [re.sub(rf"^ {{0,{indent}}}", "", line) for line in lines[at + 1 : end]]
            text = "".join(f"{line}\n" for line in content)
            return _Fence(first_line + at, tuple(opening["info"].lower().split()), text), end + 1
    raise ProblemError(f"{where}:{first_line + at}: this fence is not closed", f"end it with a line {mark}")


def _labelled(role: str, fence: _Fence) -> list[str]:
    """An example as a model reads it best: a label and a plain block."""
    marks = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", fence.text))])
    return [f"{role.capitalize()}:", marks, *fence.text.removesuffix("\n").split("\n"), marks]


def _language(given: Mapping[str, Any], starter: _Fence | None, where: str) -> str:
    """The front matter's language, else the starter fence's, else Python; they must not differ."""
    named = given.get("language")
    for word in starter.words if starter else ():
        fenced = LANGUAGE_ALIASES.get(word, word)
        if fenced in LANGUAGE_NAMES:
            if named not in (None, fenced):
                assert starter is not None
                raise ProblemError(f"{where}:{starter.line}: the starter code is {fenced}, but language is {named}")
            return fenced
    return named or "python"


def _tests(named: str | None, examples: tuple[Example, ...], where: str, folder: Path) -> Tests:
    if named is None:
        return Tests("examples" if examples else "none", examples)
    path = folder / Path(named).expanduser()
    if not path.exists():
        raise ProblemError(f"{where}: tests: there is no {path}")
    return Tests("pytest", examples, {"path": str(path.absolute())})
