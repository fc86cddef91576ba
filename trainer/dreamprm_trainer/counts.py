"""A recipe's problems and programs, counted for a price: from the files that are there, else from what it says.

Tokens are counted as characters, so that nothing has to be fetched: 3.9 to a token, as measured on the programs of
`trainer/data`, which Qwen2.5-Coder wrote.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.prompts import prm_input, problem_form
from dreamprm_cli.types import Problem
from dreamprm_trainer.data import Item, Source, load, locate, problem_rows
from dreamprm_trainer.price import Counts, Part
from dreamprm_trainer.problems import Row, problem_of, read_jsonl
from dreamprm_trainer.recipe import Recipe

_Form = tuple[Mapping[int, float], float]

CHARACTERS = 3.9
PROBLEM = 600.0  # tokens, where no problem is at hand: method.md's example
# Programs that are not written yet: share of them by number of functions, and tokens of a function. The small policies'
# as measured on `trainer/data`, where a function is asked for and where a program is to read standard input; others':
# method.md's example.
_SMALL = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
_FUNCTION: _Form = ({1: 0.85, 2: 0.13, 3: 0.02}, 48.0)
_STDIN: _Form = ({1: 0.04, 2: 0.08, 3: 0.21, 4: 0.47, 5: 0.16, 6: 0.04}, 33.0)
_EXAMPLE: _Form = ({8: 1.0}, 80.0)


@dataclass(slots=True)
class _Sum:
    """Problems by id; `expected` are not at hand. functions: number of functions -> programs, shares of them too."""

    problems: set[str] = field(default_factory=set)
    expected: int = 0
    functions: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    def part(self) -> Part:
        return Part(len(self.problems) + self.expected, {n: round(count) for n, count in self.functions.items()})


@dataclass(slots=True)
class _Count:
    recipe: Recipe
    train: _Sum = field(default_factory=_Sum)
    held: _Sum = field(default_factory=_Sum)
    problem_tokens: dict[str, float] = field(default_factory=dict)
    program_tokens: float = 0.0
    assumed: list[str] = field(default_factory=list)

    def of(self, source: Source, split: str) -> _Sum:
        return self.train if split == "train" and source.name in self.recipe.train else self.held

    def problem(self, some: _Sum, problem: Problem) -> None:
        some.problems.add(problem.id)
        self.problem_tokens[problem.id] = len(prm_input(problem).text) / CHARACTERS

    def made(self, source: Source, item: Item) -> None:
        """A program that is there."""
        some = self.of(source, item.split)
        self.problem(some, item.problem)
        some.functions[sum(step.scored for step in item.steps)] += 1
        self.program_tokens += len(item.code) / CHARACTERS

    def planned(self, some: _Sum, problems: int, form: str) -> None:
        """Programs of `problems` problems that are to be written."""
        label = self.recipe.label
        small = label is not None and label.policy in _SMALL
        shares, tokens = (_STDIN if form == "stdin" else _FUNCTION) if small else _EXAMPLE
        programs = problems * (label.n if label else 1)
        for functions, share in shares.items():
            some.functions[functions] += share * programs
            self.program_tokens += share * programs * functions * tokens


def count(recipe: Recipe, folders: Sequence[Path]) -> Counts:
    """What the recipe is about.

    Raises ProblemError for a missing problem set of which the recipe does not say how many problems it should hold.
    """
    found = _Count(recipe)
    path = locate(recipe.reference, folders) if recipe.reference else None
    humaneval = read_jsonl(path) if path else []
    for source in recipe.sources:
        if locate(source.problems, folders) is None:
            _expect(found, source, folders)
        elif source.pools and all(locate(name, folders) for name in source.pools):
            for item in load([source], folders, recipe.reference if path else None, ungraded=True).items:
                found.made(source, item)
        else:
            _plan(found, source, folders, humaneval)
    if not found.problem_tokens:
        found.assumed.append(f"{PROBLEM:.0f} tokens a problem")
    train, held = found.train.part(), found.held.part()
    return Counts(
        train=train,
        held_out=held,
        problem_tokens=_mean(list(found.problem_tokens.values())) or PROBLEM,
        function_tokens=found.program_tokens / max(1, train.steps + held.steps),
        assumed=tuple(found.assumed),
    )


def _expect(found: _Count, source: Source, folders: Sequence[Path]) -> None:
    if source.expected is None:
        raise ProblemError(
            f"no file {source.problems} in {', '.join(map(str, folders))}", "give the folder of the data with --data"
        )
    some = found.of(source, "train" if "train" in source.splits else "dev")
    some.expected += source.expected
    found.planned(some, source.expected, "function")
    found.assumed.append(f"{source.name}: {source.expected} problems, as the recipe says; its file is not here")


def _plan(found: _Count, source: Source, folders: Sequence[Path], humaneval: Sequence[Row]) -> None:
    for row, split in problem_rows(source, folders, humaneval, Counter()).values():
        problem, some = problem_of(row), found.of(source, split)
        found.problem(some, problem)
        found.planned(some, 1, problem_form(problem))
    found.assumed.append(f"{source.name}: the form of its programs, which are not here yet")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
