"""Counts to labels: each control is what its formula says, and steps keep to their programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.labels import (
    WHOLE,
    Steps,
    blended,
    bounded,
    counted_steps,
    join,
    monte_carlo,
    shrunk,
    start,
    steps_of_items,
    td,
)


def _steps(passes, rollouts, program):
    program = np.array(program, np.int64)
    return Steps(
        np.arange(2 * len(program), dtype=np.float32).reshape(-1, 2),
        program,
        program // 2,
        np.array(passes, np.float32),
        np.array(rollouts, np.float32),
    )


STEPS = _steps([2, 1, 0, 4, WHOLE], [4, 4, WHOLE, 4, WHOLE], [0, 0, 0, 1, 1])


def test_labels_of_counts():
    assert monte_carlo(STEPS) == pytest.approx([0.5, 0.25, 0, 1, 1])
    assert shrunk(STEPS) == pytest.approx([3 / 6, 2 / 6, 0, 5 / 6, 1], abs=1e-5)
    assert 0 < shrunk(STEPS).min() <= shrunk(STEPS).max() <= 1
    assert monte_carlo(_steps([0], [0], [0])) == pytest.approx([0])


def test_blending_takes_the_own_programs_end():
    labels = monte_carlo(STEPS)
    assert blended(STEPS, labels, 0.5) == pytest.approx([0.25, 0.125, 0, 1, 1])
    assert blended(STEPS, labels, 0) == pytest.approx(labels)
    assert blended(STEPS, labels, 1) == pytest.approx([0, 0, 0, 1, 1])


def test_td_targets():
    labels = monte_carlo(STEPS)
    assert td(STEPS, labels, 0.5) == pytest.approx([0.5 * 0.5 + 0.5 * 0.125, 0.125, 0, 1, 1])
    assert td(STEPS, labels, 0) == pytest.approx(labels)
    assert td(STEPS, labels, 1) == pytest.approx([0, 0, 0, 1, 1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.floats(0, 1), st.integers(0, 99))
def test_targets_stay_within_the_labels_of_the_program(lengths, trace, seed):
    rng = np.random.default_rng(seed)
    program = np.repeat(np.arange(len(lengths)), lengths)
    steps = _steps(rng.integers(0, 5, len(program)), np.full(len(program), 4), program)
    labels = monte_carlo(steps)
    for targets in (td(steps, labels, trace), blended(steps, labels, trace)):
        for number in range(len(lengths)):
            own = labels[program == number]
            assert targets[program == number].min() >= own.min() - 1e-6
            assert targets[program == number].max() <= own.max() + 1e-6


def test_bounded_labels_have_logits():
    assert bounded(np.array([0, 0.5, 1], np.float32), 0.1) == pytest.approx([0.1, 0.5, 0.9])


def test_joined_steps_keep_apart():
    both = join(STEPS, STEPS)
    assert both.program.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert both.problem.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert both.last.tolist() == [False, False, True, False, True] * 2
    assert both.only(both.last).passes.tolist() == [0, WHOLE, 0, WHOLE]


def test_labels_start_as_they_are_told():
    assert np.array_equal(start(STEPS, "mc"), monte_carlo(STEPS))
    assert np.array_equal(start(STEPS, "beta"), shrunk(STEPS))
    assert np.array_equal(start(STEPS, "blend 0.25"), blended(STEPS, shrunk(STEPS), 0.25))
    assert np.array_equal(start(STEPS, "td 0.5"), td(STEPS, shrunk(STEPS), 0.5))


@pytest.mark.parametrize("how", ["", "mean", "td", "td x", "td 1.5", "blend -0.1", "mc 3", "beta 0.5"])
def test_other_starts_are_refused(how):
    with pytest.raises(ConfigError, match="labels cannot start from"):
        start(STEPS, how)


def test_what_is_known_of_a_programs_steps(make_item):
    """Three steps, of which the imports are not scored: rollouts, else the program itself; the end is known."""
    bare, rolled = make_item("P/0", passed=True), make_item("P/1", passed=False, passes=(0, 3, 0), rollouts=(0, 5, 0))
    true = make_item("P/1", passed=False, truth=(None, True, None))
    steps = steps_of_items([bare, rolled, true])
    assert steps.states.shape == (6, 0)
    assert steps.program.tolist() == [0, 0, 1, 1, 2, 2]
    assert steps.problem.tolist() == [0, 0, 1, 1, 1, 1]
    assert steps.rollouts.tolist() == [1, WHOLE, 5, WHOLE, WHOLE, WHOLE]
    assert steps.passes.tolist() == [1, WHOLE, 3, 0, WHOLE, 0]
    assert len(steps_of_items([])) == 0


def test_the_same_with_states(planted):
    table, _ = planted
    steps = counted_steps(table, (8,), (4, 8, 12))
    assert np.array_equal(steps.states, table.features((8,), (4, 8, 12)))
    assert np.array_equal(steps.last, table.last)
    assert np.array_equal(monte_carlo(steps), table.target)  # nothing is rolled out: each label is the outcome
