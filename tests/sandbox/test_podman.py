"""Podman's Docker-compatible socket, where podman is installed and this is root: an engine of the tests' own."""

import contextlib
import os
import shutil
import subprocess
import time

import pytest
from docker.errors import APIError
from test_cases import FUNCTION, HONEST, PROGRAM, accepts, of

from dreamprm_cli.errors import SandboxUnavailable
from dreamprm_sandbox import Limits, Sandbox, docker, image, scratch

# What an engine and its filters have to prevent, not the sandbox's own code.
CATEGORIES = ("privilege", "write", "network", "isolation", "fd", "disk", "memory")
CASES = [case for case in of("fn", "stdin") if case["category"] in CATEGORIES]


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """The address of a service with the sandbox image in it."""
    if shutil.which("podman") is None or os.getuid() != 0:
        pytest.skip("podman is not installed, or this is not root")
    folder = tmp_path_factory.mktemp("podman")
    address = f"unix://{folder}/podman.sock"
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []  # crun refuses mixed versions of control groups
    places = ["--root", f"{folder}/root", "--runroot", f"{folder}/run"]
    options = [*runtime, *places, "--cgroup-manager=cgroupfs", "--events-backend=file"]
    saved = docker.connect()
    service = subprocess.Popen(["podman", *options, "system", "service", "--time=0", address])
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", address)
            client = connected()
            client.images.load(b"".join(saved.images.get(image.ensure(saved)).save(chunk_size=1 << 20)))
            yield client
    finally:
        service.terminate()
        service.wait(30)
        subprocess.run(["umount", "-R", f"{folder}/root/overlay"], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(folder, ignore_errors=True)
        saved.close()


def connected():
    for _ in range(100):
        try:
            return docker.connect()
        except SandboxUnavailable:
            time.sleep(0.2)
    return docker.connect()


@pytest.mark.docker
def test_attacks_that_an_engine_has_to_stop(podman):
    wrong = []
    with Sandbox(workers=1, limits=Limits(time_limit_s=1.0, memory_mb=256)) as sandbox:
        assert sandbox.isolation.startswith("podman ")
        for case in CASES:
            problem = FUNCTION if case["mode"] == "fn" else PROGRAM
            verdict = sandbox.run(problem, case["code"])
            if not accepts(case, verdict.status):
                wrong.append((case["id"], verdict))
            assert sandbox.run(problem, HONEST[case["mode"]]).status == "PASS"
    assert not wrong
    assert left(podman) == ([], [])


def left(client):
    return docker.containers(client), scratch.left(client, docker.LABEL)


@pytest.mark.docker
def test_what_the_dead_leave_is_removed_at_the_next_start(podman, monkeypatch):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    engine = docker.Engine(Limits())
    labels = docker._owner() | {docker.OWNER: str(dead.pid), f"{docker.OWNER}_start": "1"}
    monkeypatch.setattr(docker, "_owner", lambda: labels)
    for _ in "12":
        orphan = engine._create()
    podman.api.remove_container(orphan)  # its volumes stay
    monkeypatch.undo()
    assert [len(found) for found in left(podman)] == [1, 4]
    engine.close()
    docker.Engine(Limits()).close()
    assert left(podman) == ([], [])


@pytest.mark.docker
def test_a_container_that_is_killed_costs_a_retry(podman):
    with Sandbox(workers=1) as sandbox:
        (container,) = sandbox._engine._containers.values()
        with contextlib.suppress(APIError):  # gone before podman could tell how the kill went
            podman.api.kill(container)
        assert container not in {found.name for found in podman.containers.list()}
        assert sandbox.run(FUNCTION, HONEST["fn"]).status == "PASS"
    assert left(podman) == ([], [])
