"""Tree-sitter, seen through text in which every character is one byte, so that its offsets are ours."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Parser, Query

# Wheel and function of each grammar.
_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "java": ("tree_sitter_java", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
}

# Grammars read names and strings alike whatever their letters are, so a plain letter may stand for any other
# character; NUL, which the generated lexers take for the end, goes the same way. So do surrogates, which have no UTF-8.
_FOREIGN = re.compile(r"[^\x01-\x7f]")
# The scanners look past all of a run of bare continuation lines at every token.
_CONTINUATION = re.compile(r"^[ \t]*\\\n", re.MULTILINE)
_RETURN = re.compile(r"\r(?!\n)")


@cache
def _language(name: str) -> Language:
    from tree_sitter import Language

    module, function = _GRAMMARS[name]
    return Language(getattr(import_module(module), function)())


@cache
def _query(name: str, pattern: str) -> Query:
    from tree_sitter import Query

    return Query(_language(name), pattern)


class Grammar:
    """A parser of one language. Not to be shared between threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._parser: Parser | None = None

    def parse(self, text: str) -> Node:
        """The root node of any text; byte offsets in it are offsets into `text`."""
        if self._parser is None:
            from tree_sitter import Parser

            self._parser = Parser(_language(self.name))
        plain = _RETURN.sub("\n", _FOREIGN.sub("a", text.replace("\ufeff", " ")))
        plain = _CONTINUATION.sub(lambda match: " " * len(match[0]), plain)
        return self._parser.parse(plain.encode("ascii")).root_node

    def captures(self, node: Node, pattern: str) -> dict[str, list[Node]]:
        """The nodes below `node` that a tree-sitter query captures, by capture name."""
        from tree_sitter import QueryCursor

        return QueryCursor(_query(self.name, pattern)).captures(node)
