"""Examples as token sequences: a problem's tokens once, its programs as branches, every judged step read on the way.

A program's prefixes need no sequences of their own, since attention is causal; programs of one problem need no copies
of it, since a branch sees the problem and itself and nothing else. Tokens and reading places are the live scorer's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.prompts import prm_input
from dreamprm_trainer.examples import Example, Program
from dreamprm_trainer.labels import WHOLE
from dreamprm_trainer.tables import Floats, Ints

if TYPE_CHECKING:
    from dreamprm_cli.prm.tokens import Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A problem and some of its programs.

    ids, positions:  (T,), the problem's first; positions of each branch go on from the problem's end
    prefix, branches: tokens of the problem, and of each program
    reads, steps:    (R,) offsets where judged steps are read, and their numbers in the set
    program:         (R,) numbers of their programs in the set
    """

    ids: Ints
    positions: Ints
    prefix: int
    branches: tuple[int, ...]
    reads: Ints
    steps: Ints
    program: Ints

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """A set of examples, packed. S judged steps and P programs of all examples, in order.

    labels, rollouts: (S,) as in `examples.Program`; weight: (S,) of the step's program
    program:          (S,) index of the step's program; problem: (P,) index of its example; passed: (P,)
    left_out:         judged steps that end beyond the length, in no tree
    """

    trees: tuple[Tree, ...]
    labels: Floats
    rollouts: Floats
    weight: Floats
    program: Ints
    problem: Ints
    passed: NDArray[np.bool_]
    left_out: int

    @property
    def tokens(self) -> int:
        return sum(map(len, self.trees))

    @property
    def known(self) -> NDArray[np.bool_]:
        """(S,) whether a step's label is an outcome, not an estimate."""
        return self.rollouts >= WHOLE


def pack(
    examples: Sequence[Example],
    tokens: Tokens,
    *,
    room: int,
    max_length: int = 4096,
    code_reserve: int = 1536,
    known_only: bool = False,
) -> Sequences:
    """Pack examples into trees of at most `room` tokens (or one program each, where that alone is longer).

    known_only: judge only steps whose label is an outcome. The other arguments are those of the scorer.
    """
    trees: list[Tree] = []
    labels: list[float] = []
    rollouts: list[int] = []
    weight: list[float] = []
    program_of: list[int] = []
    problem_of: list[int] = []
    passed: list[bool] = []
    kept = 0
    for number, example in enumerate(examples):
        ids, _ = tokens.problem(prm_input(example.problem), max_length - code_reserve)
        branches = []
        for program in example.programs:
            judged = _judged(program, known_only)
            first = len(labels)
            labels += [program.labels[index] for index in judged]
            rollouts += [program.rollouts[index] for index in judged]
            weight += [program.weight] * len(judged)
            program_of += [len(passed)] * len(judged)
            branch = _branch(program, judged, tokens, max_length - len(ids))
            if len(branch.reads):
                branches.append((branch, first, len(passed)))
                kept += len(branch.reads)
            passed.append(program.passed)
            problem_of.append(number)
        trees += [_tree(ids, some) for some in _cut(branches, passed, len(ids), room)]
    return Sequences(
        trees=tuple(trees),
        labels=np.array(labels, np.float32),
        rollouts=np.array(rollouts, np.float32),
        weight=np.array(weight, np.float32),
        program=np.array(program_of, np.int64),
        problem=np.array(problem_of, np.int64),
        passed=np.array(passed, np.bool_),
        left_out=len(labels) - kept,
    )


def join(first: Sequences, second: Sequences) -> Sequences:
    """Both sets; steps, programs and problems of the second get numbers of their own."""
    steps, programs = len(first.labels), len(first.passed)
    problems = int(first.problem.max(initial=-1)) + 1
    moved = (replace(tree, steps=tree.steps + steps, program=tree.program + programs) for tree in second.trees)
    return Sequences(
        trees=(*first.trees, *moved),
        labels=np.concatenate([first.labels, second.labels]),
        rollouts=np.concatenate([first.rollouts, second.rollouts]),
        weight=np.concatenate([first.weight, second.weight]),
        program=np.concatenate([first.program, second.program + programs]),
        problem=np.concatenate([first.problem, second.problem + problems]),
        passed=np.concatenate([first.passed, second.passed]),
        left_out=first.left_out + second.left_out,
    )


