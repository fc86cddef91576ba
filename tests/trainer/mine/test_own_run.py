"""`dreamprm train REPO`, whole: a small repository, the real sandbox, the real 0.5B, and `kill -9` twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_git import commit, digests, git

from dreamprm_cli.prm.checkpoint import load
from dreamprm_trainer.problems import read_jsonl

Make = Callable[..., Path]
DREAMPRM = [sys.executable, "-m", "dreamprm_cli"]
SMALL = ["--policy", "qwen2.5-coder-0.5b", "--prm", "small"]
OPTIONS = [*SMALL, "--budget", "30-rollouts", "-n", "2", "--rollouts", "2", "--max-tokens", "80"]

# name, arguments, what it does, expression, arguments and result of a test
FUNCTIONS = [
    ("double", "number", "Twice the number.", "2 * number", "4", "8"),
    ("last", "items", "The last of the items.", "items[-1]", "[1, 2, 3]", "3"),
    ("total", "items", "The sum of the items.", "sum(items)", "[1, 2, 3]", "6"),
    ("shout", "text", "The text in capitals.", "text.upper()", "'ab'", "'AB'"),
    ("is_even", "number", "Whether the number is even.", "number % 2 == 0", "3", "False"),
    ("smallest", "items", "The smallest of the items.", "min(items)", "[3, 1, 2]", "1"),
    ("backwards", "text", "The text from its end to its beginning.", "text[::-1]", "'abc'", "'cba'"),
    ("words", "text", "The words of the text.", "text.split()", "'a b'", "['a', 'b']"),
    ("square", "number", "The number times itself.", "number * number", "3", "9"),
    ("count", "items", "How many items there are.", "len(items)", "[1, 1, 1]", "3"),
    ("without", "items", "The items that are true.", "[one for one in items if one]", "[0, 2, 0]", "[2]"),
    ("initial", "text", "The first letter, a capital.", "text[:1].upper()", "'bc'", "'B'"),
    ("negative", "number", "The number with its sign turned.", "-number", "5", "-5"),
    ("joined", "items", "The items with commas between.", "','.join(items)", "['a', 'b']", "'a,b'"),
    ("distinct", "items", "How many different items there are.", "len(set(items))", "[1, 1, 2]", "2"),
    ("half", "number", "Half of the number, rounded down.", "number // 2", "5", "2"),
]


def project() -> dict[str, str]:
    """Two functions a file, a test each."""
    files = {"kit/__init__.py": ""}
    for number in range(0, len(FUNCTIONS), 2):
        some = FUNCTIONS[number : number + 2]
        files[f"kit/part{number // 2}.py"] = "\n\n".join(
            f'def {name}({argument}):\n    """{says}"""\n    return {body}\n'
            for name, argument, says, body, _, _ in some
        )
        imports = f"from kit.part{number // 2} import {', '.join(sorted(row[0] for row in some))}\n"
        files[f"tests/test_part{number // 2}.py"] = imports + "".join(
            f"\n\ndef test_{name}():\n    assert {name}({given}) == {result}\n" for name, _, _, _, given, result in some
        )
    return files


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DREAMPRM, "train", *map(str, arguments)], capture_output=True, text=True, check=False)


def killed(arguments: list[str], log: Path, when: Callable[[], bool]) -> None:
    """Start the command and end it by `kill -9`, with all it started, once that is so."""
    with log.open("wb") as said:
        process = subprocess.Popen([*DREAMPRM, "train", *arguments], stdout=said, stderr=said, start_new_session=True)
    until = time.monotonic() + 600
    while not when():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.docker
@pytest.mark.model
def test_a_small_repository_from_mining_to_the_gate(make: Make, tmp_path: Path) -> None:
    repo, out = make(project()), tmp_path / "out"
    before = digests(repo)

    told = json.loads(run(repo, "--out", out, "--dry-run", "--json", *OPTIONS).stdout)
    assert (told["functions"], told["covered"], told["tests"], told["measured"]) == (16, 16, 16, False)
    assert 0 < told["estimated"]["rollouts"] <= 30
    part = json.loads(run(repo, "--out", out, "--dry-run", "--json", "--functions", "4", *OPTIONS).stdout)
    assert (part["covered"], part["drawn"]) == (16, 4)
    assert part["tasks"] < told["tasks"]
    assert not out.exists()

    arguments = [str(repo), "--out", str(out), "--json", *OPTIONS]
    mined, programs = out / "project" / "runs.jsonl", out / "project" / "programs.jsonl"
    killed(arguments, tmp_path / "log", lambda: rows(mined) >= 4)
    kept = mined.read_bytes()
    killed(arguments, tmp_path / "log", lambda: rows(programs) >= 3)
    assert mined.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    first = read_jsonl(mined)
    assert len(first) == 1 + 16  # the suite once, and each function once
    written = programs.read_bytes()
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    for line in ("mine (1 of 4)", "label (2 of 4)", "fit (3 of 4)", "eval (4 of 4)"):
        assert line in done.stderr
    assert programs.read_bytes().startswith(written[: written.rindex(b"\n") + 1])
    drawn = [(row["task_id"], row["sample"]) for row in read_jsonl(programs)]
    assert len(drawn) == len(set(drawn)) >= 16
    report: dict[str, Any] = json.loads(done.stdout)
    about = report["repositories"]["project"]
    assert (about["functions"], about["covered"], about["tests"], about["with_killing_test"]) == (16, 16, 16, 16)
    assert report["labels"]["programs"] == len(drawn)
    assert 0 < report["labels"]["passed"] < report["labels"]["programs"]
    assert load(out / "candidate").metrics["recipe"] == "repo"
    assert set(report["all"]["best_of_n"]) >= {"prm", "shipped", "random"}
    assert "logprob" in report["attempts"]["best_of_n"]
    # Four held-out functions decide nothing.
    assert (report["better"], report["adopted_in"], report["checkpoint"]) == (False, [], str(out / "candidate"))
    assert report["why"].startswith("only ")
    page = (out / "report.md").read_text()
    assert page.startswith("# A reward model for project\n\n**The shipped PRM stays the default: only ")
    assert digests(repo) == before
    assert git(repo, "--no-optional-locks", "status", "--porcelain") == ""

    # What is done is done: again it takes no program and no test, and says the same.
    again = json.loads(run(*arguments).stdout)
    assert again["difference"] == report["difference"]
    assert rows(programs) == len(drawn)
    assert json.loads(run(repo, "--out", out, "--dry-run", "--json").stdout)["measured"]
    assert not json.loads(run(repo, "--out", out, "--dry-run", "--json", "--functions", "4").stdout)["measured"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "names no commit"),
        ({"README.md": "no code"}, "nothing to mine"),
    ],
)
def test_a_repository_with_nothing_to_mine_is_one_line(make: Make, files: dict[str, str] | None, said: str) -> None:
    for more in ([], ["--dry-run", "--json"]):
        done = run(make(files, name=f"project{len(more)}"), *more)
        assert (done.returncode, done.stdout) == (42, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 42, "there is no folder nowhere"),
        ([".", "--budget", "10"], 2, "no budget '10'"),
        (["--split", "size", "."], 2, "no split 'size'"),
        ([".", "--engine", "ray"], 2, "no engine 'ray'"),
        ([".", "--policy", "gguf:nowhere.gguf"], 1, "nowhere.gguf"),
        ([".", "--prm", "nowhere"], 1, "no PRM checkpoint 'nowhere'"),
        (["--help"], 0, "REPO"),
        (["mine", "--help"], 0, "tasks.jsonl"),
        (["repo", "--help"], 0, "--dry-run"),
    ],
)
def test_repositories_and_commands_stand_beside_each_other(arguments: list[str], code: int, said: str) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_what_is_committed_is_what_is_mined(make: Make) -> None:
    repo = make(project())
    commit(repo, {"kit/more.py": 'def more(x):\n    """More."""\n    return x + 1\n'}, day=2)
    (repo / "kit" / "later.py").write_text("def later():\n    return 1\n")
    told = json.loads(run(repo, "--dry-run", "--json").stdout)
    assert told["functions"] == 17
