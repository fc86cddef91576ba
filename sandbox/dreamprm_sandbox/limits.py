"""What a candidate may use. Frozen values; units in the names."""

from __future__ import annotations

from dataclasses import dataclass

from dreamprm_cli.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """`time_limit_s` is processor time per test, of all processes of the candidate together; wall time is a generous
    backstop on top of it. `memory_mb` is the budget of the whole candidate. A problem's own limits come first."""

    time_limit_s: float = 4.0
    total_time_limit_s: float = 60.0
    memory_mb: int = 512
    pids: int = 64
    output_bytes: int = 8 << 20
    error_bytes: int = 1 << 20
    tmpfs_mb: int = 64
    tmpfs_files: int = 4096

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"the sandbox limit {name} must be above zero, not {getattr(self, name)}")

    @property
    def wall_limit_s(self) -> float:
        """Backstop on the wall clock for one test."""
        return 2.0 * self.time_limit_s + 2.0
