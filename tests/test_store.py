import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm_cli import events as ev
from dreamprm_cli import store
from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Example, Problem, Tests

START = ev.RunStarted(t=0.0, run="r", problem={}, policy="p", prm=None, n=1, aggregation="mean", settings={})
NOTE = ev.Notice(t=1.0, text="naïve ✓\u2028")


def test_runs_that_start_in_one_second_get_folders_of_their_own(tmp_path):
    folders = {store.new_run(tmp_path / "runs", "Merge intervals!") for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.is_dir() and "merge-intervals" in folder.name for folder in folders)
    assert (tmp_path / "runs" / ".gitignore").read_text() == "*\n"


def test_the_journal_gives_back_what_was_appended(tmp_path):
    with store.Journal(tmp_path) as journal:
        journal.append(START)
        journal.append(NOTE)
    assert store.read_journal(tmp_path) == [START, NOTE]


@given(cut=st.integers(1, 60))
def test_a_journal_torn_by_a_kill_loses_its_last_line_only_and_goes_on(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("run")
    with store.Journal(folder) as journal:
        journal.append(START)
        journal.append(NOTE)
    path = folder / store.JOURNAL
    data = path.read_bytes()
    last = len(data.split(b"\n")[-2]) + 1
    path.write_bytes(data[: -min(cut, last)])
    assert store.read_journal(folder) == [START]
    with store.Journal(folder) as journal:
        journal.append(NOTE)
    assert store.read_journal(folder) == [START, NOTE]


def test_a_run_is_found_by_path_name_prefix_and_last(tmp_path):
    for name in ("20260101-a", "20260102-b"):
        (tmp_path / name).mkdir()
        with store.Journal(tmp_path / name) as journal:
            journal.append(START)
    newest = tmp_path / "20260102-b"
    assert store.find_run(tmp_path, "last") == newest
    assert store.find_run(tmp_path, "20260102") == newest
    assert store.find_run(tmp_path, "20260102-b") == newest
    assert store.find_run(tmp_path, str(newest)) == newest
    with pytest.raises(ProblemError, match="names 2 runs"):
        store.find_run(tmp_path, "2026")
    with pytest.raises(ProblemError, match="no run 'x'"):
        store.find_run(tmp_path, "x")


@pytest.mark.parametrize("text", ["", "{}\n", "not json\n", "[]\n", json.dumps(ev.to_json(NOTE)) + "\n"])
def test_a_damaged_journal_is_bad_input(tmp_path, text):
    (tmp_path / store.JOURNAL).write_text(text, encoding="utf-8")
    with pytest.raises(ProblemError):
        store.read_journal(tmp_path)


def test_only_whole_candidates_and_their_verdicts_are_kept_for_resume():
    done = ev.CandidateFinished(
        t=1.0, candidate=1, code="x", finish_reason="stop", seed=1, tokens=1, mean_logprob=-1.0, reward=0.5,
        adherence={},
    )  # fmt: skip
    orphan = ev.TestsRan(t=1.0, candidate=0, status="WA", passed=0, total=1, seconds=0.0, trust="strong")
    verdict = ev.TestsRan(t=2.0, candidate=1, status="PASS", passed=1, total=1, seconds=0.0, trust="strong")
    sampled = ev.SampleStarted(t=0.5, candidate=0, seed=3)
    assert store.finished([START, sampled, done, orphan, verdict]) == ({1: done}, {1: verdict})


def test_problems_survive_the_journal():
    problem = Problem(
        id="p", statement="s", entry_point="f", tests=Tests("examples", (Example("1", "2"),), {"k": [1]}), title="t"
    )
    assert store.problem_from_json(json.loads(json.dumps(store.problem_json(problem)))) == problem


def test_a_replaced_file_is_never_half_written_and_leaves_nothing_beside_it(tmp_path):
    target = tmp_path / "solution.py"
    store.write_atomic(target, "one")
    store.write_atomic(target, "two")
    assert target.read_text() == "two"
    assert list(tmp_path.iterdir()) == [target]
