"""Proof, at the start of a container, that what was asked of the engine is in force.

`gather` runs in the container as a candidate would and reports facts; `shortcomings` runs on the host and judges
them. Nothing is believed because it was configured. Standard library only.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Mapping
from typing import Any

from dreamprm_sandbox import cgroup

_STATUS = ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp")
# What PID 1 needs to hand its pipes to a candidate, become it, and end it: CHOWN, KILL, SETGID, SETUID.
_PID1_CAPABILITIES = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7
WRITABLE = ("/tmp", "/dev/shm")


def gather() -> dict[str, Any]:
    """Facts about the calling process and the container, as plain values."""
    import socket  # not on the top: what PID 1 imports, every candidate carries

    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    with open("/proc/swaps") as file:
        swap = len(file.readlines()) > 1
    return {
        "status": {key: status.get(key, "").strip() for key in _STATUS},
        "cgroup": cgroup.limits(),
        "swap": swap,
        "root_write": _errno_of(lambda: _touch("/proof")),
        "usr_write": _errno_of(lambda: _touch("/usr/proof")),
        "connect": _errno_of(lambda: _connect(socket.socket())),
        "netlink_socket": _errno_of(lambda: socket.socket(16, socket.SOCK_RAW).close()),
        "packet_socket": _errno_of(lambda: socket.socket(17, socket.SOCK_RAW).close()),
        "become_root": _errno_of(lambda: os.setuid(0)),
        "read_pid1": _errno_of(lambda: os.close(os.open("/proc/1/mem", os.O_RDONLY))),
        "signal_pid1": _errno_of(lambda: os.kill(1, 0)),
        "message_queue": _errno_of(lambda: _touch("/dev/mqueue/proof")),
        "writable": [_errno_of(lambda path=path: _touch(f"{path}/proof")) for path in WRITABLE],
        "interfaces": sorted(name for _, name in _interfaces()),
        "tmpfs": {path: _space(path) for path in WRITABLE},
        "rlimits": {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in ("NOFILE", "CORE", "FSIZE")
        },
    }


def _interfaces() -> list[tuple[int, str]]:
    with open("/proc/net/dev") as file:
        return [(index, line.split(":")[0].strip()) for index, line in enumerate(file.readlines()[2:])]


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _space(path: str) -> list[int]:
    found = os.statvfs(path)
    return [found.f_blocks * found.f_frsize, found.f_files]


def _connect(probe: Any) -> None:
    with probe:
        probe.settimeout(0.5)
        probe.connect(("192.0.2.1", 80))  # an address reserved for documentation


def _errno_of(action: Any) -> str:
    """The name of the error the action meets, `none` when it succeeds."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "none"


def shortcomings(report: Mapping[str, Any], wanted: Mapping[str, int]) -> list[str]:
    """What is not in force, one phrase each. `report` is `{"candidate": gather(), "pid1_capabilities": hex,
    "meter": bool}`; `wanted` has `memory`, `pids`, `cpu_us_per_s`, `tmpfs_bytes`, `tmpfs_inodes`, `nofile`, `fsize`.
    """
    facts = report["candidate"]
    status, group = facts["status"], facts["cgroup"]
    found: list[str] = []

    def need(condition: bool, phrase: str) -> None:
        if not condition:
            found.append(phrase)

    for key, unit in (("memory", "bytes"), ("pids", "processes"), ("cpu_us_per_s", "microseconds a second")):
        value = group[key]
        need(value is not None and value <= wanted[key], f"{key} limit is {value}, not {wanted[key]} {unit}")
    swap = group["memory_swap"]
    need(not facts["swap"] or (swap is not None and swap <= wanted["memory"]), "swap is not limited")
    need(report["meter"], "the counters of processor time, processes or out-of-memory kills cannot be read")
    need(all(int(uid) != 0 for uid in status["Uid"].split()), "candidates run as root")
    need(all(int(gid) != 0 for gid in status["Gid"].split()) and not status["Groups"], "candidates are of root's group")
    for key in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        need(int(status[key] or "1", 16) == 0, f"candidates have capabilities ({key} {status[key]})")
    need(
        int(report["pid1_capabilities"], 16) & ~_PID1_CAPABILITIES == 0,
        "PID 1 has more capabilities than asked",
    )
    need(status["NoNewPrivs"] == "1", "no-new-privileges is off")
    need(status["Seccomp"] == "2", "no system call filter")
    # What no engine's filter refuses: it is the one of `harden` that is looked for.
    need(facts["netlink_socket"] in ("EPERM", "EAFNOSUPPORT"), "the sandbox's own system call filter is not on")
    for key, path in (("root_write", "/"), ("usr_write", "/usr")):
        need(facts[key] == "EROFS", f"{path} is not read-only ({facts[key]})")
    need(facts["connect"] in ("ENETUNREACH", "EPERM", "EACCES"), f"a connection was attempted ({facts['connect']})")
    need(facts["message_queue"] != "none", "message queues outlive a candidate")
    need(set(facts["writable"]) == {"none"}, f"{' or '.join(WRITABLE)} cannot be written ({facts['writable']})")
    need(set(facts["interfaces"]) <= {"lo"}, f"network interfaces: {', '.join(facts['interfaces'])}")
    for key, what in (
        ("packet_socket", "raw sockets open"),
        ("become_root", "candidates can become root"),
        ("read_pid1", "candidates can read PID 1"),
        ("signal_pid1", "candidates can signal PID 1"),
    ):
        need(facts[key] in ("EPERM", "EACCES", "EAFNOSUPPORT"), f"{what} ({facts[key]})")
    for path, (size, inodes) in facts["tmpfs"].items():
        need(0 < size <= wanted["tmpfs_bytes"], f"{path} holds {size} bytes")
        need(0 < inodes <= wanted["tmpfs_inodes"], f"{path} holds {inodes} files")
    for key, limit in (("NOFILE", wanted["nofile"]), ("CORE", 0), ("FSIZE", wanted["fsize"])):
        need(0 <= facts["rlimits"][key] <= limit, f"{key.lower()} limit is {facts['rlimits'][key]}, not {limit}")
    return found
