"""What holds for all tests: the user's own settings do not reach them, and no machine is too slow for them."""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from dreamprm_cli.config import KEYS

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell's background jobs ignore Ctrl-C, and hand that down to the processes whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _no_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, _no_config: Path) -> None:
    for key in KEYS:
        monkeypatch.delenv(f"DREAMPRM_{key.upper()}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(_no_config))
