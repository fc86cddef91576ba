"""A pytest suite: `{"path": FOLDER or FILE, "module"?: NAME, "trust"?: "weak"}`, or `{"files": {path: text}}`.

Which import means the program? The one that `module` names; otherwise the only one that nothing else answers (neither
the standard library, nor a package of the image, nor a file beside the tests), `solution` first.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.submission import INSTALLED
from dreamprm_sandbox.suite import Judged

_MAX_FILES = 2000
_MAX_BYTES = 16 << 20
_PASSED_OVER = frozenset(["__pycache__", ".git", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".venv"])


def suite(problem: Problem) -> Judged:
    tests = problem.tests.payload
    tests = tests["tests"] if isinstance(tests.get("tests"), dict) else tests
    if "files" in tests:
        files = {path: text.encode("utf-8", "surrogatepass") for path, text in tests["files"].items()}
    else:
        files = read(Path(tests["path"]), problem.id)
    trees = parsed(files, problem.id)
    named = tests.get("module")
    modules = (named,) if named else imported(trees, files, problem.id)
    return Judged(files, modules, tuple(star_names(trees.values())), shared=tests.get("trust") == "weak")


def read(path: Path, where: str) -> dict[str, bytes]:
    """The files of a suite by their paths from its folder. Raises ProblemError."""
    if path.is_file():
        if path.suffix != ".py":
            raise ProblemError(f"{where}: {path} is no Python file", "give a folder of tests, or one file of them")
        name = path.name if path.name.startswith("test_") or path.stem.endswith("_test") else f"test_{path.name}"
        return {name: path.read_bytes()}
    if not path.is_dir():
        raise ProblemError(f"{where}: there are no tests at {path}")
    files: dict[str, bytes] = {}
    size = 0
    for found in sorted(path.rglob("*")):
        relative = found.relative_to(path)
        if found.is_dir() or found.suffix == ".pyc" or _PASSED_OVER & set(relative.parts):
            continue
        if found.is_symlink() or not found.is_file():
            raise ProblemError(f"{where}: {found} is not a plain file", "a suite is sent as a copy of its plain files")
        size += found.stat().st_size
        if size > _MAX_BYTES or len(files) >= _MAX_FILES:
            raise ProblemError(f"{where}: the suite is beyond {_MAX_BYTES >> 20} MB or {_MAX_FILES} files")
        files[relative.as_posix()] = found.read_bytes()
    if not any(name.endswith(".py") for name in files):
        raise ConfigError(f"{where}: {path} holds no tests", "a program passes only what was tested")
    return files


def parsed(files: Mapping[str, bytes], where: str) -> dict[str, ast.Module]:
    """The syntax trees of the suite's own Python files. Raises ProblemError."""
    trees = {}
    for name, content in files.items():
        if name.endswith(".py"):
            try:
                trees[name] = ast.parse(content)
            except (SyntaxError, ValueError, RecursionError) as error:
                raise ProblemError(f"{where}: {name} does not parse: {error}") from None
    return trees


def imported(trees: Mapping[str, ast.Module], files: Iterable[str], where: str) -> tuple[str, ...]:
    """The import that means the program. Raises ProblemError where that cannot be told."""
    own = {part.removesuffix(".py") for name in files for part in name.split("/")}
    known = own | set(sys.stdlib_module_names) | INSTALLED
    found: dict[str, None] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= dict.fromkeys(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {node.module: None}
    names = [name for name in found if name.partition(".")[0] not in known]
    if "solution" in names or not names:
        return ("solution",)
    if len(names) > 1:
        raise ProblemError(
            f"{where}: the tests import {', '.join(names[:5])}: which one is the program?", "name it: --module NAME"
        )
    return (names[0],)


def star_names(trees: Iterable[ast.Module]) -> list[str]:
    """What `from solution import *` may bring: names that the tests use and nothing in them defines. A program cannot
    put names of its own choice among those of the tests (`pytest`, `len`, another test)."""
    used: set[str] = set()
    bound: set[str] = set(dir(builtins))
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            else:
                bound |= set(_bound_by(node))
    return sorted(name for name in used - bound if not name.startswith("_"))


def _bound_by(node: ast.AST) -> Iterable[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(alias.asname or alias.name).partition(".")[0] for alias in names]
        case (
            ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name) | ast.MatchStar(name=str() as name)
        ):
            return [name]
    return []


def payload(path: Path, **options: Any) -> dict[str, Any]:
    """What `suite` reads, for a suite at `path`."""
    return {"path": str(path), **{key: value for key, value in options.items() if value}}
