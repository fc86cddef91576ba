"""Examples as trees: everything judged is read once, nothing is longer than allowed, passing meets failing."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from tokenizers import Tokenizer
from tune_kit import NAN, examples

from dreamprm_cli.prm.tokens import Tokens
from dreamprm_cli.prompts import prm_input
from dreamprm_trainer.examples import Example, examples_of
from dreamprm_trainer.labels import WHOLE
from dreamprm_trainer.sequences import batches, join, pack, shuffled


@pytest.fixture(scope="module")
def tokens(tiny):
    return Tokens(Tokenizer.from_file(str(tiny / "tokenizer.json")))


def _packed(tokens, some, **options):
    return pack(some, tokens, **{"room": 1000, "max_length": 400, "code_reserve": 200, **options})


def test_every_judged_step_is_read_once_at_its_last_token(tokens):
    some = examples(0, 3)
    packed = _packed(tokens, some, room=250)
    assert len(packed.trees) > 3
    assert sorted(np.concatenate([tree.steps for tree in packed.trees])) == list(range(len(packed.labels)))
    sources = [step.source for one in some for p in one.programs for step in p.steps if step.scored]
    for tree in packed.trees:
        for read, step in zip(tree.reads, tree.steps, strict=True):
            body = sources[step].rstrip()
            ids = tokens.step(body).ids
            assert tree.ids[read - len(ids) + 1 : read + 1].tolist() == ids


def test_positions_of_every_branch_go_on_from_the_problem(tokens):
    [tree] = _packed(tokens, examples(0, 1)).trees
    wanted = list(range(tree.prefix))
    for length in tree.branches:
        wanted += range(tree.prefix, tree.prefix + length)
    assert tree.positions.tolist() == wanted
    assert len(tree) == tree.prefix + sum(tree.branches)


def test_problem_tokens_are_there_once_however_many_programs(tokens):
    [tree] = _packed(tokens, examples(0, 1)).trees
    ids, _ = tokens.problem(prm_input(examples(0, 1)[0].problem), 200)
    assert tree.ids[: tree.prefix].tolist() == ids
    assert len(tree.branches) == 4


@pytest.mark.parametrize("room", [150, 250, 400])
def test_trees_keep_to_their_room_and_hold_passing_and_failing_programs(tokens, room):
    packed = _packed(tokens, examples(0, 4), room=room)
    for tree in packed.trees:
        assert len(tree) <= room or len(tree.branches) == 1
        if len(tree.branches) > 1:
            assert len(set(packed.passed[tree.program])) == 2


def test_steps_beyond_the_length_are_counted_and_nothing_is_cut_in_two(tokens):
    some = examples(0, 1)
    whole = _packed(tokens, some)
    prefix = whole.trees[0].prefix
    short = _packed(tokens, some, max_length=prefix + 70, code_reserve=70)
    assert len(short.labels) == len(whole.labels)
    assert short.left_out == sum(len(p.steps) - 1 for p in some[0].programs) - 4  # each keeps its first function
    assert all(length <= 70 for tree in short.trees for length in tree.branches)
    nothing = _packed(tokens, some, max_length=prefix + 5, code_reserve=5)
    assert nothing.trees == ()
    assert nothing.left_out == len(nothing.labels)


def test_known_steps_alone_are_judged_when_asked_for(tokens):
    packed = _packed(tokens, examples(0, 2, flips=0.5), known_only=True)
    assert packed.known.all()
    assert len(packed.labels) == 8
    assert packed.labels.tolist() == packed.passed.astype(float).tolist()


def test_two_sets_join_without_mixing_their_numbers(tokens):
    one, two = _packed(tokens, examples(0, 2)), _packed(tokens, examples(5, 3), known_only=True)
    both, apart = join(one, two), _packed(tokens, [*examples(0, 2), *examples(5, 3)])
    assert both.problem.tolist() == apart.problem.tolist()
    assert both.passed.tolist() == apart.passed.tolist()
    for tree in both.trees:
        assert (both.program[tree.steps] == tree.program).all()
    assert sorted(np.concatenate([tree.steps for tree in both.trees])) == list(range(len(both.labels)))


def test_a_step_without_a_label_is_read_and_not_judged(tokens):
    [example] = examples(0, 1)
    first = example.programs[0]
    unjudged = replace(first, labels=(NAN, NAN, *first.labels[2:]))
    packed = _packed(tokens, [Example(example.problem, (unjudged,))])
    assert len(packed.labels) == 1
    assert packed.trees[0].branches == _packed(tokens, [Example(example.problem, (first,))]).trees[0].branches


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 60), st.integers(0, 5))
def test_batches_hold_all_in_order_and_fit(sizes, limit, seed):
    cut = batches(sizes, limit)
    assert [index for batch in cut for index in batch] == list(range(len(sizes)))
    for batch in cut:
        assert sum(sizes[index] for index in batch) <= limit or len(batch) == 1
    drawn = shuffled(sizes, limit, seed, 1)
    assert sorted(index for batch in drawn for index in batch) == list(range(len(sizes)))
    assert drawn == shuffled(sizes, limit, seed, 1)


def test_items_become_examples_by_problem(make_item):
    counted = make_item(sample=1, passed=False, passes=(0, 3, 0), rollouts=(0, 4, 0))
    items = [make_item("P/0"), counted, make_item("P/1", truth=(None, False, None))]
    first, second = examples_of(items, weights={"own": 0.5, "other": 2.0})
    assert {program.weight for program in first.programs} == {0.5}
    assert [len(first.programs), len(second.programs)] == [2, 1]
    plain, rolled = first.programs
    assert math.isnan(plain.labels[0])
    assert plain.labels[1:] == (1.0, 1.0)
    assert plain.rollouts == (0, 0, WHOLE)
    assert rolled.labels[1:] == (pytest.approx(4 / 6), 0.0)
    assert rolled.rollouts == (0, 4, WHOLE)
    assert second.programs[0].labels[1:] == (0.0, 1.0)
    assert second.programs[0].rollouts == (0, WHOLE, WHOLE)
    given_labels = examples_of(items, np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], np.float32))
    assert given_labels[0].programs[0].labels[1:] == (pytest.approx(0.1), 1.0)
    assert given_labels[0].programs[1].labels[1:] == (pytest.approx(0.3), 0.0)
