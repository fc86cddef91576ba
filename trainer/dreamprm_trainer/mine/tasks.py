"""Rows of a problem set, as others have them: `task_id, statement, starter_code, entry_point, tests, canonical, split`,
and what ties them to the repository: `repository, commit, path, qualname, first_line, last_line, context`.

`tests` is `{"kind": "repository", "n", "ids"}` where tests of the repository notice a wrong body, else
`{"kind": "none", "n": 0}`. `canonical` is the whole function at the left margin; programs are the same with the first
line of its docstring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dreamprm_trainer.mine.functions import Function, Module
from dreamprm_trainer.mine.placing import head
from dreamprm_trainer.mine.split import Split
from dreamprm_trainer.mine.statement import Surroundings, brief, context, unfenced
from dreamprm_trainer.problems import Row


@dataclass(frozen=True, slots=True)
class Source:
    """Where tasks come from: the folder's name, and the commit."""

    name: str
    commit: str


def rows(
    source: Source,
    modules: Mapping[str, Module],
    chosen: Sequence[Function],
    parts: Mapping[str, Split],
    tests: Mapping[str, Sequence[str]],
    survived: Mapping[str, float] | None,
) -> Iterator[Row]:
    """A row for each chosen function, in the order of paths and lines. parts: of all functions, also of those that are
    no tasks; tests: function id -> ids; survived: days since the last change, in a column of its own."""
    around = Surroundings(list(modules.values()))

    def row(function: Function) -> Row:
        own = parts[function.id]

        def hidden(other: Function) -> bool:
            return parts.get(other.id, own) != own

        ids = list(tests.get(function.id, ()))
        made: Row = {
            "task_id": f"{source.name}:{function.id}",
            "title": function.qualname,
            "statement": around.statement(function, lambda other: not hidden(other)),
            "starter_code": unfenced(brief(head(function))),
            "entry_point": ".".join(function.qualname.split(".")[-2:]),
            "tests": {"kind": "repository", "n": len(ids), "ids": ids} if ids else {"kind": "none", "n": 0},
            "canonical": function.source,
            "split": own,
            "repository": source.name,
            "commit": source.commit,
            "path": function.path,
            "qualname": function.qualname,
            "first_line": function.first_line,
            "last_line": function.last_line,
            "context": context(modules[function.path], function, hidden),
        }
        return made if survived is None else made | {"survived_days": survived.get(function.id)}

    return map(row, sorted(chosen, key=lambda one: (one.path, one.first_line)))


def negatives(source: Source, found: Mapping[str, Row], parts: Mapping[str, Split]) -> list[Row]:
    """The refused bodies as a pool of graded programs, those of the repository before them."""
    pool: list[Row] = []
    for name in sorted(found):
        shared = {"task_id": f"{source.name}:{name}", "split": parts[name], "model": "repository"}
        pool.append(
            {**shared, "sample": 0, "solution": brief(found[name]["canonical"]), "passed": True, "operator": None}
        )
        for number, one in enumerate(found[name]["killed"], 1):
            about = {key: one[key] for key in ("operator", "status", "killed_by")}
            pool.append({**shared, "sample": number, "solution": brief(one["code"]), "passed": False, **about})
    return pool
