"""JavaScript, TypeScript, Java, C++, Go and Rust: open brackets say where an item ends, the syntax tree what it is.

An item is parsed up to its first brace, so that its body may be broken, unfinished or full of macros the grammar does
not know; only items that turn out to be no function are parsed whole, once, when they end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dreamprm_cli.steps.brace_languages import BRACE_LANGUAGES, Language
from dreamprm_cli.steps.brace_scan import LEXIS, BraceScan, Mark
from dreamprm_cli.steps.grammar import Grammar
from dreamprm_cli.steps.outline import UNNAMED, Outline, Piece

if TYPE_CHECKING:
    from tree_sitter import Node

# A line that starts so goes on with the item before it, even one that seems to have ended;
_GOES_ON = re.compile(r"[{})\],.:?=|&%^]|(?:else|catch|finally)\b")
# where line ends count, one that starts so goes on with an item not ended, and one that ends so is not at its end.
_BINDS = "+-*/<>([`"
_UNFINISHED = "+-*/%&|^<=,.:?!~"
# Characters of the longest header, and braces of an item that may follow one: no text makes the parser read one over
# and over. More than one brace is tried for those in C++ initialisers.
_HEADER_LIMIT = 10_000
_HEADER_TRIES = 3
_TEMPLATE_ARGUMENTS = re.compile(r"<[^<>]*>")
_RECEIVER = re.compile(r"\(\s*(?:\w+\s+)?\*?\s*(\w+)")

Role = Literal["function", "scope", "namespace", "type"]


@dataclass(slots=True)
class _Scope:
    """Braces whose content is looked into: those of a namespace or a class, and none for the module."""

    depth: int  # of brackets around a member
    column: int  # of the class
    name: str = ""
    number: int = 0  # of the class; 0 for module and namespaces
    indented: bool = False  # members are indented deeper than the class


@dataclass(slots=True)
class _Item:
    owner: _Scope
    column: int
    decorated: bool = False  # starts with a decorator or annotation
    indented: bool = False  # a line of it is indented deeper than the first
    header: int = 0  # where its header starts, past the braces of namespaces
    tries: int = 0  # how often its header was read
    role: Role | None = None
    name: str = ""
    number: int = 0  # of the class it is the header of


class BraceOutline(Outline):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._language: Language = BRACE_LANGUAGES[name]
        self._grammar = Grammar(name)
        self._scan = BraceScan(LEXIS[name])
        self._scopes = [_Scope(depth=0, column=-1)]
        self._classes = 0
        self._item = _Item(self._scopes[0], 0)
        self._ended = False  # the open item has come to a brace or semicolon that can end it
        self._line_ended = False  # the last line of code can end an item, where line ends do that
        self._comment_column = 0

    def read(self, line: str) -> None:
        body = line.rstrip("\r\n")
        text = body.lstrip("\ufeff \t\f\v")
        column = len(body[: len(body) - len(text)].expandtabs(4))
        in_comment, in_text = self._scan.in_comment, self._scan.in_text
        if not in_comment and not in_text:
            self._restart(column, text)
        depth = self._scan.depth
        marks = self._scan.line(body)
        if in_text:
            self.more()
        elif not marks and not text and not in_comment:
            self.blank()
        elif not marks:
            self._comment_column = self._comment_column if in_comment else column
            self.comment(self._comment_column)
        elif not self.started or self._begins(depth, text):
            self.start(column)
            scope = self._scopes[-1]
            scope.indented |= column > scope.column
            self._item = _Item(scope, column, decorated=text.startswith("@"))
            self._ended = False
        else:
            self._item.indented |= column > self._item.column
            self.more()
        self._walk(marks, body)

    def _restart(self, column: int, text: str) -> None:
        """A function that begins where only a new item can shows that a brace is missing before it."""
        scope = self._scopes[-1]
        inside = self._scan.depth > scope.depth and self._item.indented and column <= self._item.column
        beyond = scope.indented and column <= scope.column
        if (inside or beyond) and self._language.restart.match(text):
            while self._scopes[-1].indented and column <= self._scopes[-1].column:
                self._scopes.pop()
            self._scan.close(self._scopes[-1].depth)
            self._ended = True

    def _begins(self, depth: int, text: str) -> bool:
        if depth != self._scopes[-1].depth or _GOES_ON.match(text):
            return False
        if self._ended or (text[0] == "#" and self._scan.directives):
            return True
        ends = self._language.newlines and self._line_ended and not self._item.decorated
        return ends and text[0] not in _BINDS

    def _walk(self, marks: list[Mark], body: str) -> None:
        """Follow the brackets of a line through items and scopes."""
        for char, at, depth in marks:
            scope = self._scopes[-1]
            if char == "{" and depth == scope.depth:
                self._ended = False
                if self._item.role is None and self._item.tries < _HEADER_TRIES:
                    self._header(body, at)
            elif char == "}" and depth < scope.depth:
                self._scopes.pop()
                self._ended = True
            elif depth == scope.depth:
                self._ended = char in "};" or (char == "#" and self._scan.directives)
        if marks:
            last, arrow = marks[-1], [mark.char for mark in marks[-2:]] == ["=", ">"]
            self._line_ended = last.depth == self._scopes[-1].depth and last.char not in _UNFINISHED and not arrow

    def _header(self, body: str, at: int) -> None:
        """At the item's first brace, or at another after which it went on: what does it open?"""
        item, scope = self._item, self._scopes[-1]
        item.tries += 1
        lines = self.statement()
        before = sum(map(len, lines[:-1]))
        if before + at - item.header > _HEADER_LIMIT:
            return
        head = "".join([*lines[:-1], body[:at]])[item.header :]
        role: Role | None
        role, name = self._identify(head + "{}", member=item.owner.number > 0) or (None, "")
        if role == "function" or (role == "type" and not scope.number):
            item.role, item.name = role, name
            if role == "function":
                self.settle()
        elif role == "scope" and not scope.number:
            self._classes += 1
            item.role, item.name, item.number = role, name, self._classes
            self._open(_Scope(scope.depth + 1, item.column, name, self._classes))
        elif role == "namespace" and not scope.number:
            item.header, item.tries = before + at + 1, 0
            self._open(_Scope(scope.depth + 1, -1))

    def _open(self, scope: _Scope) -> None:
        self._scopes.append(scope)
        self._ended = True

    def describe(self, source: str) -> Piece:
        item, owner = self._item, self._item.owner
        if item.role == "scope":
            return Piece("class", item.name, item.number, bare=True)
        role: Role | None = item.role
        name = item.name
        if role is None:
            head = source[item.header : item.header + _HEADER_LIMIT]
            role, name = self._identify(head, member=owner.number > 0) or (None, "")
        if role == "function" and owner.number:
            return Piece("method", f"{owner.name}.{name}", owner.number)
        if owner.number:
            return Piece("class", owner.name, owner.number)
        if role == "function":
            return Piece("method" if "." in name else "function", name)
        if role in ("type", "scope"):
            self._classes += 1
            return Piece("class", name, self._classes)
        return self._module_level(source[item.header :])

    def _module_level(self, source: str) -> Piece:
        """Imports and plain values hold no logic."""
        root = self._grammar.parse(source)
        types = {node.type for node in root.named_children if "comment" not in node.type}
        if root.has_error or not types <= self._language.declarations:
            return Piece("code", "code")
        calls = self._grammar.captures(root, f"[{' '.join(f'({c})' for c in sorted(self._language.calls))}] @call")
        required = [source.startswith("require(", call.start_byte) for call in calls.get("call", ())]
        if not all(required):
            return Piece("code", "code")
        imports = bool(required) or bool(types & self._language.imports)
        return Piece("imports" if imports else "constant", "imports")

    def _identify(self, text: str, member: bool) -> tuple[Role, str] | None:
        """The first function, class, namespace or other type that an item defines, and its name."""
        language = self._language
        before, after = language.wrap if member else ("", "")
        text = f"{before}\n{text}\n{after}"
        nodes = [self._grammar.parse(text)]
        while nodes:
            node = nodes.pop()
            kind, outside = node.type, node.start_byte < len(before) or node.parent is None
            if not outside:
                body = node.child_by_field_name("body")
                if kind in language.functions and body is not None and _callable(node, body, text):
                    return "function", _name(node, text)
                if kind in language.holders:
                    name, value = (node.child_by_field_name(f) for f in language.holders[kind])
                    if value is not None and value.type == "expression_list":
                        value = value.named_child(0)
                    if name is not None and value is not None and value.type in language.values:
                        return "function", _clean(name, text)
                if kind in language.scopes and body is not None:
                    return "scope", _name(node, text)
                if kind in language.namespaces and body is not None:
                    return "namespace", ""
                if kind in language.types:
                    return "type", _name(node, text)
            if outside or kind in language.through or node.is_error:
                nodes += reversed(node.named_children)
        return None


