"""Which states of a step are read: by hand."""

import numpy as np
import pytest

from dreamprm_cli.prm.pooling import known, pooled, positions, width

STATES = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)  # of five tokens, two layers


def test_the_last_state_of_each_layer():
    assert list(positions("last", 2)) == [2]
    found = pooled("last", STATES[[1, 4]], [1, 1])
    assert found.tolist() == [STATES[1].ravel().tolist(), STATES[4].ravel().tolist()]


def test_the_last_state_and_the_mean_of_each_layer():
    assert list(positions("last+mean", 2)) == [0, 1, 2]
    first, second = pooled("last+mean", STATES, [2, 3])
    for found, own in ((first, STATES[:2]), (second, STATES[2:])):
        expected = [own[-1, 0], own[:, 0].mean(0), own[-1, 1], own[:, 1].mean(0)]
        assert found.tolist() == np.concatenate(expected).tolist()


@pytest.mark.parametrize("pooling", ["last", "last+mean"])
def test_no_steps_have_no_states(pooling):
    assert pooled(pooling, STATES[:0], []).shape == (0, 2 * width(pooling) * 3)


def test_an_unknown_pooling_is_told():
    assert known("last") == "last"
    with pytest.raises(ValueError, match="median"):
        known("median")
