"""`dreamprm solve --target`, whole: a real repository, a server that writes programs, the real sandbox, the diff."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback import Exchange, Serve

from dreamprm_cli.app import run

MODULE = '''"""Sums."""


def total(values):
    """The sum of the values; 0 for none."""


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, step):
        """Add a step; the new count."""
        self.count += 1
        return self.count
'''.replace("\n", "\r\n")
TESTS = """from project.sums import Counter, total


def test_total():
    assert total([1, 2, 3]) == 6


def test_none():
    assert total([]) == 0


def test_one():
    assert Counter().add(1) == 1


def test_two():
    counter = Counter()
    assert (counter.add(2), counter.add(3)) == (2, 5)


def test_of_another_thing():
    assert False
"""
GOOD = "def total(values):\n    return sum(values)\n"
POOR = "def total(values):\n    return max(values)\n"
ELSE = "def subtotal(values):\n    return sum(values)\n"
Solve = Callable[..., tuple[int, str, str]]


def git(folder: Path, *arguments: str) -> str:
    environment = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "PATH": os.environ["PATH"]}
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose tests have changed since its commit; runs are kept in it, as `--repo .` does."""
    folder = tmp_path / "repo"
    for path, text in {
        "project/__init__.py": "",
        "project/sums.py": MODULE,
        "tests/test_sums.py": "import nothing",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "work")
    (folder / "tests" / "test_sums.py").write_text(TESTS)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def solve(serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Solve:
    """Solve against a server that writes these programs in turn: (exit code, standard output, standard error)."""

    def call(programs: list[str], *arguments: str) -> tuple[int, str, str]:
        written = iter(programs)

        def script(exchange: Exchange) -> None:
            exchange.start()
            exchange.text(f"```python\n{next(written)}```", finish="stop")
            exchange.end(finish=None)

        url = f"http://127.0.0.1:{serve(script).server_port}/v1"
        options = ["--policy", "openai:m", "--base-url", url, "--prm", "none", "-n", str(len(programs))]
        monkeypatch.setattr(sys, "argv", ["dreamprm", "solve", *options, *arguments])
        with pytest.raises(SystemExit) as end:
            run()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


@pytest.mark.docker
def test_the_program_that_passes_is_offered_as_a_diff_and_applied(solve: Solve, repo: Path) -> None:
    code, out, err = solve([POOR, ELSE, GOOD], "--repo", ".", "--target", "project/sums.py::total")
    assert code == 0, err
    assert "running them under coverage" in err
    assert "2 tests exercise total; 2 fail now" in err
    assert "nothing is written" in err
    assert (repo / "project" / "sums.py").read_bytes() == MODULE.encode()
    assert git(repo, "status", "--porcelain") == " M tests/test_sums.py\n"
    git(repo, "apply", "--check", str(next(repo.glob(".dreamprm/runs/*/change.diff"))))
    assert [line for line in out.splitlines() if line[0] in "+-"] == [
        "--- a/project/sums.py", "+++ b/project/sums.py", "+    return sum(values)"
    ]  # fmt: skip

    code, out, err = solve([GOOD, POOR, ELSE], "--target", "project/sums.py::total", "--apply", "--json")
    assert code == 0, err
    assert "running them under coverage" not in err  # nothing has changed
    assert "2 tests exercise total; 2 fail now" in err
    told = json.loads(out)
    by_code = {one["code"]: one["verdict"] for one in told["candidates"]}
    assert {code: verdict["status"] for code, verdict in by_code.items()} == {GOOD: "PASS", POOR: "WA", ELSE: "CE"}
    assert (by_code[GOOD]["passed"], by_code[GOOD]["total"], by_code[GOOD]["trust"]) == (2, 2, "weak")
    target = told["target"]
    assert target["applied"]
    assert target["tests"] == ["tests/test_sums.py::test_none", "tests/test_sums.py::test_total"]
    want = MODULE.replace('0 for none."""\r\n', '0 for none."""\r\n    return sum(values)\r\n')
    assert (repo / "project" / "sums.py").read_bytes() == want.encode()
    assert git(repo, "status", "--porcelain") == " M project/sums.py\n M tests/test_sums.py\n"
    assert git(repo, "log", "--oneline").count("\n") == 1


@pytest.mark.docker
def test_a_method_that_no_program_mends_stays_as_it_is(solve: Solve, repo: Path) -> None:
    wrong = "class Counter:\n    def add(self, step):\n        self.count -= step\n        return self.count\n"
    code, out, err = solve([wrong], "--target", "project/sums.py::Counter.add", "--apply")
    assert code == 3, err
    assert "2 tests exercise Counter.add; 1 fail now" in err
    assert "no program passes the tests: nothing is written" in err
    assert "+        self.count -= step" in out
    assert (repo / "project" / "sums.py").read_bytes() == MODULE.encode()


@pytest.mark.docker
def test_a_function_that_is_not_there_yet_is_written_where_its_tests_look_for_it(solve: Solve, repo: Path) -> None:
    (repo / "tests" / "test_mean.py").write_text(
        "from project.sums import mean\n\n\ndef test_mean():\n    assert mean([1, 3]) == 2\n"
    )
    problem = repo.parent / "mean.md"
    problem.write_text("# Mean\n\nThe mean of the values.\n\n```python starter\ndef mean(values):\n```\n")
    program = "from statistics import fmean\n\n\ndef mean(values):\n    return fmean(values)\n"
    code, _, err = solve([program], "--target", "project/sums.py::mean", "--apply", str(problem))
    assert code == 0, err
    assert "1 test exercises mean; 1 fail now" in err
    text = (repo / "project" / "sums.py").read_bytes().decode()
    assert text.endswith("\r\n\r\n\r\ndef mean(values):\r\n    return fmean(values)\r\n")
    assert "\r\nfrom statistics import fmean\r\n" in text


def test_without_tests_the_rewards_decide_and_a_changed_file_is_not_written(solve: Solve, repo: Path) -> None:
    code, out, err = solve([ELSE, GOOD], "--target", "project/sums.py::total", "--apply", "--no-sandbox")
    assert code == 0, err
    assert "tests are not run" in err
    assert "+    return sum(values)" in out
    assert b"sum(values)" in (repo / "project" / "sums.py").read_bytes()
    (repo / "project" / "sums.py").write_bytes(MODULE.encode())

    place = repo / "project" / "sums.py"
    spoil = MODULE.encode() + b"# mine\r\n"

    class Slow(str):
        def __format__(self, spec: str) -> str:
            place.write_bytes(spoil)  # while the program is being written
            return str(self)

    code, _, err = solve([Slow(GOOD)], "--target", "project/sums.py::total", "--apply", "--no-sandbox")
    assert code == 42, err
    assert "changed meanwhile" in err
    assert place.read_bytes() == spoil


def test_a_resumed_run_offers_its_diff_again_unless_the_file_has_changed(
    solve: Solve, repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = solve([GOOD], "--target", "project/sums.py::total", "--no-sandbox")
    assert code == 0, err
    monkeypatch.setattr(sys, "argv", ["dreamprm", "resume", "last"])
    with pytest.raises(SystemExit) as end:
        run()
    assert not end.value.code
    assert capsys.readouterr().out == out
    (repo / "project" / "sums.py").write_text("x = 1\n")
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 42
    assert "no function total" in capsys.readouterr().err
    (repo / "project" / "sums.py").write_text("def total(values):\n    return 1\n")
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 42
    assert "changed since the run began" in capsys.readouterr().err


@pytest.mark.docker
def test_a_repository_without_tests_says_so(solve: Solve, repo: Path) -> None:
    (repo / "tests" / "test_sums.py").unlink()
    code, out, err = solve([GOOD], "--target", "project/sums.py::total")
    assert code == 0, err
    assert "holds no tests: the rewards alone decide" in err
    assert "+    return sum(values)" in out


@pytest.mark.model
def test_a_real_model_writes_into_its_place(repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    options = ["--policy", "qwen2.5-coder-0.5b", "--prm", "none", "-n", "1", "--max-tokens", "80", "--no-sandbox"]
    arguments = ["dreamprm", "solve", *options, "--target", "project/sums.py::total", "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        run()
    assert not end.value.code
    target = json.loads(capsys.readouterr().out)["target"]
    assert (target["candidate"], target["applied"]) == (0, False)
    git(repo, "apply", str(repo / target["diff_file"]))
    before, after = MODULE.encode(), (repo / "project" / "sums.py").read_bytes()
    cut = before.index(b"\r\n\r\n\r\nclass")
    assert after != before
    assert after.startswith(before[:cut])
    assert after.endswith(before[cut:])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--target", "project/sums.py::totl"], 42, "did you mean project/sums.py::total?"),
        (["--target", "sums.py::total"], 42, "did you mean project/sums.py::total?"),
        (["--target", "total"], 2, "names no function"),
        (["--target", "project/sums.py::total", "--repo", "/"], 42, "not a git repository"),
        (["--target", "project/sums.py::total", "--tests", "tests"], 2, "--tests has no place there"),
        (["--repo", "."], 2, "--repo needs a function"),
        (["--apply", "x.md"], 2, "--apply needs a function"),
        ([], 2, "there is no problem to solve"),
    ],
)
def test_bad_input_is_one_clear_line(solve: Solve, repo: Path, arguments: list[str], code: int, said: str) -> None:
    got, out, err = solve([GOOD], *arguments)
    assert got == code
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert list(repo.glob(".dreamprm/runs/*")) == []
