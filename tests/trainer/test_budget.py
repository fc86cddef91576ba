"""A budget: how it is written, what is spent of it, and that a killed run goes on with what is left."""

import pytest

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.budget import Budget, Meter
from dreamprm_trainer.label import uncertainty


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("10m", 10, "minutes"),
        ("1.5h", 90, "minutes"),
        ("200k-tokens", 200_000, "tokens"),
        ("500-rollouts", 500, "rollouts"),
    ],
)
def test_a_budget_is_read(text, amount, unit):
    assert Budget.parse(text) == Budget(amount, unit)


@pytest.mark.parametrize("text", ["", "10", "0m", "-1m", "10k-m", "5km", "tokens", "10 lines"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ConfigError, match="no budget"):
        Budget.parse(text)


def test_what_was_spent_is_known_to_the_next_run(tmp_path):
    now = [0.0]
    first = Meter(Budget(100, "tokens"), tmp_path / "spent.json", lambda: now[0])
    now[0] = 90.0
    first.add(tokens=70, rollouts=2)
    assert first.allows()
    assert not first.allows(2 / 3)
    second = Meter(Budget(100, "tokens"), tmp_path / "spent.json", lambda: now[0])
    assert second.spent == {"minutes": 1.5, "tokens": 70, "rollouts": 2}
    second.add(tokens=30)
    assert not second.allows()


def test_minutes_pass_by_themselves():
    now = [0.0]
    meter = Meter(Budget.parse("2m"), clock=lambda: now[0])
    now[0] = 119.0
    assert meter.allows()
    assert meter.left_s() == pytest.approx(1.0)
    assert Meter(Budget.parse("9-rollouts")).left_s() == float("inf")
    now[0] = 121.0
    assert not meter.allows()


def test_a_task_whose_programs_disagree_is_the_least_sure():
    def rows(name, *passed):
        return [{"task_id": name, "passed": one} for one in passed]

    found = uncertainty([*rows("mixed", True, False), *rows("right", True, True), *rows("untold", None)])
    assert found["mixed"] > found["right"]
    assert "untold" not in found
