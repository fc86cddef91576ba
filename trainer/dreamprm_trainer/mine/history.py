"""What the history says of functions: which commits changed them together with tests, and how long they have stood.

First parents only, the newest first; every changed file is read and parsed once. Comments, blank lines and docstrings
are no change.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from dreamprm_trainer.mine.functions import Function, Unreadable, at_margin, parsed, texts
from dreamprm_trainer.mine.layout import is_source, is_test
from dreamprm_trainer.mine.repository import Damaged, File, Repository, Revision

_MOST_COMMITS = 2000
_MOST_TOUCHED = 50  # functions; a commit that changes more is no fix of one of them


@dataclass(frozen=True, slots=True)
class Pair:
    """A function before and after a commit that changed tests too. touched: functions that the commit changed."""

    commit: str
    time: int
    subject: str
    path: str
    qualname: str
    before: str
    after: str
    tests: tuple[str, ...]
    touched: int

    @property
    def id(self) -> str:
        return f"{self.path}::{self.qualname}"


@dataclass(frozen=True, slots=True)
class History:
    """pairs, the newest first. changed: function id of HEAD -> seconds since 1970 of its last change, or of the oldest
    commit seen where it has not changed since. newest: time of HEAD."""

    pairs: tuple[Pair, ...]
    changed: dict[str, int]
    newest: int

    def survived_days(self, function: str) -> float:
        return round((self.newest - self.changed.get(function, self.newest)) / 86400, 2)


def read(
    repository: Repository, functions: Sequence[Function], tell: Callable[[int, int], None] = lambda number, total: None
) -> History:
    """The history of the functions of HEAD. `tell` gets the number of commits read, and how many there are."""
    here = {one.id: code_key(one.source) for one in functions}
    changed: dict[str, int] = {}
    pairs: list[Pair] = []
    known = _Texts(repository)
    revisions = list(repository.history(_MOST_COMMITS))
    for number, (after, before) in enumerate(pairwise(revisions), 1):
        tell(number, len(revisions) - 1)
        try:
            difference = repository.changed(before.sha, after.sha)
        except Damaged:
            revisions = revisions[:number]
            break
        tests = tuple(new.path for _, new in difference if new is not None and is_test(new.path))
        touched = list(_touched(difference, known))
        for one in touched:
            if one[0] not in changed and one[0] in here:
                changed[one[0]] = after.time
        if tests and len(touched) <= _MOST_TOUCHED:
            pairs += _pairs(after, touched, tests)
    oldest = revisions[-1].time if revisions else 0
    return History(
        tuple(pairs), {name: changed.get(name, oldest) for name in here}, revisions[0].time if revisions else 0
    )


Touched = tuple[str, str, str, str]  # function id, path, before, after


def _touched(difference: Sequence[tuple[File | None, File | None]], known: _Texts) -> Iterator[Touched]:
    """Functions that are in both with another body; new ones have an empty `before`."""
    for old, new in difference:
        if new is None or not is_source(new.path):
            continue
        earlier = known(old.blob, new.path) if old is not None else {}
        for name, text in known(new.blob, new.path).items():
            if earlier.get(name) != text:
                before, after = at_margin(earlier.get(name, "")), at_margin(text)
                if name not in earlier or code_key(before) != code_key(after):
                    yield f"{new.path}::{name}", new.path, before if name in earlier else "", after


def _pairs(revision: Revision, touched: Sequence[Touched], tests: tuple[str, ...]) -> Iterator[Pair]:
    for name, path, before, after in touched:
        if before:
            qualname = name.removeprefix(f"{path}::")
            yield Pair(
                revision.sha, revision.time, revision.subject, path, qualname, before, after, tests, len(touched)
            )


class _Texts:
    """The functions in a blob: name -> text. Each blob is parsed once while it is in use."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known = lru_cache(maxsize=256)(self._read)

    def __call__(self, blob: str, path: str) -> dict[str, str]:
        return self._known(blob, path)

    def _read(self, blob: str, path: str) -> dict[str, str]:
        try:
            return texts(self._repository.read(File(path, blob)))
        except (Damaged, Unreadable, RecursionError):
            return {}


@lru_cache(maxsize=4096)
def code_key(source: str) -> str:
    """The same for functions that do the same in the same words, docstring and comments aside."""
    try:
        tree = parsed(source)
    except Unreadable:
        return source
    for node in tree.body:
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