def batches(sizes: Sequence[int], limit: int, order: Sequence[int] | Ints | None = None) -> list[list[int]]:
    """Indices cut, in order, into batches of at most `limit` tokens in all (or one, where that alone is longer)."""
    result: list[list[int]] = []
    room = 0
    for index in range(len(sizes)) if order is None else order:
        if not result or sizes[index] > room:
            result.append([])
            room = limit
        result[-1].append(int(index))
        room -= sizes[index]
    return result


def shuffled(sizes: Sequence[int], limit: int, *seed: int) -> list[list[int]]:
    """`batches` of all indices in an order that `seed` alone decides."""
    return batches(sizes, limit, np.random.default_rng(seed).permutation(len(sizes)))


@dataclass(frozen=True, slots=True)
class _Branch:
    ids: list[int]
    reads: list[int]  # within ids


_Placed = tuple[_Branch, int, int]  # with the numbers of its first judged step and of its program


def _judged(program: Program, known_only: bool) -> list[int]:
    return [
        index
        for index, (label, count) in enumerate(zip(program.labels, program.rollouts, strict=True))
        if not math.isnan(label) and (count >= WHOLE or not known_only)
    ]


def _branch(program: Program, judged: Sequence[int], tokens: Tokens, room: int) -> _Branch:
    """The program up to where its last judged step within `room` tokens is read; nothing is trained on after it."""
    ids: list[int] = []
    reads: list[int] = []
    wanted = set(judged)
    for index, step in enumerate(program.steps):
        piece = tokens.step(step.source)
        if len(ids) + len(piece.ids) > room:
            break
        if index in wanted:
            reads.append(len(ids) + piece.read)
        ids += piece.ids
    return _Branch(ids[: reads[-1] + 1] if reads else [], reads)


def _cut(branches: Sequence[_Placed], passed: Sequence[bool], prefix: int, room: int) -> Iterator[list[_Placed]]:
    """Parts whose tokens, with the problem's, fit into `room`; each has passing and failing programs if it can."""
    part: list[_Placed] = []
    used = prefix
    for branch in _mixed(branches, passed):
        if part and used + len(branch[0].ids) > room:
            yield part
            part, used = [], prefix
        part.append(branch)
        used += len(branch[0].ids)
    if part:
        yield part


def _mixed(branches: Sequence[_Placed], passed: Sequence[bool]) -> list[_Placed]:
    """Passing and failing programs spread evenly, otherwise in order."""
    ranked: list[tuple[float, _Placed]] = []
    for outcome in (True, False):
        some = [branch for branch in branches if passed[branch[2]] is outcome]
        ranked += [((rank + 0.5) / len(some), branch) for rank, branch in enumerate(some)]
    return [branch for _, branch in sorted(ranked, key=lambda pair: pair[0])]


def _tree(problem: list[int], branches: Sequence[_Placed]) -> Tree:
    ids, positions = list(problem), list(range(len(problem)))
    reads: list[int] = []
    steps: list[int] = []
    program: list[int] = []
    for branch, first, number in branches:
        reads += [len(ids) + read for read in branch.reads]
        steps += range(first, first + len(branch.reads))
        program += [number] * len(branch.reads)
        ids += branch.ids
        positions += range(len(problem), len(problem) + len(branch.ids))
    return Tree(
        ids=np.array(ids, np.int64),
        positions=np.array(positions, np.int64),
        prefix=len(problem),
        branches=tuple(len(branch.ids) for branch, _, _ in branches),
        reads=np.array(reads, np.int64),
        steps=np.array(steps, np.int64),
        program=np.array(program, np.int64),
    )
