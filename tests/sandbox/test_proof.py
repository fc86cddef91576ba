"""What the facts from inside a container must be, and which of them gives a container away."""

import copy
from typing import Any

import pytest

from dreamprm_sandbox import cgroup, harden, proof

WANTED = {
    "memory": 700 << 20, "pids": 64, "cpu_us_per_s": 1_000_000, "tmpfs_bytes": 64 << 20, "tmpfs_inodes": 4096,
    "nofile": 256, "fsize": 64 << 20,
}  # fmt: skip
ZERO = "0000000000000000"
GOOD: dict[str, Any] = {
    "candidate": {
        "status": {
            "Uid": "61234\t61234\t61234\t61234", "Gid": "61234\t61234\t61234\t61234", "Groups": "", "CapPrm": ZERO,
            "CapEff": ZERO, "CapInh": ZERO, "CapAmb": ZERO, "NoNewPrivs": "1", "Seccomp": "2",
        },
        "cgroup": {"memory": 700 << 20, "memory_swap": 700 << 20, "pids": 64, "cpu_us_per_s": 1_000_000},
        "swap": True,
        "root_write": "EROFS", "usr_write": "EROFS", "connect": "ENETUNREACH", "packet_socket": "EPERM",
        "netlink_socket": "EPERM", "become_root": "EPERM", "read_pid1": "EACCES", "signal_pid1": "EPERM",
        "message_queue": "ENOENT", "writable": ["none", "none"], "interfaces": ["lo"],
        "tmpfs": {"/tmp": [64 << 20, 4096], "/dev/shm": [64 << 20, 4096]},
        "rlimits": {"NOFILE": 256, "CORE": 0, "FSIZE": 64 << 20},
    },
    "pid1_capabilities": "00000000000000e1",
    "meter": True,
}  # fmt: skip


def test_all_in_force():
    assert proof.shortcomings(GOOD, WANTED) == []


def test_no_swap_on_the_machine_needs_no_limit_on_it():
    report = copy.deepcopy(GOOD)
    report["candidate"]["cgroup"]["memory_swap"] = None
    assert proof.shortcomings(report, WANTED) == ["swap is not limited"]
    report["candidate"]["swap"] = False
    assert proof.shortcomings(report, WANTED) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("candidate.cgroup.memory", None, "memory limit is None"),
        ("candidate.cgroup.memory", 8 << 30, "memory limit"),
        ("candidate.cgroup.pids", None, "pids limit is None"),
        ("candidate.cgroup.cpu_us_per_s", 2_000_000, "cpu_us_per_s limit"),
        ("candidate.status.Uid", "0\t0\t0\t0", "run as root"),
        ("candidate.status.Uid", "61234\t61234\t0\t61234", "run as root"),
        ("candidate.status.Gid", "0\t0\t0\t0", "root's group"),
        ("candidate.status.Groups", "0", "root's group"),
        ("candidate.status.CapEff", "0000000000000001", "have capabilities"),
        ("candidate.status.CapPrm", "", "have capabilities"),
        ("candidate.status.NoNewPrivs", "0", "no-new-privileges is off"),
        ("candidate.status.Seccomp", "0", "no system call filter"),
        ("candidate.netlink_socket", "none", "own system call filter"),
        ("candidate.root_write", "none", "/ is not read-only"),
        ("candidate.usr_write", "EACCES", "/usr is not read-only"),
        ("candidate.connect", "none", "a connection was attempted"),
        ("candidate.connect", "TimeoutError", "a connection was attempted"),
        ("candidate.packet_socket", "none", "raw sockets"),
        ("candidate.become_root", "none", "become root"),
        ("candidate.read_pid1", "none", "read PID 1"),
        ("candidate.signal_pid1", "none", "signal PID 1"),
        ("candidate.message_queue", "none", "message queues"),
        ("candidate.writable", ["none", "EROFS"], "cannot be written"),
        ("candidate.interfaces", ["eth0", "lo"], "interfaces: eth0, lo"),
        ("candidate.tmpfs", {"/tmp": [1 << 40, 4096]}, "/tmp holds"),
        ("candidate.tmpfs", {"/tmp": [64 << 20, 0]}, "/tmp holds 0 files"),
        ("candidate.rlimits", {"NOFILE": -1, "CORE": 0, "FSIZE": 0}, "nofile limit is -1"),
        ("candidate.rlimits", {"NOFILE": 1, "CORE": -1, "FSIZE": 0}, "core limit is -1"),
        ("pid1_capabilities", "00000000002000e1", "PID 1 has more capabilities"),
        ("meter", False, "cannot be read"),
    ],
)
def test_one_that_is_not_in_force_is_named(path, value, said):
    report = copy.deepcopy(GOOD)
    *folders, name = path.split(".")
    place = report
    for folder in folders:
        place = place[folder]
    place[name] = value
    (found,) = [phrase for phrase in proof.shortcomings(report, WANTED) if said in phrase]
    assert found


def write(root, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


V1 = {
    "memory/memory.limit_in_bytes": "1000\n", "memory/memory.memsw.limit_in_bytes": "2000\n", "pids/pids.max": "64\n",
    "cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n", "cpuacct/cpuacct.usage": "3000000\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "pids/pids.current": "4\n",
}  # fmt: skip
V2 = {
    "cgroup.controllers": "cpu memory pids", "memory.max": "1000", "memory.swap.max": "1000", "pids.max": "64",
    "cpu.max": "50000 100000", "cpu.stat": "usage_usec 3000\nuser_usec 1\n",
    "memory.events": "low 0\noom 3\noom_kill 2\n", "pids.current": "4\n",
}  # fmt: skip
NO_LIMITS_V1 = {
    "memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.memsw.limit_in_bytes": "9223372036854771712",
    "pids/pids.max": "max", "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
}  # fmt: skip
NO_LIMITS_V2 = {
    "cgroup.controllers": "", "memory.max": "max", "memory.swap.max": "max", "pids.max": "max", "cpu.max": "max 100000",
}  # fmt: skip


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_both_versions_of_control_groups_are_read(tmp_path, monkeypatch, files):
    write(tmp_path, files)
    monkeypatch.setattr(cgroup, "_ROOT", str(tmp_path))
    assert cgroup.limits() == {"memory": 1000, "memory_swap": 2000, "pids": 64, "cpu_us_per_s": 500_000}
    meter = cgroup.Meter()
    assert meter.complete
    assert (meter.cpu_us(), meter.oom_kills(), meter.tasks()) == (3000, 2, 4)


@pytest.mark.parametrize("files", [NO_LIMITS_V1, NO_LIMITS_V2, {}], ids=["v1", "v2", "nothing there"])
def test_no_limit_is_none(tmp_path, monkeypatch, files):
    write(tmp_path, files)
    monkeypatch.setattr(cgroup, "_ROOT", str(tmp_path))
    assert set(cgroup.limits().values()) == {None}
    assert not cgroup.Meter().complete


def test_the_call_filter_knows_its_processors():
    for machine in ("x86_64", "aarch64"):
        assert len(harden.filter_program(machine)) % 8 == 0
    with pytest.raises(OSError, match="riscv64"):
        harden.filter_program("riscv64")
