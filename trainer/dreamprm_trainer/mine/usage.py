"""Which names the tests of a repository say, without running any."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from dreamprm_trainer.mine.functions import Unreadable, decoded, parsed


def names_in(tests: Iterable[bytes]) -> frozenset[str]:
    """Every name and attribute that occurs in them."""
    found: set[str] = set()
    for data in tests:
        try:
            tree = parsed(decoded(data)[0])
        except Unreadable:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                found.update(alias.name for alias in node.names)
    return frozenset(found)
