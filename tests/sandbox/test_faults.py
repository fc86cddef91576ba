"""When the machine fails: a retry and the same verdict, or a clear error; never a label, never a run on the host."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import faults, soak
from dreamprm_cli.errors import SandboxUnavailable
from dreamprm_sandbox import Limits, Sandbox, docker
from dreamprm_sandbox.slot import Fault

SLOW = "import time\ndef add(a, b):\n    time.sleep(0.5)\n    return a + b"


def containers_of(pid: int) -> list[str]:
    client = docker.connect()
    found = [docker.name_of(found) for found in docker.containers(client) if found["Labels"][docker.OWNER] == str(pid)]
    client.close()
    return found


@pytest.fixture
def alone():
    """A sandbox whose containers may be killed."""
    with Sandbox(workers=1, limits=Limits(time_limit_s=4)) as sandbox:
        yield sandbox


@pytest.mark.docker
@pytest.mark.parametrize("code", [SLOW, SLOW.replace("a + b", "a - b")], ids=["right", "wrong"])
def test_a_container_killed_in_the_middle_of_a_run_changes_no_verdict(alone, code):
    due = alone.run(faults.FUNCTION, code).status
    answers = []
    thread = threading.Thread(target=lambda: answers.append(alone.run(faults.FUNCTION, code)))
    thread.start()
    time.sleep(0.2)
    (container,) = alone._engine._containers.values()
    alone._engine.client.api.kill(container)
    thread.join(60)
    assert [verdict.status for verdict in answers] == [due]
    assert container not in alone._engine._containers.values()


@pytest.mark.docker
def test_containers_that_died_together_cost_one_retry(alone):
    for slot in [alone._take(fresh=True) for _ in range(5)]:
        alone._give(slot, worn=False)
    for container in list(alone._engine._containers.values()):
        alone._engine.client.api.kill(container)
    begin = time.monotonic()
    assert alone.run(faults.FUNCTION, faults.TABLE[0][1]).status == "PASS"
    assert time.monotonic() - begin < 20


@pytest.mark.docker
def test_no_verdict_is_lost_or_wrong_while_things_are_killed():
    try:
        found = faults.measure(gradings=25, seed=3)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert found["ok"], found
    assert sum(found["killed"].values()) > 0


HOST = """
import sys, threading
sys.path[:0] = {path!r}
from benchmarks import faults
from dreamprm_sandbox import Sandbox
code = "def add(a, b):\\n    while True: pass"
box = Sandbox(workers=1).__enter__()
threading.Timer(0.3, lambda: print("running", flush=True)).start()
box.run(faults.FUNCTION, code)
"""


@pytest.mark.docker
def test_killing_the_host_process_leaves_nothing_running():
    host = subprocess.Popen([sys.executable, "-c", HOST.format(path=sys.path)], stdout=subprocess.PIPE)
    assert host.stdout is not None
    assert host.stdout.readline() == b"running\n"
    (container,) = containers_of(host.pid)
    pids = group_of(container)
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    wait_until(lambda: not any(map(running, pids)), 10)  # the program it left did not stop by itself
    with Sandbox(workers=1):  # what the engine has not removed yet is reaped
        wait_until(lambda: not containers_of(host.pid), 10)


def group_of(container: str) -> list[int]:
    client = docker.connect()
    rows = client.api.top(container, "-o pid")["Processes"]
    client.close()
    return [int(row[0]) for row in rows]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.docker
def test_containers_of_the_dead_are_reaped_and_those_of_the_living_are_not(alone, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead:
        dead.wait()
    labels = docker._owner() | {docker.OWNER: str(dead.pid), f"{docker.OWNER}_start": "1"}
    monkeypatch.setattr(docker, "_owner", lambda: labels)
    orphan = alone._engine._create()
    monkeypatch.undo()
    alone._engine.client.api.start(orphan)
    assert orphan in containers_of(dead.pid)
    assert docker.reap(alone._engine.client) >= 1
    wait_until(lambda: not containers_of(dead.pid), 10)
    assert alone.run(faults.FUNCTION, faults.TABLE[0][1]).status == "PASS"
    assert containers_of(os.getpid())


def test_without_an_engine_nothing_runs(tmp_path):
    marker = tmp_path / "ran"
    problems, samples = tmp_path / "problems.jsonl", tmp_path / "samples.jsonl"
    problems.write_text(json.dumps({"task_id": "t", "entry_point": "f", "tests": [{"input": [1], "output": 1}]}))
    samples.write_text(json.dumps({"task_id": "t", "solution": f"open({str(marker)!r}, 'w')\ndef f(x): return x"}))
    done = subprocess.run(
        [sys.executable, "-m", "dreamprm_cli", "grade", str(problems), str(samples), "--json"],
        env=os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no container engine answers" in done.stderr
    assert "sandbox/engine.sh" in done.stderr
    assert "Traceback" not in done.stderr
    assert not marker.exists()


@pytest.mark.docker
def test_an_engine_that_goes_away_is_an_error_and_no_verdict(alone, monkeypatch):
    def gone():
        raise Fault("the engine is gone")

    monkeypatch.setattr("dreamprm_sandbox.pool._PATIENCE_S", 0.0)
    monkeypatch.setattr(alone._engine, "start", gone)
    for container in list(alone._engine._containers.values()):
        alone._engine.client.api.kill(container)
    with pytest.raises(SandboxUnavailable, match="failed 4 times in a row on add: the engine is gone"):
        alone.run(faults.FUNCTION, faults.TABLE[0][1])


@pytest.mark.docker
@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("mem_limit", None, "memory limit is None"),
        ("pids_limit", None, "pids limit is None"),
        ("cpu_quota", None, "cpu_us_per_s limit is None"),
        ("cap_add", ["CHOWN", "KILL", "SETGID", "SETUID", "SYS_ADMIN"], "more capabilities"),
        ("security_opt", ["no-new-privileges", "seccomp=unconfined"], None),  # our own filter is still in force
        ("security_opt", [], "no-new-privileges is off"),
        ("read_only", False, "/ is not read-only"),
        ("tmpfs", {"/tmp": "size=1g", "/dev/shm": "size=1g"}, "/tmp holds"),
        ("network_mode", "host", "network interfaces"),
        ("ulimits", None, "nofile limit is"),
    ],
)
def test_a_limit_that_is_not_in_force_is_found_out(monkeypatch, setting, value, said):
    """A real container that is started without one of the limits."""
    engine = docker.Engine(Limits())
    create = engine.client.api.create_host_config

    def without(**settings):
        changed = {setting: value} | ({"memswap_limit": None} if setting == "mem_limit" else {})
        return create(**settings | changed)

    monkeypatch.setattr(engine.client.api, "create_host_config", without)
    if setting == "network_mode":
        whole = engine.client.api.create_container
        monkeypatch.setattr(
            engine.client.api, "create_container", lambda *a, **k: whole(*a, **k | {"network_disabled": False})
        )
    try:
        if said is None:
            engine.start()
        else:
            with pytest.raises((SandboxUnavailable, Fault), match=said):
                engine.start()
            assert not engine._containers
    finally:
        engine.close()


@pytest.mark.docker
def test_an_unknown_runtime_is_a_clear_error():
    with pytest.raises(SandboxUnavailable, match="no-such-runtime") as error, Sandbox(runtime="no-such-runtime"):
        pass
    assert "dreamprm sandbox status" in error.value.hint


@pytest.mark.docker
def test_honest_programs_pass_on_a_loaded_machine():
    found = soak.load(100)
    assert found["ok"], found


@pytest.mark.docker
def test_pools_that_start_together_all_start():
    found = soak.starts(6)
    assert found["ok"], found


@pytest.mark.docker
def test_memory_stays_flat():
    found = soak.memory(300, warm_up=200)
    assert found["ok"], found
