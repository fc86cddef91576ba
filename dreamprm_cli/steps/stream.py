"""The stream of text cut into lines, and the lines given to the outline of their language."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.steps.brace_languages import BRACE_LANGUAGES
from dreamprm_cli.steps.braces import BraceOutline
from dreamprm_cli.steps.outline import Outline
from dreamprm_cli.steps.python import PythonOutline
from dreamprm_cli.types import Step

SPLITTER_VERSION = 1

_OUTLINES: dict[str, Callable[[], Outline]] = {
    "python": PythonOutline,
    **{name: partial(BraceOutline, name) for name in BRACE_LANGUAGES},
}
LANGUAGES = tuple(_OUTLINES)

# A return at the end of what has arrived may yet become a return and newline.
_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")


class StreamSplitter:
    """Splits a program as it arrives, in chunks of any size.

    A step is given out once the next top-level statement (or method) begins: a function that parses is not yet a
    function that is finished. What is decided, is decided at the end of a line from the lines up to there.
    Raises ProblemError for a language not in LANGUAGES, and nothing else, ever.
    """

    def __init__(self, language: str = "python") -> None:
        if language not in _OUTLINES:
            raise ProblemError(f"language {language!r} is not supported", f"one of {', '.join(LANGUAGES)}")
        self._outline = _OUTLINES[language]()
        self._tail: list[str] = []  # of the line that has not ended
        self._return = False  # a lone return follows the tail

    def feed(self, text: str) -> list[Step]:
        """Take the next piece of the program; the steps that are certain now and were not before."""
        if not text:
            return []
        if self._return:
            text, self._return = "\r" + text, False
        steps: list[Step] = []
        at = 0
        for match in _LINE_END.finditer(text):
            self._tail.append(text[at : match.end()])
            steps += self._line()
            at = match.end()
        rest = text[at:]
        self._return = rest.endswith("\r")
        self._tail.append(rest[:-1] if self._return else rest)
        return steps

    def finish(self) -> list[Step]:
        """The program has ended: the remaining steps. The splitter is spent then."""
        if self._return:
            self._tail.append("\r")
            self._return = False
        return self._line() + self._outline.finish()

    def _line(self) -> list[Step]:
        line = "".join(self._tail)
        self._tail.clear()
        return self._outline.feed(line) if line else []


def split(code: str, language: str = "python") -> list[Step]:
    """The steps of a whole program, in order; their sources join to `code`. Empty for an empty text."""
    splitter = StreamSplitter(language)
    return splitter.feed(code) + splitter.finish()
