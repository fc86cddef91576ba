"""One warm sandbox for all tests that need the real engine."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamprm_sandbox import Limits, Sandbox

sys.path.insert(0, str(Path(__file__).parent))  # attack_table


@pytest.fixture(scope="session")
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=Limits(time_limit_s=1.0, memory_mb=256)) as sandbox:
        yield sandbox
