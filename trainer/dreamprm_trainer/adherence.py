"""How far the programs of a pool keep to the Chain-of-Function form: no model, no tests, no problem set needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.steps import Adherence, adherence
from dreamprm_sandbox.samples import rows

VERDICTS = ("chain", "loose", "single", "none", "broken")


def read(samples: Path) -> list[tuple[str, str]]:
    """(model, program) of each row of a pool; a model that is not told is "". Raises ProblemError."""
    found: list[tuple[str, str]] = []
    for where, row in rows(samples):
        codes = row.get("code_list") or [row.get("solution", row.get("completion"))]
        if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
            raise ProblemError(f"{where}: no program", "a row needs 'solution', 'completion' or 'code_list'")
        found += [(str(row.get("model") or ""), code) for code in codes]
    if not found:
        raise ProblemError(f"{samples}: holds no programs")
    return found


def report(programs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Shares over Python programs, and the same for each model where there are several.

    verdicts: share of programs with each of `Adherence.verdict`. functions: how many programs have so many.
    documented: share of all functions that open with a docstring. nested, module_code: share of programs with a
    function in a function, and with code outside functions. broken: share that does not parse.
    """
    every = [(model, adherence(code)) for model, code in programs]
    models = sorted({model for model, _ in every})
    result = _shares([one for _, one in every])
    if len(models) > 1:
        result["by_model"] = {m or "?": _shares([one for model, one in every if model == m]) for m in models}
    return result


def _shares(programs: Sequence[Adherence]) -> dict[str, Any]:
    number = len(programs)
    verdicts: Counter[str] = Counter(one.verdict for one in programs)
    functions = sum(one.functions for one in programs)
    counts = Counter(one.functions for one in programs)
    return {
        "programs": number,
        "verdicts": {verdict: verdicts[verdict] / number for verdict in VERDICTS},
        "functions": {str(count): counts[count] for count in sorted(counts)},
        "functions_mean": functions / number,
        "documented": sum(one.documented for one in programs) / functions if functions else None,
        "nested": sum(one.nested > 0 for one in programs) / number,
        "module_code": sum(one.module_lines > 0 for one in programs) / number,
        "longest_function_mean": sum(one.longest_function for one in programs) / number,
        "broken": sum(not one.parses for one in programs) / number,
    }
