"""`dreamprm grade`: stopped and started again, past problems that are broken, over submissions of several files."""

import base64
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dreamprm_cli.errors import ProblemError
from dreamprm_sandbox.grade import kept
from dreamprm_sandbox.samples import Sample

ADD = {"task_id": "add", "entry_point": "add", "tests": [{"input": [1, 2], "output": 3}]}
RIGHT, WRONG = "def add(a, b): return a + b", "def add(a, b): return a - b"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(*arguments):
    return [sys.executable, "-m", "dreamprm_cli", "grade", "problems.jsonl", "samples.jsonl", *arguments]


def grade(folder, *arguments):
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.docker
def test_after_a_kill_the_same_command_goes_on(tmp_path):
    write(tmp_path / "problems.jsonl", [ADD])
    slow = "import time\ndef add(a, b):\n    time.sleep(0.15)\n    return a + b\n"
    write(tmp_path / "samples.jsonl", [{"task_id": "add", "solution": f"{slow}# {n}"} for n in range(24)])
    arguments = ("--out", "out.jsonl", "--workers", "1", "--jsonl")
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = [process.stdout.readline() for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write('{"event": "verd')  # torn by the kill
    done = grade(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["index"] for row in rows] == list(range(24))
    assert {row["status"] for row in rows} == {"PASS"}
    assert [json.loads(line) for line in first] == rows[:5]
    assert (tmp_path / "out.jsonl").read_text() == done.stdout
    started = time.monotonic()
    again = grade(tmp_path, *arguments)
    assert again.stdout == done.stdout
    assert time.monotonic() - started < 24 * 0.15 + 10


def test_verdicts_of_other_programs_are_not_taken_for_these(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"task_id": "a", "index": 0, "status": "PASS"}\n{"task_id": "b", "index": 1, "st')
    assert len(kept(path, [Sample("a", 0, ""), Sample("b", 1, "")])) == 1
    with pytest.raises(ProblemError, match="other programs"):
        kept(path, [Sample("b", 0, "")])
    path.write_text("[1]\n")
    with pytest.raises(ProblemError, match="not a file of verdicts"):
        kept(path, [])


@pytest.mark.docker
def test_verdicts_of_two_modes_and_of_one_are_not_mixed(tmp_path):
    plus = {
        "task_id": "Mbpp/9003", "prompt": "", "entry_point": "add", "canonical_solution": RIGHT,
        "base_input": [[1, 2]], "plus_input": [], "atol": 0,
    }  # fmt: skip
    write(tmp_path / "problems.jsonl", [plus])
    write(tmp_path / "samples.jsonl", [{"task_id": "Mbpp/9003", "solution": code} for code in (RIGHT, WRONG)])
    both = ("--compare", "evalplus", "--jsonl")
    for name, before, after, said in [("one", (), both, "begun without"), ("two", both, (), "begun with --compare")]:
        begun = grade(tmp_path, "--out", name, *before)
        assert begun.returncode == 0, begun.stderr
        first, _ = (tmp_path / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text(first)  # stopped after the first
        refused = grade(tmp_path, "--out", name, *after)
        assert (refused.returncode, refused.stdout) == (ProblemError.exit_code, "")
        assert said in refused.stderr
        assert (tmp_path / name).read_text() == first
        assert grade(tmp_path, "--out", name, *before).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "two").read_text().splitlines()]
    assert [(row["status"], row["compat"], row["differs"]) for row in rows] == [
        ("PASS", "PASS", False),
        ("WA", "WA", False),
    ]


@pytest.mark.docker
def test_a_broken_problem_leaves_its_programs_ungraded_and_the_others_graded(tmp_path):
    broken = {
        "task_id": "Mbpp/9001", "prompt": "", "entry_point": "f", "canonical_solution": "def f(x): return 1 / x",
        "base_input": [[1], [0]], "plus_input": [], "atol": 0,
    }  # fmt: skip
    large = {**broken, "task_id": "Mbpp/9002", "canonical_solution": "def f(x): return [x] * (x * 3_000_000 + 1)"}
    write(tmp_path / "problems.jsonl", [broken, ADD, large])
    samples = [
        {"task_id": "Mbpp/9001", "solution": "def f(x): return 1"},
        {"task_id": "add", "solution": RIGHT},
        {"task_id": "add", "solution": ""},
        {"task_id": "add", "solution": None},
        {"task_id": "Mbpp/9001", "solution": "def f(x): return 2"},
        {"task_id": "Mbpp/9002", "solution": "def f(x): return [x] * (x * 3_000_000 + 1)"},
    ]
    write(tmp_path / "samples.jsonl", samples)
    done = grade(tmp_path, "--jsonl", "--out", "out.jsonl")
    assert done.returncode == 42, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["status"] for row in rows] == [None, "PASS", "RE", "RE", None, "PASS"]
    assert rows[0]["event"] == "ungraded"
    assert "reference" in rows[0]["reason"]
    assert "not graded: Mbpp/9001" in done.stderr
    assert "Mbpp/9002: 1 inputs left out" in done.stderr
    totals = json.loads(grade(tmp_path, "--json").stdout)
    assert (totals["samples"], totals["passed"], list(totals["ungraded"])) == (4, 2, ["Mbpp/9001"])
    assert totals["left_out"] == {"Mbpp/9002": 1}


@pytest.mark.docker
def test_rows_of_files_archives_and_suites(tmp_path):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_add.py").write_text("from solution import add\ndef test(): assert add(1, 2) == 3\n")
    suite = {"task_id": "suite", "tests": {"kind": "pytest", "path": "suite"}}
    write(tmp_path / "problems.jsonl", [ADD, suite])
    files = {"solution.py": "from plus import add", "plus.py": RIGHT}
    rows = [
        {"task_id": "add", "files": files},
        {"task_id": "suite", "files": files},
        {"task_id": "suite", "solution": WRONG},
        {"task_id": "suite", "files": {**files, "conftest.py": ""}},
        {"task_id": "add", "archive": base64.b64encode(b"not an archive").decode()},
    ]
    write(tmp_path / "samples.jsonl", rows)
    done = grade(tmp_path, "--jsonl")
    assert done.returncode == 0, done.stderr
    statuses = [json.loads(line)["status"] for line in done.stdout.splitlines()]
    assert statuses == ["PASS", "PASS", "WA", "REJECT", "REJECT"]
    rows = [{"task_id": "add", "archive": "?"}, {"task_id": "add", "files": []}, {"task_id": "add", "files": {"a": 1}}]
    for row in rows:
        write(tmp_path / "samples.jsonl", [row])
        wrong = grade(tmp_path)
        assert (wrong.returncode, "Traceback" in wrong.stderr) == (42, False)
