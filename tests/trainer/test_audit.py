"""The audit counts every label once and lists the farthest first."""

import numpy as np
import pytest

from dreamprm_trainer.audit import audit
from dreamprm_trainer.labels import Steps


def _steps(count):
    numbers = np.arange(count, dtype=np.int64)
    return Steps(np.zeros((count, 1), np.float32), numbers // 2, numbers // 4, np.ones(count), np.full(count, 4))


def test_histograms_and_the_steps_that_moved_most():
    before = np.array([0.0, 0.25, 0.5, 1.0, 0.75, 0.25], np.float32)
    after = np.array([0.0, 0.65, 0.5, 0.95, 0.45, 0.25], np.float32)
    found = audit(_steps(6), before, after, bins=4, most=2)
    assert found.before == (1, 2, 1, 2)
    assert found.after == (1, 2, 2, 1)
    assert [moved.index for moved in found.most] == [1, 4]
    assert (found.most[0].program, found.most[0].problem) == (0, 0)
    assert (found.most[0].passes, found.most[0].rollouts) == (1, 4)
    assert found.crossed == 2
    assert found.mean_moved == pytest.approx((0.4 + 0.05 + 0.3) / 6)


def test_labels_that_stay_are_not_listed():
    labels = np.array([0.5, 0.1], np.float32)
    assert audit(_steps(2), labels, labels).most == ()


def test_labels_of_other_steps_are_refused():
    with pytest.raises(ValueError, match="2 steps"):
        audit(_steps(2), np.zeros(2, np.float32), np.zeros(3, np.float32))
