"""The doctor tells the truth about given machines, and never raises on this one."""

import io
import json
import socket
import stat
import threading
import time

import pytest

from dreamprm_cli import doctor

ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm sve\n"
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    9000000 kB\n"


def test_all_checks_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "cache"))
    rows = doctor.checks()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {"Python", "CPU", "GPU", "memory", "torch", "PRM", "Docker engine", "terminal", "remote policy"} <= set(
        names
    )
    assert all(row.fix for row in rows if row.state != "ok")
    assert not any(row.fix for row in rows if row.state == "ok")
    assert {"name", "state", "detail", "fix"} == set(json.loads(json.dumps(rows[0].to_json())))
    assert not (tmp_path / "cache").exists()  # looking changes nothing


def test_a_broken_settings_file_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dreamprm.toml").write_text("n = 0\n")
    row = next(row for row in doctor.checks() if row.name == "settings")
    assert row.state == "missing"
    assert "n must be at least 1" in row.detail


@pytest.mark.parametrize(
    ("cpuinfo", "state", "words"),
    [
        ("model name\t: Old\nflags\t\t: sse2\n", "warn", "Old"),
        ("model name\t: Mid\nflags\t\t: sse2 avx2\n", "ok", "avx2; no bf16"),
        ("model name\t: New\nflags\t\t: avx2 avx512_bf16 amx_tile amx_bf16\n", "ok", "avx2, avx512_bf16, amx"),
        (ARM, "ok", "bf16, i8mm, sve"),
        ("", "ok", "features unknown"),
    ],
)
def test_cpu(cpuinfo, state, words):
    row = doctor.cpu_check(cpuinfo)
    assert (row.state, words in row.detail) == (state, True), row


def test_memory():
    assert doctor.memory_check(MEMINFO, "max\n").detail == "9.2 of 16.4 GB available"
    tight = doctor.memory_check(MEMINFO, "2000000000\n")  # a container's limit counts, not the host's memory
    assert (tight.state, tight.detail.startswith("2.0 of 2.0 GB available")) == ("warn", True)
    assert doctor.memory_check("", "").detail == "unknown on this system"


def executable(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (doctor.gpu_check().state, doctor.gpu_check().fix) == ("missing", "optional")
    executable(tmp_path / "nvidia-smi", "echo 'NVIDIA X, 1000 MiB'")
    assert doctor.gpu_check().detail.startswith("NVIDIA X, 1000 MiB")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert doctor.gpu_check().fix == "unset CUDA_VISIBLE_DEVICES"
    executable(tmp_path / "nvidia-smi", "echo 'cannot talk to the driver'; exit 9")
    assert (doctor.gpu_check().state, doctor.gpu_check().detail) == ("warn", "cannot talk to the driver")


def test_extras():
    assert doctor.extra_check("pytest", "tests", "install it").state == "ok"
    absent = doctor.extra_check("no_such_package", "nothing", "install it")
    assert (absent.state, absent.fix) == ("missing", "install it")


def test_models_and_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path))
    rows = doctor.model_checks("gguf:/none.gguf")
    assert [(row.name, row.state) for row in rows] == [
        ("qwen2.5-coder-1.5b", "missing"),
        ("qwen2.5-coder-0.5b", "missing"),
        ("gguf:/none.gguf", "missing"),
    ]
    assert rows[1].fix == "dreamprm models pull qwen2.5-coder-0.5b"
    part = tmp_path / "models" / ".parts" / "qwen2.5-coder-0.5b" / "hub" / "x"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x")
    assert doctor.model_checks("")[1].detail == "0.0 of 0.5 GB fetched"
    assert str(tmp_path) in doctor.disk_check(tmp_path / "not" / "yet").detail


def test_prm(tmp_path):
    assert doctor.prm_check("none").state == "warn"
    assert doctor.prm_check(str(tmp_path)).state == "missing"
    (tmp_path / "head.safetensors").write_bytes(b"")
    assert doctor.prm_check(str(tmp_path)).detail == str(tmp_path)
    assert {doctor.prm_check(name).state for name in ("default", "small")} == {"ok"}


class Engine:
    """Answers each connection on a unix socket with `reply`; None: never answers."""

    def __init__(self, path, reply):
        self.address = f"unix://{path}"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._reply = reply
        self._open = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self._socket.accept()
            self._open.append(connection)
            if self._reply is not None:
                connection.recv(4096)
                connection.sendall(self._reply)
                connection.close()


@pytest.mark.parametrize(
    ("reply", "state", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", "ok", ""),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "missing", "answers HTTP 503"),
        (b"SSH-2.0\r\n", "missing", "SSH-2.0"),
        (None, "missing", "timed out"),
    ],
)
def test_engine_that_answers(tmp_path, reply, state, detail):
    engine = Engine(tmp_path / "d.sock", reply)
    started = time.monotonic()
    row = doctor.engine_check({"DOCKER_HOST": engine.address})
    assert time.monotonic() - started < 5
    assert (row.state, detail in row.detail) == (state, True), row


def test_engine_that_is_not_there(tmp_path):
    row = doctor.engine_check({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert (row.state, row.detail) == ("missing", f"unix://{tmp_path}/none.sock: No such file or directory")
    assert doctor.engine_check({"DOCKER_HOST": "tcp://127.0.0.1:9"}).state == "missing"
    assert doctor.engine_check({"DOCKER_HOST": "ssh://me:secret@host"}).detail.startswith("ssh://host: not checked")


def test_remote_policy_shows_no_secrets():
    assert doctor.remote_check("qwen2.5-coder-1.5b", None, {}).fix.endswith("(optional)")
    assert not doctor.remote_check("openai:o4-mini", None, {}).fix.endswith("(optional)")
    row = doctor.remote_check("openai:x", "https://me:pw@host/v1", {"OPENAI_API_KEY": "sk-secret"})
    assert (row.state, row.detail) == ("ok", "https://host/v1, with a key")


def test_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert doctor.terminal_check(stream).detail == "100 columns, utf-8, not a terminal, so plain lines"
    assert doctor.terminal_check(io.TextIOWrapper(io.BytesIO(), encoding="ascii")).state == "warn"
    monkeypatch.setenv("COLUMNS", "40")
    assert doctor.terminal_check(stream).state == "warn"
