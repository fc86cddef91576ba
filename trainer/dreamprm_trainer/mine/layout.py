"""What the files of a repository are for: sources, tests, folders that imports start from, options of pytest."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from dreamprm_trainer.mine.functions import Unreadable, decoded, parsed

_TEST_FOLDERS = frozenset(["test", "tests", "testing", "unittests"])
_TEST_NAME = re.compile(r"(test_.*|.*_test|tests?|conftest)\.py")
_OTHERS_FOLDERS = frozenset(
    ["vendor", "_vendor", "vendored", "third_party", "node_modules", "site-packages", ".venv", "venv", "build", "dist"]
)
_NO_SOURCES = frozenset(["setup.py", "noxfile.py", "tasks.py", "fabfile.py", "versioneer.py", "_version.py"])
_SETTINGS = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
_IMPORT_MODE = re.compile(r"--import-mode[= ]+(prepend|append|importlib)")


def is_python(path: str) -> bool:
    return path.endswith(".py") and not _OTHERS_FOLDERS & set(PurePosixPath(path).parts)


def is_test(path: str) -> bool:
    """A test or a helper of tests, by its place or name."""
    pure = PurePosixPath(path)
    return bool(_TEST_FOLDERS & set(pure.parts[:-1])) or _TEST_NAME.fullmatch(pure.name) is not None


def is_source(path: str) -> bool:
    """A module that can hold tasks."""
    pure = PurePosixPath(path)
    if not is_python(path) or is_test(path) or (len(pure.parts) == 1 and pure.name in _NO_SOURCES):
        return False
    return not (pure.name == "conf.py" and "docs" in pure.parts) and pure.name != "versioneer.py"


def tests_in(data: bytes) -> int:
    """How many test functions a file defines; 0 where it cannot be read."""
    try:
        tree = parsed(decoded(data)[0])
    except Unreadable:
        return 0
    names = (
        inner.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for inner in (node.body if isinstance(node, ast.ClassDef) else [node])
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return sum(name.startswith("test") for name in names)


def roots(paths: Iterable[str]) -> list[str]:
    """The folders that imports start from: above the outermost package of every source, the repository's own first."""
    known = set(paths)
    found = {"."}
    for path in known:
        if is_source(path):
            folder = PurePosixPath(path).parent
            while f"{folder}/__init__.py" in known:
                folder = folder.parent
            # A script in a folder is imported by nobody, unless that folder is all of the sources.
            if folder != PurePosixPath(path).parent or folder.name in ("src", "lib"):
                found.add(str(folder))
    return sorted(found, key=lambda folder: (folder != ".", folder))


def options(files: Mapping[str, bytes]) -> list[str]:
    """Of the options that the repository gives pytest, the one that decides what its tests import."""
    for name in _SETTINGS:
        mode = _IMPORT_MODE.search(files.get(name, b"").decode("utf-8", "replace"))
        if mode:
            return [f"--import-mode={mode[1]}"]
    return []
