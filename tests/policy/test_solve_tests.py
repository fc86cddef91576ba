"""`dreamprm solve --tests`: every candidate is run as it finishes, and passing comes first."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest
from loopback import Exchange, Serve

from dreamprm_cli.app import run

RIGHT = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return a - b\n"
SUITE = "from solution import add\n\ndef test():\n    assert add(1, 2) == 3\n"


@pytest.fixture
def solve(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Solve against a server that writes these programs in turn: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.md").write_text("# Add\n\nWrite `add(a, b)`.\n\n```python starter\ndef add(a, b):\n```\n")
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_add.py").write_text(SUITE)
    (tmp_path / "plain.jsonl").write_text('{"input": [1, 2], "output": 3}\n{"input": [0, 5], "output": 5}\n')
    (tmp_path / "problem.json").write_text(json.dumps({"tests": [{"input": [1, 2], "output": 3}]}))
    (tmp_path / "empty").mkdir()

    def call(programs: list[str], *arguments: str):
        turns = itertools.cycle(programs)

        def script(exchange: Exchange) -> None:
            exchange.start()
            exchange.text(f"```python\n{next(turns)}```", finish="stop")
            exchange.end(finish=None)

        url = f"http://127.0.0.1:{serve(script).server_port}/v1"
        options = ["--policy", "openai:m", "--base-url", url, "--prm", "none", "-n", str(len(programs)), "--json"]
        monkeypatch.setattr(sys, "argv", ["dreamprm", "solve", "one.md", *options, *arguments])
        with pytest.raises(SystemExit) as end:
            run()
        return end.value.code or 0, *capsys.readouterr()

    return call


@pytest.mark.docker
@pytest.mark.parametrize("tests", ["suite", "suite/test_add.py", "plain.jsonl", "problem.json"])
def test_the_program_that_passes_is_chosen(solve, tests):
    code, out, err = solve([WRONG, RIGHT], "--tests", tests)
    assert code == 0, err
    told = json.loads(out)
    statuses = {one["code"]: one["verdict"]["status"] for one in told["candidates"]}
    assert statuses == {WRONG: "WA", RIGHT: "PASS"}
    assert Path(told["out"]).read_text() == RIGHT
    assert {one["verdict"]["trust"] for one in told["candidates"]} == {"strong"}


@pytest.mark.docker
def test_none_passes_and_the_suite_that_the_problem_names(solve, tmp_path):
    (tmp_path / "one.md").write_text("---\ntests: suite\n---\n# Add\n\nWrite `add(a, b)`.\n")
    code, out, err = solve([WRONG], "--trust", "weak")
    assert code == 3, err
    [candidate] = json.loads(out)["candidates"]
    assert candidate["verdict"]["status"] == "WA"
    assert candidate["verdict"]["trust"] == "weak"


def test_without_a_sandbox_no_test_is_run_and_it_says_so(solve):
    code, out, err = solve([WRONG], "--tests", "suite", "--no-sandbox")
    assert code == 0, err
    assert json.loads(out)["candidates"][0]["verdict"] is None
    assert "tests are not run" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--tests", "nowhere"], 42, "no tests at nowhere"),
        (["--tests", "empty"], 2, "holds no tests"),
        (["--tests", "one.md"], 42, "not a file of tests"),
        (["--tests", "suite", "--examples"], 2, "give one of them"),
        (["--examples"], 42, "no examples"),
        (["--tests", "suite", "--trust", "much"], 2, "--trust"),
    ],
)
def test_tests_that_are_none_are_one_line_before_anything_is_sampled(solve, arguments, code, said):
    found, out, err = solve([RIGHT], *arguments)
    assert (found, out) == (code, "")
    assert said in " ".join(err.split())
    assert "Traceback" not in err
