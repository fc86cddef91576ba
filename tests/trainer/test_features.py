"""Cached features are what the live scorer reads, and a cache is filled once."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.prm.pooling import POOLINGS, width  # noqa: E402
from dreamprm_cli.steps import line_steps  # noqa: E402
from dreamprm_trainer.features import extract, open_cache, open_scorer, widest  # noqa: E402
from dreamprm_trainer.reading import Reading  # noqa: E402
from dreamprm_trainer.tables import build  # noqa: E402

HIDDEN = 16  # of the backbone


@pytest.fixture
def cache(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "models"))
    return open_cache(tmp_path / "features", str(backbone), [1, 3])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_features_are_the_live_scorers(cache, make_item, pooling):
    cache = replace(cache, reading=Reading(pooling=pooling))
    items = [make_item("P/0", 0), make_item("P/0", 1, code="def second(x):\n    return 2\n"), make_item("P/1", 0)]
    assert extract(items, cache)
    table = build(items, cache)
    assert table.states.shape == (5, 2, width(pooling) * HIDDEN)  # the imports are no scored step
    assert table.program.tolist() == [0, 0, 1, 2, 2]
    session = open_scorer(cache).start(items[1].problem)
    live = session.append_features([(0, step) for step in items[1].steps])
    assert np.allclose(table.features((1, 3), (1, 3))[2], live[0], atol=2e-2)


def test_only_what_is_missing_is_encoded(cache, make_item, capsys):
    first, second = make_item("P/0", 0), make_item("P/0", 1, code="def second(x):\n    return 2\n")
    assert extract([first], cache, minutes=0) is False
    assert build([first], cache).items == ()
    assert extract([first, make_item("P/0", 5)], cache)
    before = cache.read(first.problem)
    assert extract([first, second], cache)
    after = cache.read(first.problem)
    assert set(after) == {first.key, second.key}
    assert np.array_equal(before[first.key], after[first.key])
    capsys.readouterr()
    assert extract([first, second], cache)
    assert capsys.readouterr().err == ""


def test_another_configuration_has_another_cache(cache, backbone, make_item):
    item = make_item("P/0")
    extract([item], cache)
    other = open_cache(cache.folder, str(backbone), [1, 2])
    assert other.home != cache.home
    assert other.home.parent == cache.home.parent == cache.folder
    assert build([item], other).items == ()


def test_lines_are_read_from_a_cache_of_their_own(cache, backbone, make_item):
    item = make_item(passes=(0, 1, 2), rollouts=(0, 4, 4), truth=(None, True, None))
    lines = open_cache(cache.folder, str(backbone), [1, 3], Reading(unit="line"))
    assert lines.home != cache.home
    assert extract([item], cache)
    assert extract([item], lines)
    table = build([item], lines)
    (cut,) = table.items
    assert list(cut.steps) == line_steps(item.code)
    assert [step.name for step in cut.steps] == ["imports", "first", "second"]  # a line a function: the ends agree
    assert cut.passes == (0, 1, 2)
    assert np.allclose(table.states, build([item], cache).states, atol=2e-2)
    code = "def second(x):\n    y = x\n    return y\n"
    longer = make_item("P/1", code=code, passes=(3,), rollouts=(4,))
    assert extract([longer], lines)
    table = build([longer], lines)
    assert table.items[0].rollouts == (0, 4)  # what is known of a function is known of its last line
    assert table.states.shape == (2, 2, HIDDEN)


def test_another_way_of_reading_is_another_cache(cache):
    default = cache.home
    others = [Reading(adapter_sha256="ab"), Reading(step_token="<x>"), Reading(max_length=99), Reading(unit="line")]
    others += [Reading(pooling="last+mean"), Reading(unit="line", pooling="last+mean")]
    homes = {replace(cache, reading=reading).home for reading in others}
    assert len(homes | {default}) == 7
    assert replace(cache, reading=Reading(adapter=cache.folder)).home == default  # where it lies says nothing


def test_a_cache_with_more_layers_is_used(cache, backbone, make_item):
    narrow = open_cache(cache.folder, str(backbone), [3])
    assert widest(narrow) == narrow
    assert extract([make_item()], cache)
    assert widest(narrow) == cache
    assert widest(cache) == cache
    assert widest(open_cache(cache.folder, str(backbone), [2, 3])).layers == (2, 3)
    other = open_cache(cache.folder, str(backbone), [3], Reading(max_length=99))
    assert widest(other) == other