def _callable(node: Node, body: Node, text: str) -> bool:
    """False for what the C++ grammar takes for a function although it has no parameters: `int x{1};`."""
    return node.type != "function_definition" or "(" in text[node.start_byte : body.start_byte]


def _name(node: Node, text: str) -> str:
    """The name a definition gives; of methods defined outside their class, with the class."""
    name = node.child_by_field_name("name")
    if name is not None:
        receiver = node.child_by_field_name("receiver")  # Go
        owner = _RECEIVER.match(text, receiver.start_byte) if receiver is not None else None
        return f"{owner[1]}.{_clean(name, text)}" if owner else _clean(name, text)
    if node.type == "type_declaration":  # Go
        return _name(node.named_children[0], text) if node.named_children else UNNAMED
    inner = node.child_by_field_name("type") if node.type == "impl_item" else node.child_by_field_name("declarator")
    while inner is not None and inner.type.endswith("_declarator"):  # C++
        children = inner.named_children
        inner = inner.child_by_field_name("declarator") or (children[-1] if children else None)
    return _clean(inner, text) if inner is not None else UNNAMED


def _clean(node: Node, text: str) -> str:
    name = " ".join(text[node.start_byte : node.end_byte].split())
    if "operator" not in name:
        while "<" in name and (shorter := _TEMPLATE_ARGUMENTS.sub("", name)) != name:
            name = shorter
    return name.replace("::", ".") or UNNAMED
