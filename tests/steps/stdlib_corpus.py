"""The standard library as a corpus: what `ast` says its functions are, and whether the steps agree."""

from __future__ import annotations

import ast
import sysconfig
import tokenize
import unicodedata
import warnings
from pathlib import Path

from dreamprm_cli.types import Step


def files() -> list[Path]:
    """All sources of the standard library, its own tests included where they are installed."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return sorted(p for p in root.rglob("*.py") if "site-packages" not in p.parts)


def read(path: Path) -> str:
    """Source as Python would decode it, line ends kept; Latin-1 where it cannot be decoded."""
    try:
        with path.open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
        return path.read_bytes().decode(encoding)
    except (SyntaxError, UnicodeDecodeError):
        return path.read_bytes().decode("latin-1")


def parse(code: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


Expected = tuple[str, int, int]  # name, first and last line


def functions(module: ast.Module) -> list[Expected]:
    """Top-level functions and methods; a class header with nothing of its own counts to its first method."""
    found: list[Expected] = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(_function(node, node.name))
        elif isinstance(node, ast.ClassDef):
            for index, member in enumerate(node.body):
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    name, first, last = _function(member, f"{node.name}.{member.name}")
                    found.append((name, _first_line(node) if index == 0 else first, last))
    return found


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Expected:
    assert node.end_lineno is not None
    return name, _first_line(node), node.end_lineno


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def mismatches(module: ast.Module, steps: list[Step]) -> list[str]:
    """Differences between the functions of the tree and the function steps: none, or lines that say what differs.

    A step may hold more than the function only in blank and comment lines around it.
    """
    expected = functions(module)
    found = [step for step in steps if step.kind in ("function", "method")]
    wrong = []
    if len(expected) != len(found):
        wrong.append(f"{len(expected)} functions in the tree, {len(found)} steps")
    for (name, first, last), step in zip(expected, found, strict=False):
        lines = step.source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        around = lines[: max(first - step.first_line, 0)] + lines[last - step.first_line + 1 :]
        if unicodedata.normalize("NFKC", step.name) != name:
            wrong.append(f"{name} {first}-{last} is {step.name} {step.first_line}-{step.last_line}")
        elif first < step.first_line or last > step.last_line:
            wrong.append(f"{name} {first}-{last} leaves its step {step.first_line}-{step.last_line}")
        elif any(line.strip("\ufeff \t\f") and not line.lstrip("\ufeff \t\f").startswith("#") for line in around):
            wrong.append(f"{name} {first}-{last} is not alone in its step {step.first_line}-{step.last_line}")
    return wrong
