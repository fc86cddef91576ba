"""Which brackets, strings and comments are open in the languages with braces, and the marks that structure a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

STRING = '"'
WORD = "w"
_OPENER = {")": "(", "]": "[", "}": "{"}
# Words after which a slash starts a regular expression and does not divide.
_BEFORE_REGEX = {"return", "typeof", "case", "in", "of", "do", "else", "void", "delete", "throw", "await", "yield"}
_REGEX = re.compile(r"/(?![*/])(?:[^/\\\[]|\\.|\[(?:[^\]\\]|\\.)*+\])++/\w*")
_TEMPLATE = re.compile(r"\\.|`|\$\{")
_COMMENT = re.compile(r"/\*|\*/")

_COMMON = r"(?P<skip>//.*)|(?P<comment>/\*)"
_DOUBLE = r'(?P<skip2>"(?:[^"\\]|\\.)*+(?:"|\\?\Z))'
_SINGLE = r"(?P<skip3>'(?:[^'\\]|\\.)*+(?:'|\\?\Z))"
_CHAR = r"(?P<skip3>'(?:[^'\\]|\\.)+?')"
_REST = r"(?P<word>[^\W\d][\w$]*|[$\d][\w$]*)|(?P<mark>\S)"


@dataclass(frozen=True, slots=True)
class Lexis:
    """The tokens of a language. Strings that may span lines are matched up to their opening quotes only."""

    tokens: re.Pattern[str]
    nested_comments: bool = False
    regexes: bool = False
    directives: bool = False  # lines that start with # are the preprocessor's


def _lexis(*alternatives: str, nested: bool = False, regexes: bool = False, directives: bool = False) -> Lexis:
    return Lexis(re.compile("|".join((_COMMON, *alternatives, _REST))), nested, regexes, directives)


LEXIS = {
    "javascript": _lexis(_DOUBLE, _SINGLE, r"(?P<template>`)", regexes=True),
    "java": _lexis(r'(?P<escaped>""")', _DOUBLE, _CHAR),
    "cpp": _lexis(
        r'(?P<raw>(?:u8|[uUL])?R"(?P<end>[^()\\\s]{0,16})\()',
        _DOUBLE,
        r"(?P<number>\d[\w'.]*)",
        _CHAR,
        directives=True,
    ),
    "go": _lexis(_DOUBLE, _CHAR, "(?P<raw>(?P<end>`))"),
    "rust": _lexis(
        r'(?P<raw>(?:\bb|\bc|\b)r(?P<end>#*)")',
        r'(?P<escaped>")',
        r"(?P<skip3>'(?:\\(?:u\{[^}]*\}|x\w\w|.)|[^'\\])'|'\w+)",
        nested=True,
    ),
}
LEXIS["typescript"] = LEXIS["javascript"]


class Mark(NamedTuple):
    """A bracket, a semicolon, a string, a word or any other character that is not in a comment.

    char:  the character itself, or STRING, or WORD.
    depth: brackets open around it (its own not counted).
    """

    char: str
    at: int
    depth: int


class BraceScan:
    """The brackets open at the end of a line, innermost last: `(`, `[`, `{`, and for templates "`" and `${`."""

    def __init__(self, lexis: Lexis) -> None:
        self._lexis = lexis
        self._stack: list[str] = []
        self._comments = 0  # block comments open
        self._until: re.Pattern[str] | None = None  # the end of the string that is open
        self._directive = False  # a preprocessor line goes on
        self._value = False  # the last token was a value, so a slash divides

    @property
    def depth(self) -> int:
        return len(self._stack)

    @property
    def directives(self) -> bool:
        """Lines that start with # are items of their own."""
        return self._lexis.directives

    @property
    def in_comment(self) -> bool:
        return self._comments > 0

    @property
    def in_text(self) -> bool:
        """The next line starts within a string, a template or a preprocessor line."""
        return self._until is not None or self._directive or self._stack[-1:] == ["`"]

    def close(self, depth: int) -> None:
        """Give up what is open beyond `depth` brackets."""
        del self._stack[depth:]

    def line(self, body: str) -> list[Mark]:
        """Take the next line, without its end."""
        if self._lexis.directives and (self._directive or (not self.in_comment and body.lstrip().startswith("#"))):
            self._directive = body.endswith("\\")
            return [Mark("#", 0, self.depth)]
        marks: list[Mark] = []
        at = 0
        while 0 <= at < len(body):
            if self._comments:
                at = self._comment(body, at)
            elif self._until is not None:
                at = self._string(body, at)
            elif self._stack and self._stack[-1] == "`":
                at = self._template(body, at)
            else:
                at = self._token(body, at, marks)
        return marks

    # Each of these takes one token from `at` on and returns where to go on, -1 when the line is done.

    def _comment(self, body: str, at: int) -> int:
        match = _COMMENT.search(body, at)
        if match is None:
            return -1
        if match[0] == "*/":
            self._comments -= 1
        elif self._lexis.nested_comments:
            self._comments += 1
        else:
            return match.start() + 1  # "/*/" within a comment ends it
        return match.end()

    def _string(self, body: str, at: int) -> int:
        match = self._until.search(body, at) if self._until else None
        if match is None:
            return -1
        if not match[0].startswith("\\"):
            self._until = None
        return match.end()

    def _template(self, body: str, at: int) -> int:
        match = _TEMPLATE.search(body, at)
        if match is None:
            return -1
        if match[0] == "`":
            self._stack.pop()
        elif match[0] == "${":
            self._stack.append("${")
            self._value = False
        return match.end()

    def _token(self, body: str, at: int, marks: list[Mark]) -> int:
        match = self._lexis.tokens.search(body, at)
        if match is None:
            return -1
        kind, text, at = match.lastgroup, match[0], match.start()
        if kind == "skip":
            return -1
        if kind == "comment":
            self._comments = 1
        elif kind == "word":
            marks.append(Mark(WORD, at, self.depth))
            self._value = text not in _BEFORE_REGEX
        elif kind == "mark":
            return self._mark(body, at, text, marks)
        else:
            marks.append(Mark(STRING, at, self.depth))
            self._value = True
            if kind == "template":
                self._stack.append("`")
            elif kind == "escaped":
                self._until = re.compile(r"\\.|" + text)
            elif kind in ("raw", "end"):
                self._until = re.compile(_raw_end(text, match["end"]))
        return match.end()

    def _mark(self, body: str, at: int, char: str, marks: list[Mark]) -> int:
        if char == "/" and self._lexis.regexes and not self._value:
            regex = _REGEX.match(body, at)
            if regex is not None:
                marks.append(Mark(STRING, at, self.depth))
                self._value = True
                return regex.end()
        if char in ")]}":
            self._bracket(char)
            marks.append(Mark(char, at, self.depth))
        else:
            marks.append(Mark(char, at, self.depth))
            if char in "([{":
                self._stack.append(char)
        self._value = char in ")]}"
        return at + 1

    def _bracket(self, char: str) -> None:
        """A brace closes the brackets forgotten before it; any other stray closer is ignored."""
        stack = self._stack
        if char != "}":
            if stack and stack[-1] == _OPENER[char]:
                stack.pop()
            return
        while stack and stack[-1] in "([":
            stack.pop()
        if stack:
            stack.pop()


def _raw_end(start: str, end: str) -> str:
    """The pattern that ends a raw string: of C++ `R"x(`, of Rust `r##"`, of Go a backtick."""
    if start.endswith("("):
        return re.escape(f'){end}"')
    return "`" if end == "`" else '"' + end
