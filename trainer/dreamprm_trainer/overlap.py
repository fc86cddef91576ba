"""Which problems are others in disguise: by function name, statement or reference solution.

Textbook tasks recur between benchmarks and within them. A HumanEval number is only worth quoting when they are left out
of training, or what was trained on is left out of the judging; a few too many are dropped rather than one too few.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dreamprm_trainer.problems import Row

_SAME_WORDS = 0.42
_SAME_CODE = 0.5
_LEAST_CODE = 12  # triples; shorter solutions are alike by chance
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of to and or in is are be for from by with that this it its as if on at you your given write python "
        "function find return returns returned returning list lists number numbers string strings integer integers "
        "input output example examples assert true false none def int str float bool",
    )
)


def near_duplicates(rows: Iterable[Row], reference: Sequence[Row]) -> dict[str, str]:
    """task_id -> why, for the rows that repeat a problem of `reference` (such as HumanEval's rows)."""
    names = {_name(row): row["task_id"] for row in reference if _name(row)}
    words = {row["task_id"]: _words(row) for row in reference}
    codes = {row["task_id"]: _triples(_solution(row)) for row in reference}
    found: dict[str, str] = {}
    for row in rows:
        name, own_words, own_code = _name(row), _words(row), _triples(_solution(row))
        if name and name in names:
            found[row["task_id"]] = f"same name as {names[name]}"
        elif (best := _closest(own_words, words))[1] >= _SAME_WORDS:
            found[row["task_id"]] = f"statement like {best[0]}"
        elif len(own_code) >= _LEAST_CODE and (best := _closest(own_code, codes))[1] >= _SAME_CODE:
            found[row["task_id"]] = f"solution like {best[0]}"
    return found


def families(rows: Mapping[str, Row]) -> dict[str, str]:
    """task_id -> one for all problems that are alike, in any of the three ways, be it through others."""
    seen = {name: (_name(row), _words(row), _triples(_solution(row))) for name, row in rows.items()}
    found = {name: name for name in rows}
    for (one, (name, words, code)), (other, (its_name, its_words, its_code)) in itertools.combinations(seen.items(), 2):
        if found[one] == found[other]:
            continue
        if (
            (name and name == its_name)
            or _jaccard(words, its_words) >= _SAME_WORDS
            or (min(len(code), len(its_code)) >= _LEAST_CODE and _jaccard(code, its_code) >= _SAME_CODE)
        ):
            left, kept = found[other], found[one]
            found |= {member: kept for member, family in found.items() if family == left}
    return found


def _closest(own: frozenset[object], others: Mapping[str, frozenset[object]]) -> tuple[str, float]:
    likeness = ((key, _jaccard(own, other)) for key, other in others.items())
    return max(likeness, key=lambda pair: pair[1], default=("", 0.0))


def _jaccard(one: frozenset[object], other: frozenset[object]) -> float:
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


def _name(row: Row) -> str:
    """The entry point without its class, case and underscores."""
    name = (row.get("entry_point") or "").rsplit(".", 1)[-1].replace("_", "").lower()
    return "" if name in ("solve", "solution", "main", "f") else name


def _words(row: Row) -> frozenset[object]:
    text = row.get("statement") or row.get("prompt") or ""
    text = re.split(r"\n\s*(?:>>>|assert\b|Example|Constraints|For example)", text, maxsplit=1)[0]
    docstring = re.search(r'"""(.*?)(?:"""|$)|\'\'\'(.*?)(?:\'\'\'|$)', text, re.DOTALL)
    if docstring:
        text = docstring[1] or docstring[2] or text
    return frozenset(word for word in re.findall(r"[a-z]+", text.lower()) if word not in _STOP_WORDS)


def _solution(row: Row) -> str:
    if "canonical_solution" in row:
        body = str(row["canonical_solution"])
        return body if re.search(r"^def |^class ", body, re.MULTILINE) else str(row.get("prompt", "")) + body
    return str(row.get("canonical") or "")


def _triples(code: str) -> frozenset[object]:
    """Triples of consecutive syntax-tree nodes, docstrings and names left out."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return frozenset()
    definitions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return frozenset(triples(child for definition in definitions for child in definition.body))


def triples(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str, str]]:
    """Triples of consecutive syntax-tree nodes below `nodes`, in the order of the text. Names, docstrings and imports
    do not count, constants do."""
    kinds: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.arguments, ast.expr_context)):
            return
        kinds.append(f"{node.value!r}" if isinstance(node, ast.Constant) else type(node).__name__)
        for child in ast.iter_child_nodes(node):
            visit(child)

    for node in nodes:
        visit(node)
    return zip(kinds, kinds[1:], kinds[2:], strict=False)
