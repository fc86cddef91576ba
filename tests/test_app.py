"""The command line as a user meets it: whole processes, their output, errors and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamprm_cli.prm.compare import INCREMENTAL
from dreamprm_cli.prm.open import pick_engine

EXAMPLE = str(Path(__file__).parent.parent / "examples" / "merge_intervals.md")
RECORDED = str(Path(__file__).parent.parent / "docs" / "runs" / "merge_intervals")
SMALL = "qwen2.5-coder-0.5b"


def environment(home):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("DREAMPRM_", "OPENAI_"))}
    cache = os.environ.get("DREAMPRM_CACHE")
    return {
        **keep,
        **({"DREAMPRM_CACHE": cache} if cache else {}),
        "XDG_CONFIG_HOME": str(home / "config"),
        "COLUMNS": "100",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def dreamprm(folder, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "dreamprm_cli", *arguments], cwd=folder, env=environment(folder), capture_output=True,
        text=True, timeout=300, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["solve", "missing.md"], 42, "missing.md"),
        (["solve", "set.jsonl#nothing"], 42, "set.jsonl"),
        (["solve", EXAMPLE, "--policy", "qwen"], 2, "unknown policy"),
        (["solve", EXAMPLE, "--aggregation", "median"], 2, "aggregation"),
        (["solve", EXAMPLE, "-n", "0"], 2, "-n"),
        (["solve", EXAMPLE, "--out", "no/such/folder.py"], 2, "no folder"),
        (["solve", EXAMPLE, "--out", "."], 2, "cannot be written"),
        (["solve", EXAMPLE, "--json", "--jsonl"], 2, "exclude each other"),
        (["solve", EXAMPLE, "--policy", "gguf:nothing.gguf", "--prm", "none"], 2, "nothing.gguf"),
        (["solve", EXAMPLE, "--policy", "openai:x", "--prm", "none"], 1, "OPENAI_API_KEY"),
        (["solve", EXAMPLE, "--policy", "openai:x", "--prm", "nowhere"], 1, "nowhere"),
        (["score", "missing.py", "--problem", EXAMPLE], 42, "missing.py"),
        (["score", "-", "--problem", "-"], 2, "cannot both be standard input"),
        (["prm", "check", "nowhere"], 1, "nowhere"),
        (["bench", "--problems", "p.jsonl"], 2, "--samples POOL or --policy NAME"),
        (["bench", "--samples", "s.jsonl"], 2, "--problems is missing"),
        (["bench", "--problems", "p.jsonl", "--policy", "x"], 2, "--policy needs --out"),
        (["bench", "--problems", "p.jsonl", "--policy", "x", "--signature"], 2, "--signature goes with --samples"),
        (["bench", "--problems", "p.jsonl", "--samples", "s.jsonl", "--rival", "orm"], 2, "not NAME=CHECKPOINT"),
        (["bench", "--problems", "missing.jsonl", "--samples", "s.jsonl", "--prm", "none"], 42, "missing.jsonl"),
        (["bench", "--adherence", "--samples", "missing.jsonl"], 42, "missing.jsonl"),
        (["replay", "last"], 42, "no run 'last'"),
        (["replay", RECORDED, "--svg", "."], 1, "Is a directory"),
        (["resume", "nothing"], 42, "no run 'nothing'"),
        (["models", "pull", SMALL, "gpt-7"], 2, "gpt-7"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_is_one_clear_line_and_an_exit_code(tmp_path, arguments, code, said):
    done = dreamprm(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_projects_file_cannot_send_the_users_key_elsewhere(tmp_path):
    (tmp_path / "dreamprm.toml").write_text('policy = "openai:x"\nprm = "none"\nbase_url = "http://127.0.0.1:9/v1"\n')
    done = subprocess.run(
        [sys.executable, "-m", "dreamprm_cli", "solve", EXAMPLE], cwd=tmp_path, capture_output=True, text=True,
        env={**environment(tmp_path), "OPENAI_API_KEY": "sk-secret"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "would send your OPENAI_API_KEY" in done.stderr
    assert "sk-secret" not in done.stderr


def test_help_names_every_command_and_version_is_told(tmp_path):
    done = dreamprm(tmp_path, "--help")
    assert done.returncode == 0
    for word in (
        "solve",
        "score",
        "replay",
        "resume",
        "models",
        "prm",
        "sandbox",
        "grade",
        "bench",
        "doctor",
        "--version",
    ):
        assert word in done.stdout
    version = dreamprm(tmp_path, "--version").stdout
    assert version.startswith("dreamprm ")
    assert dreamprm(tmp_path, "-V", "solve").stdout == version


def test_the_readme_shows_every_command():
    readme = (Path(EXAMPLE).parent.parent / "README.md").read_text(encoding="utf-8")
    from dreamprm_cli.app import app

    names = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback is not None]
    for group in app.registered_groups:
        commands = group.typer_instance.registered_commands
        names += [f"{group.name} {c.name or c.callback.__name__}" for c in commands if c.callback is not None]
    assert "models pull" in names
    names[names.index("train repo")] = "train REPO"  # a command without a word of its own
    assert [name for name in names if f"dreamprm {name}" not in readme] == []


def test_a_run_may_be_named_by_its_journal_and_read_in_part(tmp_path):
    whole = dreamprm(tmp_path, "replay", f"{RECORDED}/journal.jsonl", "--jsonl")
    assert whole.returncode == 0
    events = [json.loads(line) for line in whole.stdout.splitlines()]
    assert events[0]["event"] == "RunStarted"
    assert all(event["schema_version"] == 1 for event in events)
    head = f"{sys.executable} -m dreamprm_cli replay {RECORDED} --jsonl | head -1"
    done = subprocess.run(head, shell=True, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.stdout == whole.stdout.splitlines(keepends=True)[0]
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_in_a_line(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dreamprm_cli", "replay", RECORDED, "--json"], cwd=tmp_path, stdout=full,
            env=environment(tmp_path), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_runs_that_cannot_be_kept_are_told_before_anything_is_loaded(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dreamprm.toml").write_text('runs_dir = "file/runs"')
    done = dreamprm(tmp_path, "solve", EXAMPLE)
    assert done.returncode == 2
    assert "runs cannot be kept" in done.stderr


def test_ctrl_c_is_130_while_nothing_runs_yet(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamprm_cli", "solve", "-"], cwd=tmp_path, env=environment(tmp_path),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write("# A problem, not yet whole\n" * 10_000)  # more than a pipe holds: it reads when this is out
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


def test_doctor_and_models_list_answer_as_tables_and_as_json(tmp_path):
    assert "Python" in dreamprm(tmp_path, "doctor").stdout
    assert {row["name"] for row in json.loads(dreamprm(tmp_path, "doctor", "--json").stdout)["checks"]} >= {"Python"}
    assert SMALL in dreamprm(tmp_path, "models", "list").stdout
    models = json.loads(dreamprm(tmp_path, "models", "list", "--json").stdout)["models"]
    assert {row["name"] for row in models} >= {SMALL, "qwen2.5-coder-1.5b"}


@pytest.mark.model
def test_a_real_solve_scores_replays_and_its_program_can_be_scored_again(tmp_path):
    done = dreamprm(
        tmp_path, "solve", EXAMPLE, "--policy", SMALL, "--prm", "small", "-n", "2", "--max-tokens", "160", "--json"
    )
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["schema_version"] == 1
    assert len(run["candidates"]) == 2
    chosen = run["candidates"][run["chosen"]]
    assert Path(tmp_path, run["out"]).read_text(encoding="utf-8").strip() == chosen["code"].strip()
    assert any(step["reward"] is not None for step in chosen["steps"])
    assert run["usage"]["output_tokens"] > 0
    replayed = dreamprm(tmp_path, "replay", "last", "--json")
    assert json.loads(replayed.stdout) == run
    shown = dreamprm(tmp_path, "replay", "last", "--speed", "0", "--svg", "run.svg")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "run.svg").read_text(encoding="utf-8").startswith("<svg")
    (tmp_path / "program.py").write_text(chosen["code"], encoding="utf-8")
    scored = json.loads(
        dreamprm(tmp_path, "score", "program.py", "--problem", EXAMPLE, "--prm", "small", "--json").stdout
    )
    assert scored["usage"]["input_tokens"] > 0
    assert scored["notices"] == run["notices"]
    live = [step["reward"] for step in chosen["steps"]]
    near = 1e-3 if pick_engine("small") == "torch" else INCREMENTAL  # llama.cpp, where no processor multiplies bf16
    assert [step["reward"] for step in scored["steps"]] == [
        r if r is None else pytest.approx(r, abs=near) for r in live
    ]


@pytest.mark.model
def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(tmp_path):
    arguments = ["solve", EXAMPLE, "--policy", SMALL, "--prm", "none", "-n", "3", "--max-tokens", "80", "--jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamprm_cli", *arguments], cwd=tmp_path, env=environment(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "TextArrived":
            process.send_signal(signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=120)
    events += [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 130, errors
    assert events[-1]["event"] == "RunFinished"
    assert events[-1]["interrupted"] is True
    assert "dreamprm resume" in errors
    time.sleep(0.1)
    resumed = dreamprm(tmp_path, "resume", "last", "--json")
    assert resumed.returncode == 0, resumed.stderr
    outcome = json.loads(resumed.stdout)
    assert len(outcome["candidates"]) == 3
    assert outcome["interrupted"] is False


@pytest.mark.model
@pytest.mark.docker
def test_examples_run_in_the_sandbox_and_decide_the_exit_code(tmp_path):
    arguments = ["--policy", SMALL, "--prm", "none", "-n", "1", "--max-tokens", "8", "--examples", "--json"]
    done = dreamprm(tmp_path, "solve", EXAMPLE, *arguments)  # eight tokens are no program that passes
    assert done.returncode == 3, done.stderr
    [candidate] = json.loads(done.stdout)["candidates"]
    assert candidate["verdict"]["status"] != "PASS"
    assert candidate["verdict"]["trust"] == "strong"


@pytest.mark.docker
def test_grade_gives_a_verdict_a_program_and_totals(tmp_path):
    problems = [{"task_id": "add", "entry_point": "add", "tests": [{"input": [1, 2], "output": 3}]}]
    programs = ["def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))
    samples = [{"task_id": "add", "solution": code} for code in programs]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    lines = dreamprm(tmp_path, "grade", "problems.jsonl", "samples.jsonl", "--jsonl")
    assert [json.loads(line)["status"] for line in lines.stdout.splitlines()] == ["PASS", "WA"], lines.stderr
    totals = json.loads(dreamprm(tmp_path, "grade", "problems.jsonl", "samples.jsonl", "--json").stdout)
    assert (totals["samples"], totals["passed"], totals["pass@1"]) == (2, 1, 0.5)
    wrong = dreamprm(tmp_path, "grade", "problems.jsonl", "samples.jsonl", "--compat", "lenient")
    assert wrong.returncode == 2
    assert "lenient" in wrong.stderr


PROBLEM = {"task_id": "add", "statement": "Add.", "entry_point": "add", "tests": [{"input": [1, 2], "output": 3}]}
CHAIN = 'def one(a):\n    """One."""\n    return a\n\n\ndef add(a, b):\n    """Add."""\n    return one(a) + b\n'


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def bench(folder, *arguments, **environ):
    """On p.jsonl and s.jsonl, without a reward model; what the sandbox tells is kept in the folder."""
    command = [sys.executable, "-m", "dreamprm_cli", "bench", "--problems", "p.jsonl", "--samples", "s.jsonl"]
    return subprocess.run(
        [*command, "--prm", "none", *arguments], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**environment(folder), "DREAMPRM_CACHE": str(folder / "cache"), **environ},
    )  # fmt: skip


def test_bench_ranks_a_graded_pool_without_model_or_engine(tmp_path):
    rows = [{"task_id": "add", "solution": CHAIN, "passed": True, "mean_logprob": -0.1}]
    rows += [{"task_id": "add", "solution": f"x = {n}\n", "passed": False, "mean_logprob": -1.0} for n in range(3)]
    write_rows(tmp_path / "p.jsonl", [PROBLEM])
    write_rows(tmp_path / "s.jsonl", rows)
    done = bench(tmp_path, "--json", DOCKER_HOST="unix:///nowhere.sock")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schema_version"] == 1
    assert (result["problems"], result["candidates"], result["pass@1"]) == (1, 4, 0.25)
    assert result["oracle"] == {"1": 0.25, "2": 0.5, "4": 1.0}
    best = result["best_of_n"]
    assert set(best) == {"random", "parses-and-finished", "shortest", "logprob"}
    assert best["logprob"]["4"]["recovered_gap"] == 1
    assert best["shortest"]["4"]["ci95"] == [0, 0]
    assert result["auc"] == {"random": 0.5, "parses-and-finished": 0.5, "shortest": 0, "logprob": 1}
    assert "no container engine" in result["skipped"]["majority"]
    assert result["total_cost_usd"] is None
    shown = bench(tmp_path, "--out", "out", DOCKER_HOST="unix:///nowhere.sock")
    assert shown.returncode == 0, shown.stderr
    assert "logprob" in shown.stdout
    assert "out/curves.svg" in shown.stderr
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["best_of_n"] == best
    write_rows(tmp_path / "s.jsonl", rows[1:])
    alike = bench(tmp_path)
    assert alike.returncode == 42
    assert "no problem has both passing and failing programs" in alike.stderr
    assert "hint" in alike.stderr


def test_bench_judges_several_sets_as_one(tmp_path):
    write_rows(tmp_path / "p.jsonl", [PROBLEM])
    write_rows(tmp_path / "s.jsonl", [{"task_id": "add", "solution": CHAIN, "passed": True}])
    write_rows(tmp_path / "q.jsonl", [{**PROBLEM, "task_id": "more"}])
    write_rows(
        tmp_path / "t.jsonl",
        [{"task_id": "more", "solution": code, "passed": code == CHAIN} for code in (CHAIN, "x = 1\n")],
    )
    both = ("--problems", "q.jsonl", "--samples", "t.jsonl")
    done = bench(tmp_path, *both, "--json", DOCKER_HOST="unix:///nowhere.sock")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["problems"], result["candidates"], result["pass@1"]) == (2, 3, 0.75)
    assert set(result["files"]) == {"p.jsonl", "s.jsonl", "q.jsonl", "t.jsonl"}
    uneven = bench(tmp_path, "--samples", "t.jsonl")
    assert uneven.returncode == 2
    assert "1 --problems and 2 --samples do not pair up" in uneven.stderr
    twice = bench(tmp_path, "--problems", "p.jsonl", "--samples", "s.jsonl")
    assert twice.returncode == 42
    assert "problem add is in two of the sets" in twice.stderr


def test_bench_tells_how_far_programs_keep_to_the_form(tmp_path):
    write_rows(tmp_path / "s.jsonl", [{"task_id": "add", "solution": code} for code in (CHAIN, CHAIN, "x = (\n")])
    done = dreamprm(tmp_path, "bench", "--adherence", "--samples", "s.jsonl", "--json", "--out", "out")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["programs"] == 3
    assert report["verdicts"]["chain"] == pytest.approx(2 / 3)
    assert report["functions"] == {"0": 1, "2": 2}
    assert (tmp_path / "out" / "adherence.json").exists()
    assert "chain" in dreamprm(tmp_path, "bench", "--adherence", "--samples", "s.jsonl").stdout
    twice = dreamprm(tmp_path, "bench", "--adherence", "--samples", "s.jsonl", "--samples", "s.jsonl", "--json")
    assert json.loads(twice.stdout)["programs"] == 6


@pytest.mark.docker
def test_bench_grades_what_has_no_verdict(tmp_path):
    write_rows(tmp_path / "p.jsonl", [PROBLEM])
    write_rows(
        tmp_path / "s.jsonl", [{"task_id": "add", "solution": code} for code in (CHAIN, CHAIN + "# 2", "x = 1\n")]
    )
    done = dreamprm(tmp_path, "bench", "--problems", "p.jsonl", "--samples", "s.jsonl", "--prm", "none", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["pass@1"] == pytest.approx(2 / 3)
    assert result["best_of_n"]["majority"]["3"]["solved_rate"] == 1  # two agree, the third does not run


@pytest.mark.model
def test_bench_samples_from_a_policy_and_goes_on_with_what_is_there(tmp_path):
    write_rows(tmp_path / "p.jsonl", [PROBLEM])
    (tmp_path / "dreamprm.toml").write_text('max_tokens = 60\nprm = "none"\n')
    arguments = [
        "bench",
        "--problems",
        "p.jsonl",
        "--policy",
        SMALL,
        "-n",
        "2",
        "--out",
        "out",
        "--adherence",
        "--json",
    ]
    done = dreamprm(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert first["programs"] == 2
    assert first["usage"]["output_tokens"] > 0
    rows = (tmp_path / "out" / "samples.jsonl").read_text()
    again = dreamprm(tmp_path, *arguments)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["usage"]["output_tokens"] == 0
    assert (tmp_path / "out" / "samples.jsonl").read_text() == rows
