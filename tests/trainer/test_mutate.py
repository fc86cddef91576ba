"""Mutants differ from the program in one known step, and parse; whatever the program is, nothing is raised."""

import ast
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dreamprm_cli.steps import split
from dreamprm_trainer.mutate import mutants

CODE = '''import math


def first(x, y):
    """Größer als — non-ASCII in front of what is edited."""
    total = 0
    for k in range(x):
        if k < y and k > 1:
            total += k * 2
    return total


class Sum:
    def __init__(self):
        self.kept = []

    def add(self, n):
        self.kept.append(n)
        return first(n, 3) + 1
'''


def test_one_step_changes_and_the_mutant_parses():
    steps = split(CODE)
    found = mutants(CODE, 0, 30)
    assert len({mutant.code for mutant in found}) == len(found) > 12
    assert len({mutant.operator for mutant in found}) >= 5
    for mutant in found:
        ast.parse(mutant.code)
        other = split(mutant.code)
        changed = [k for k, (a, b) in enumerate(zip(steps, other, strict=True)) if a.source != b.source]
        assert changed == [mutant.step]
        assert steps[mutant.step].kind in ("function", "method")


def test_the_first_mutants_are_of_all_steps():
    names = {split(CODE)[mutant.step].name.rsplit(".", 1)[-1] for mutant in mutants(CODE, 0, 2)}
    assert names == {"first", "add"}


def test_a_seed_gives_the_same_mutants_and_another_gives_others():
    assert mutants(CODE, 3, 5) == mutants(CODE, 3, 5)
    assert mutants(CODE, 3, 5) != mutants(CODE, 4, 5)


def test_bytes_beside_the_edit_stay():
    for mutant in mutants(CODE, 0, 30):
        assert "Größer als — non-ASCII" in mutant.code
        lines = sum(a != b for a, b in zip(CODE.splitlines(), mutant.code.splitlines(), strict=True))
        assert lines == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_text_that_is_cut_anywhere_never_raises(seed):
    draw = random.Random(seed)
    start, end = sorted(draw.sample(range(len(CODE)), 2))
    for mutant in mutants(CODE[start:end], seed, 3):
        ast.parse(mutant.code)
