"""A real Ray cluster of several node processes, one of them killed midway: what comes out is what this machine alone
finds, and what is kept is gone on with by either engine."""

import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from scripted_labels import PROBLEM, policy

from dreamprm_cli.errors import DreamPRMError
from dreamprm_cli.policy import Sampling
from dreamprm_cli.types import Problem, Tests
from dreamprm_trainer.continuation import Streamed
from dreamprm_trainer.journal import write_rows
from dreamprm_trainer.judge import Judge
from dreamprm_trainer.label import grade_programs, roll_out_programs, sample_programs, step_data
from dreamprm_trainer.rollouts import Plan

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'dreamprm[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

from dreamprm_trainer.cluster import connected  # noqa: E402
from dreamprm_trainer.crews import PolicyCrew, SandboxCrew  # noqa: E402

PROBLEMS = [Problem(f"P/{n}", f"Add {n}.", PROBLEM.starter_code, "f", PROBLEM.tests) for n in range(6)]


@pytest.fixture
def cluster(monkeypatch):
    """A head without work of its own, and two nodes with a processor and an engine each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1, resources={"docker": 1}, include_dashboard=False) for _ in range(2)]
    yield made
    made.shutdown()


def _kill_when(cluster, ready):
    """Kill a node, not gently, once `ready`; the thread that does."""

    def work():
        deadline = time.monotonic() + 60
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.02)
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _alive(connection, count):
    """Whether so many nodes are left, once the head has noticed."""
    deadline = time.monotonic() + 60
    while (found := sum(node["Alive"] for node in connection.nodes())) != count and time.monotonic() < deadline:
        time.sleep(0.1)
    return found == count


def _labels(folder, continuer, box, width):
    known = {problem.id: problem for problem in PROBLEMS}
    programs = sample_programs(PROBLEMS, continuer, 2, Sampling(), folder, lambda progress: None)
    with Judge(known, folder / "verdicts.jsonl", box.run, width) as judge:
        graded = grade_programs(programs, judge, lambda progress: None)
        rows = roll_out_programs(graded, known, continuer, judge, Plan(), Sampling(), folder, lambda progress: None)
    write_rows([step_data(row, known[row["task_id"]]) for row in rows], folder / "labels.jsonl")
    return (folder / "labels.jsonl").read_bytes()


def scripted(pause_s=0.0):
    return Streamed(policy(pause_s), "scripted")


@pytest.mark.docker
def test_labels_are_the_same_when_a_node_is_lost_midway(cluster, tmp_path):
    from dreamprm_sandbox import Sandbox

    with Sandbox(1) as box:
        alone = _labels(tmp_path / "alone", scripted(), box, 1)
    folder = tmp_path / "cluster"
    rollouts = folder / "rollouts.jsonl"
    with connected(cluster.address) as connection, SandboxCrew(connection) as box:
        opening = partial(scripted, 0.02)
        writer = PolicyCrew(connection, "scripted", [opening], 2, num_cpus=1)
        killer = _kill_when(cluster, lambda: rollouts.exists() and rollouts.read_bytes().count(b"\n") >= 8)
        together = _labels(folder, writer, box, box.width)
        writer.close()
        killer.join()
        assert _alive(connection, 2)  # it did go
    assert together == alone
    drawn = [json.loads(line) for line in rollouts.read_text().splitlines()]
    assert len({(row["prefix"], row["index"]) for row in drawn}) == len(drawn)
    # What the cluster left half-way is gone on with here.
    rollouts.write_bytes(b"".join(rollouts.read_bytes().splitlines(keepends=True)[:9]))
    with Sandbox(1) as box:
        assert _labels(folder, scripted(), box, 1) == alone


@pytest.mark.docker
def test_the_command_grades_on_the_nodes_and_tells_the_same_when_one_is_lost(cluster, tmp_path):
    tests = [{"stdin": f"{n}\n", "stdout": f"{2 * n}\n"} for n in (1, 5)]
    program = "total = sum(range(4_000_000))\nprint({} * int(input()))\n"
    (tmp_path / "p.jsonl").write_text(json.dumps({"task_id": "double", "tests": tests}) + "\n")
    rows = [{"task_id": "double", "solution": program.format(2 + n % 2) + f"# {n}\n"} for n in range(24)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "verdicts.jsonl"
    command = [sys.executable, "-m", "dreamprm_cli", "grade", "p.jsonl", "s.jsonl", "--jsonl"]
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    killer = _kill_when(cluster, lambda: out.exists() and out.read_bytes().count(b"\n") >= 4)
    command += ["--engine", "ray", "--address", cluster.address, "--out", "verdicts.jsonl"]
    together = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    killer.join()
    assert together.returncode == 0, together.stderr

    def told(text):
        return [{**json.loads(line), "seconds": None} for line in text.splitlines()]

    assert told(together.stdout) == told(alone.stdout)
    assert [row["status"] for row in told(together.stdout)] == ["PASS", "WA"] * 12


def test_no_cluster_is_one_line(tmp_path):
    tests = Tests("plain", payload={"tests": [{"stdin": "", "stdout": ""}]})
    (tmp_path / "p.jsonl").write_text(json.dumps({"task_id": "t", "tests": tests.payload["tests"]}) + "\n")
    (tmp_path / "s.jsonl").write_text(json.dumps({"task_id": "t", "solution": "x = 1"}) + "\n")
    command = [sys.executable, "-m", "dreamprm_cli", "grade", "p.jsonl", "s.jsonl", "--engine", "ray"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == DreamPRMError.exit_code
    assert "no Ray cluster at auto" in done.stderr
    assert "Traceback" not in done.stderr
