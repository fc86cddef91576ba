"""The whole of mining, in real containers: tests that cannot be trusted, mutants, resuming, grading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_git import PROJECT, digests, git
from typer.testing import CliRunner

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.mine_app import mine
from dreamprm_trainer.mine.grading import Grader
from dreamprm_trainer.problems import problem_of, read_jsonl

pytestmark = pytest.mark.docker
Make = Callable[..., Path]
BAD_TESTS = """import os
import time

import pytest

from project.sums import total


def test_fails():
    assert total([1]) == 2


def test_hangs():
    time.sleep(60)


def test_hangs_and_catches_all():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass


def test_ends_the_process():
    os._exit(3)


@pytest.mark.skip
def test_skipped():
    pass


def test_writes_beside_itself():
    with open("project/sums.py", "a") as file:
        file.write("raise SystemExit\\n")
"""
SETTINGS = "[sandbox]\ntest_time_limit_s = 2\n"


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(mine)
    return app


def _mined(repo: Path, out: Path, *options: str) -> dict[str, Any]:
    found = CliRunner().invoke(_app(), [str(repo), "--out", str(out), "--json", *options], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    report: dict[str, Any] = json.loads(found.stdout)
    return report


@pytest.fixture
def project(make: Make) -> Iterator[Path]:
    folder = make({**PROJECT, "tests/test_bad.py": BAD_TESTS, "dreamprm.toml": SETTINGS})
    before = digests(folder)
    yield folder
    assert digests(folder) == before
    assert git(folder, "--no-optional-locks", "status", "--porcelain") == ""


def test_from_repository_to_verdicts(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = _mined(project, out)
    why = {one["name"]: one["why"] for one in report["left_out"]}
    assert why["tests/test_bad.py::test_fails"].startswith("failed before any change: assert 1 == 2")
    assert "slower than the limit" in why["tests/test_bad.py::test_hangs"]
    assert why["tests/test_bad.py::test_hangs_and_catches_all"].startswith("hangs")
    assert why["tests/test_bad.py::test_ends_the_process"].startswith("ends the process")
    assert why["tests/test_bad.py::test_skipped"].startswith("skipped")
    assert why["project/sums.py::unused"] == "neither a docstring nor a test that exercises it"
    assert (report["functions"], report["covered"], report["tasks"]) == (4, 3, 3)
    assert report["with_killing_test"] == 3
    rows = {row["qualname"]: row for row in read_jsonl(out / "tasks.jsonl")}
    assert "tests/test_sums.py::test_total" in rows["total"]["tests"]["ids"]
    assert set(rows["Counter.add"]["tests"]["ids"]) == {
        "tests/test_sums.py::test_add", "tests/test_sums.py::test_negative"
    }  # fmt: skip
    pool = read_jsonl(out / "pool.jsonl")
    assert {row["passed"] for row in pool} == {True, False}
    assert sum(not row["passed"] for row in pool) == report["negatives"] >= 3

    # Killed in the middle: what is kept is not run again, and the tasks come out the same.
    tasks, runs = (out / "tasks.jsonl").read_bytes(), (out / "runs.jsonl").read_bytes()
    (out / "runs.jsonl").write_bytes(runs[: runs.rindex(b"\n", 0, -1) + 20])
    assert _mined(project, out)["tasks"] == 3
    assert (out / "tasks.jsonl").read_bytes() == tasks
    assert len((out / "runs.jsonl").read_bytes().splitlines()) == len(runs.splitlines()) == 4

    # The same tests grade any program.
    with Grader(project, out) as grader:
        problem = problem_of(rows["Counter.add"])
        verdict = grader.grade(problem, rows["Counter.add"]["canonical"])
        assert (verdict.status, verdict.passed, verdict.total, verdict.trust) == ("PASS", 2, 2, "weak")
        inside = (
            "class Counter:\n    def add(self, step=1):\n        self.count += abs(step)\n        return self.count\n"
        )
        assert grader.grade(problem, inside).status == "WA"
        assert grader.grade(problem, "def add(self, step=1:\n").status == "CE"
        assert grader.grade(problem, "def add(self, step=1):\n    while True: pass\n").status == "TLE"
        for escape in ("import os\n    os._exit(0)", "import os\n    os.kill(os.getppid(), 9)", "raise SystemExit"):
            assert grader.grade(problem, f"def add(self, step=1):\n    {escape}\n").status == "RE"
        spoil = "open(__file__, 'w').write('')\n    import os\n    os.fork() or __import__('time').sleep(100)"
        assert grader.grade(problem, f"def add(self, step=1):\n    {spoil}\n").status != "PASS"
        assert grader.grade(problem, rows["Counter.add"]["canonical"]).status == "PASS"
        with pytest.raises(ProblemError, match="no test"):
            grader.grade(problem_of({**rows["total"], "tests": {"kind": "none"}}), "x = 1\n")


def test_a_flaky_test_is_left_out(make: Make, tmp_path: Path) -> None:
    """Passes under a tracer, that is: in the first run."""
    flaky = "import sys\nfrom project.sums import total\ndef test_flaky():\n    assert total([1]) and sys.gettrace()\n"
    report = _mined(make({**PROJECT, "tests/test_flaky.py": flaky}), tmp_path / "out")
    why = {one["name"]: one["why"] for one in report["left_out"]}
    assert why["tests/test_flaky.py::test_flaky"] == "flaky: passed, then failed"
    assert report["tests"] == 3


def test_a_part_is_mined_and_the_rest_later(make: Make, tmp_path: Path) -> None:
    repo, out = make(PROJECT), tmp_path / "out"
    report = _mined(repo, out, "--functions", "2")
    assert (report["covered"], report["drawn"], report["with_killing_test"]) == (3, 2, 2)
    assert "not drawn: --functions 2" in [one["why"] for one in report["untested"]]
    kept = (out / "runs.jsonl").read_bytes()
    assert len(kept.splitlines()) == 1 + 2  # the suite, and each function
    assert _mined(repo, out)["drawn"] == 3
    runs = (out / "runs.jsonl").read_bytes()
    assert runs.startswith(kept)
    assert len(runs.splitlines()) == 1 + 3


def test_src_layout_methods_of_unittest_and_a_file_that_cannot_be_collected(make: Make, tmp_path: Path) -> None:
    files = {
        "src/lib/__init__.py": "",
        "src/lib/words.py": "async def later(x):\n    return x + 1\n\n\ndef shout(x):\n    return x.upper() + '!'\n",
        "tests/test_words.py": (
            "import asyncio, unittest\nfrom lib.words import later, shout\n\n\nclass Words(unittest.TestCase):\n"
            "    def test_shout(self):\n        self.assertEqual(shout('a'), 'A!')\n\n"
            "    def test_later(self):\n        self.assertEqual(asyncio.run(later(1)), 2)\n"
        ),
        "tests/test_absent.py": "import nowhere_to_be_found\n\n\ndef test_x():\n    pass\n",
        "setup.cfg": "[tool:pytest]\naddopts = --cov=lib --no-such-option\n",
    }
    report = _mined(make(files), tmp_path / "out")
    why = {one["name"]: one["why"] for one in report["left_out"]}
    assert "nowhere_to_be_found" in why["tests/test_absent.py"]
    assert (report["covered"], report["with_killing_test"]) == (2, 2)


def test_killed_for_good_and_begun_again(make: Make, tmp_path: Path) -> None:
    folder, out = make(PROJECT), tmp_path / "out"
    program = (
        "import sys, typer; from dreamprm_cli.mine_app import mine\n"
        "app = typer.Typer(); app.command()(mine); app(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, str(folder), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "pass twice" in line:
                running.kill()
                break
    kept = (out / "runs.jsonl").read_bytes()
    assert _mined(folder, out)["with_killing_test"] == 3
    assert (out / "runs.jsonl").read_bytes().startswith(kept)
    assert sum(b'"suite"' in line for line in (out / "runs.jsonl").read_bytes().splitlines()) == 1


def test_a_repository_without_anything_is_exit_code_42(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ProblemError) as raised:
        CliRunner().invoke(_app(), [str(make()), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert raised.value.exit_code == 42
