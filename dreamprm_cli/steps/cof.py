"""How well a program follows the Chain-of-Function form: many small functions, each documented, none nested."""

from __future__ import annotations

import ast
import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dreamprm_cli.steps.brace_languages import BRACE_LANGUAGES
from dreamprm_cli.steps.brace_scan import LEXIS, BraceScan
from dreamprm_cli.steps.grammar import Grammar
from dreamprm_cli.steps.stream import split
from dreamprm_cli.types import Step

if TYPE_CHECKING:
    from tree_sitter import Node

_BODIES = ("_body", "_list")
Form = Literal["chain", "loose", "single", "none", "broken"]


@dataclass(frozen=True, slots=True)
class Adherence:
    """Counts over one program.

    functions:        functions and methods that are steps.
    documented:       those of them with a docstring (Python), or a comment above or first in the body.
    nested:           named functions inside functions.
    module_lines:     lines of module-level code that are neither imports, constants, comments nor blank.
    longest_function: lines of the longest function step, its decorators and leading comments included.
    parses:           Python's own parser takes it, or the grammar of another language; C++ that defines macros, which
                      no grammar can know, need only close its brackets.
    verdict:          "broken" when it does not parse; "none" and "single" with no and one function; "chain" with two
                      or more when all are documented, none is nested and they have more lines than the module-level
                      code; "loose" otherwise.
    """

    functions: int
    documented: int
    nested: int
    module_lines: int
    longest_function: int
    parses: bool
    verdict: Form

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def adherence(code_or_steps: str | Sequence[Step], language: str = "python") -> Adherence:
    """The report on a program, given whole or as all its steps. Raises ProblemError for an unknown language."""
    steps = split(code_or_steps, language) if isinstance(code_or_steps, str) else code_or_steps
    code = "".join(step.source for step in steps)
    lengths = [_length(step) for step in steps if step.kind in ("function", "method")]
    functions = len(lengths)
    module_lines = sum(_code_lines(step.source, language) for step in steps if step.kind == "code")
    root, outer, nested = _functions(code, language)
    documented = min(sum(_documented(node, language) for node in outer), functions)
    parses = _python_parses(code) if language == "python" else not root.has_error or _macros_balance(code, language)
    verdict: Form
    if not parses:
        verdict = "broken"
    elif functions < 2:
        verdict = "single" if functions else "none"
    else:
        chain = documented == functions and not nested and module_lines < sum(lengths)
        verdict = "chain" if chain else "loose"
    return Adherence(functions, documented, nested, module_lines, max(lengths, default=0), parses, verdict)


def _length(step: Step) -> int:
    return len(step.source.strip().splitlines())


def _code_lines(source: str, language: str) -> int:
    comment = "#" if language == "python" else "//"
    lines = [line.strip() for line in source.splitlines()]
    return sum(bool(line) and not line.startswith(comment) for line in lines)


def _python_parses(code: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def _macros_balance(code: str, language: str) -> bool:
    if language != "cpp" or "#define" not in code:
        return False
    scan = BraceScan(LEXIS[language])
    for line in code.splitlines():
        scan.line(line)
    return scan.depth == 0 and not scan.in_text and not scan.in_comment


def _functions(code: str, language: str) -> tuple[Node, list[Node], int]:
    """The root, the functions that are inside no other, and how many are."""
    grammar = Grammar(language)
    root = grammar.parse(code)
    found = grammar.captures(root, _query(language)).get("function", [])
    outer: list[Node] = []
    for node in sorted(found, key=lambda n: (n.start_byte, -n.end_byte)):
        if not outer or node.start_byte >= outer[-1].end_byte:
            outer.append(node)
    return root, outer, len(found) - len(outer)


def _query(language: str) -> str:
    if language == "python":
        return "(function_definition) @function"
    table = BRACE_LANGUAGES[language]
    patterns = [f"({kind} body: (_)) @function" for kind in sorted(table.functions)]
    values = " ".join(f"({kind})" for kind in sorted(table.values))
    if language == "go":
        patterns += [
            f"(var_spec value: (expression_list [{values}])) @function",
            f"(short_var_declaration right: (expression_list [{values}])) @function",
        ]
    else:
        patterns += [f"({kind} {value}: [{values}]) @function" for kind, (_, value) in table.holders.items()]
    return "\n".join(patterns)


def _documented(node: Node, language: str) -> bool:
    body = node.child_by_field_name("body")
    for field in ("value", "right"):  # a function that is given a name
        value = node.child_by_field_name(field)
        body = value.child_by_field_name("body") if value is not None and body is None else body
    first = body.named_children[0] if body is not None and body.named_children else None
    if language == "python":
        text = first.named_children[0] if first is not None and first.type == "expression_statement" else None
        return text is not None and text.type in ("string", "concatenated_string")
    if first is not None and "comment" in first.type:
        return True
    through = BRACE_LANGUAGES[language].through
    while (parent := node.parent) is not None and parent.type in through and not parent.type.endswith(_BODIES):
        node = parent
    before = node.prev_sibling
    while before is not None and before.type == "attribute_item":
        before = before.prev_sibling
    return before is not None and "comment" in before.type
