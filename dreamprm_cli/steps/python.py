"""Python: where statements begin is read off the lines, what they are off the syntax tree.

A column, the open brackets and the open strings decide exactly where a top-level statement begins, so no line is ever
parsed twice and gaps of the grammar cannot move a boundary. Broken code degrades: see `PythonScan`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dreamprm_cli.steps.grammar import Grammar
from dreamprm_cli.steps.outline import UNNAMED, Outline, Piece
from dreamprm_cli.steps.python_scan import PythonScan

# `rest` can only go on with a statement that is open (or close what a broken one left open).
_HEAD = re.compile(
    r"(?P<decorators>@)"
    r"|(?P<function>(?:async[ \t\f]+)?def\b(?:[ \t\f]+(?P<f>[^\s(:\[\\#]+))?)"
    r"|(?P<header>class\b(?:[ \t\f]+(?P<c>[^\s(:\[\\#]+))?)"
    r"|(?P<rest>(?:else|elif|except|finally)\b|[)\]}])"
)
# Keywords that no expression holds: a bracket that seems to be open before them is broken.
_NO_EXPRESSION = re.compile(
    r"(?:def|class|import|while|with|try|return|raise|del|pass|break|continue|global|nonlocal|assert|async\s+def)\b"
)

_DECLARATIONS = {
    "import_statement", "import_from_statement", "future_import_statement",
    "type_alias_statement", "if_statement", "try_statement", "expression_statement", "comment",
}  # fmt: skip
_VALUES = {"assignment", "augmented_assignment", "string", "concatenated_string"}
_LOGIC = """
[(lambda) (list_comprehension) (set_comprehension) (dictionary_comprehension) (generator_expression)
 (function_definition) (class_definition) (for_statement) (while_statement) (with_statement) (match_statement)
 (raise_statement) (assert_statement) (delete_statement) (return_statement) (await) (yield)
 (print_statement) (exec_statement)] @logic
(call function: (_) @call)
[(import_statement) (import_from_statement)] @import
"""
# Calls that make a value out of constants; any other call at module level is logic.
_CONSTRUCTORS = {
    "bool", "bytes", "complex", "Counter", "Decimal", "defaultdict", "deque", "dict", "float", "Fraction", "frozenset",
    "int", "list", "namedtuple", "NewType", "object", "OrderedDict", "ParamSpec", "range", "set", "str", "tuple",
    "TypeVar",
}  # fmt: skip


@dataclass(slots=True)
class _Class:
    name: str
    number: int
    column: int
    body: int | None = None  # column of its members, known from the first on


@dataclass(slots=True)
class _Statement:
    role: Literal["decorators", "function", "header", "other"]
    name: str
    column: int
    owner: _Class | None  # of a member, or of the header itself


class PythonOutline(Outline):
    def __init__(self) -> None:
        super().__init__()
        self._grammar = Grammar("python")
        self._scan = PythonScan()
        self._base: int | None = None  # column of top-level statements
        self._class: _Class | None = None
        self._classes = 0
        self._open = _Statement("other", "", 0, None)
        self._decorators = 0  # decorator lines just before, swallowed by a bracket that may turn out to be broken

    def read(self, line: str) -> None:
        body = line.rstrip("\r\n")
        column, text = _indentation(body.removeprefix("\ufeff") if not self.started else body)
        back = 0
        if self._scan.inside and _NO_EXPRESSION.match(text) and self._scan.give_up():
            back = self._decorators
        if self._scan.inside:
            self._decorators = self._decorators + 1 if text.startswith("@") else 0
            self.more()
        elif not text:
            self.blank()
        elif text[0] == "#":
            self.comment(column)
        else:
            self._decorators = 0
            self._statement(column, text, back)
        self._scan.line(body)

    def _statement(self, column: int, text: str, back: int) -> None:
        match = _HEAD.match(text)
        word = match.lastgroup if match else None
        if match and word == "rest" and self.started:
            self.more()
            return
        if match and self._open.role == "decorators" and column == self._open.column and word != "rest":
            self.more()
        elif self._begins(column):
            self.start(column, back)
            self._open = _Statement("other", "", column, self._class)
        else:
            self.more()
            return
        if match and match["decorators"]:
            self._open.role = "decorators"
        elif match and match["function"]:
            self._open.role, self._open.name = "function", match["f"] or UNNAMED
            self.settle()
        elif match and match["header"]:
            self._open.role = "other"
            if self._class is None:
                self._classes += 1
                self._class = _Class(match["c"] or UNNAMED, self._classes, column)
                self._open.role, self._open.owner = "header", self._class

    def _begins(self, column: int) -> bool:
        """A logical line at `column` begins a statement of the module or of the open class, rather than one deeper."""
        if self._class is not None and column <= self._class.column:
            self._class = None
        if self._class is not None:
            if self._class.body is None or column < self._class.body:
                self._class.body = column
            return column == self._class.body
        if self._base is None or column < self._base:
            self._base = column
        return column == self._base

    def describe(self, source: str) -> Piece:
        role, name, owner = self._open.role, self._open.name, self._open.owner
        if role == "function":
            return Piece("method", f"{owner.name}.{name}", owner.number) if owner else Piece("function", name)
        if owner:
            return Piece("class", owner.name, owner.number, bare=role == "header")
        return self._module_level(source)

    def _module_level(self, source: str) -> Piece:
        """Imports and plain values hold no logic; the syntax tree tells."""
        root = self._grammar.parse(source)
        code = Piece("code", "code")
        nodes = [node for node in root.named_children if node.type != "comment"]
        if root.has_error or not all(node.type in _DECLARATIONS for node in nodes):
            return code
        found = self._grammar.captures(root, _LOGIC)
        if "logic" in found:
            return code
        for call in found.get("call", ()):
            if source[call.start_byte : call.end_byte].rpartition(".")[2] not in _CONSTRUCTORS:
                return code
        for node in nodes:
            if node.type == "expression_statement" and not all(c.type in _VALUES for c in node.named_children):
                return code
            if node.type in ("if_statement", "try_statement") and "import" not in found:
                return code
        return Piece("imports", "imports") if "import" in found else Piece("constant", "imports")


def _indentation(body: str) -> tuple[int, str]:
    """Column of the first character that is not white space, and the text from there on; as Python counts."""
    column = 0
    for index, char in enumerate(body):
        if char == " ":
            column += 1
        elif char == "\t":
            column = (column // 8 + 1) * 8
        elif char == "\f":
            column = 0
        else:
            return column, body[index:]
    return column, ""
