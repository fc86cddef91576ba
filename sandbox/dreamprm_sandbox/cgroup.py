"""The control group of this container, version 1 or 2. Standard library only; runs in the container."""

from __future__ import annotations

import os

_ROOT = "/sys/fs/cgroup"


def _first(*paths: str) -> int:
    for path in paths:
        try:
            return os.open(f"{_ROOT}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return -1


class Meter:
    """What the whole group has used so far. Files stay open: reading one takes microseconds."""

    def __init__(self) -> None:
        self._cpu = _first("cpuacct/cpuacct.usage", "cpu,cpuacct/cpuacct.usage", "cpu.stat")
        self._oom = _first("memory/memory.oom_control", "memory.events")
        self._tasks = _first("pids/pids.current", "pids.current")

    @property
    def complete(self) -> bool:
        return min(self._cpu, self._oom, self._tasks) >= 0

    def cpu_us(self) -> int:
        """Processor time of all processes of the group, microseconds."""
        text = os.pread(self._cpu, 64, 0)
        if text.startswith(b"usage_usec"):
            return int(text.split(None, 2)[1])
        return int(text) // 1000

    def tasks(self) -> int:
        """Processes and threads of the group, those that ended but were not waited for among them."""
        return int(os.pread(self._tasks, 32, 0))

    def oom_kills(self) -> int:
        """Processes the kernel killed because the group's memory was used up."""
        for line in os.pread(self._oom, 512, 0).splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
        return 0


def limits() -> dict[str, int | None]:
    """What is in force: `memory`, `memory_swap` (both bytes), `pids`, `cpu_us_per_s`; None where there is no limit.

    `memory_swap` counts memory and swap together, as version 1 does.
    """
    if os.path.exists(f"{_ROOT}/cgroup.controllers"):
        memory = _number("memory.max")
        swap = _number("memory.swap.max")
        quota, _, period = _text("cpu.max").partition(" ")
        return {
            "memory": memory,
            "memory_swap": None if memory is None or swap is None else memory + swap,
            "pids": _number("pids.max"),
            "cpu_us_per_s": None if not quota.isdigit() else int(quota) * 1_000_000 // int(period),
        }
    cpu = "cpu" if os.path.isdir(f"{_ROOT}/cpu") else "cpu,cpuacct"
    quota_us, period_us = _number(f"{cpu}/cpu.cfs_quota_us"), _number(f"{cpu}/cpu.cfs_period_us")
    return {
        "memory": _number("memory/memory.limit_in_bytes"),
        "memory_swap": _number("memory/memory.memsw.limit_in_bytes"),
        "pids": _number("pids/pids.max"),
        "cpu_us_per_s": quota_us * 1_000_000 // period_us if quota_us and period_us else None,
    }


def _text(path: str) -> str:
    try:
        with open(f"{_ROOT}/{path}") as file:
            return file.read().strip()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    """None where the file is missing, says `max`, or holds version 1's \"no limit\" (a huge or negative number)."""
    text = _text(path)
    value = int(text) if text.lstrip("-").isdigit() else -1
    return value if 0 <= value < 1 << 62 else None
