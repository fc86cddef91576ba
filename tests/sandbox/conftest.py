"""One warm sandbox for all tests that need the real engine."""

from collections.abc import Iterator

import pytest

from dreamprm_sandbox import Limits, Sandbox


@pytest.fixture(scope="session")
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=Limits(time_limit_s=1.0, memory_mb=256)) as sandbox:
        yield sandbox
