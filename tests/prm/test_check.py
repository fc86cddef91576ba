"""`dreamprm prm check` as a user meets it."""

import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.app import run  # noqa: E402
from dreamprm_cli.prm.checkpoint import Checkpoint, save  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Run `dreamprm prm check` with these arguments: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dreamprm", "prm", "check", *arguments])
        with pytest.raises(SystemExit) as end:
            run()
        return end.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def checkpoint(tiny, tmp_path):
    """A checkpoint on the tiny backbone."""
    head = Head(np.random.default_rng(1).normal(size=64).astype(np.float32) / 8, 0.1)
    about = Checkpoint(str(tiny), locate_backbone(str(tiny)).sha256, (1, 3), head, 32)
    save(about, tmp_path / "prm", json.loads((tiny / "config.json").read_text()))
    return tmp_path / "prm"


def test_a_sound_checkpoint_passes(check, checkpoint):
    code, out, err = check("prm", "--device", "cpu", "--dtype", "fp32", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["schema_version"], told["prm"], told["dtype"]) == (1, "prm", "float32")
    assert told["incremental"] <= 1e-5
    assert told["transformers"] <= 1e-4
    code, out, _ = check("prm", "--device", "cpu", "--dtype", "fp32")
    assert code == 0
    assert "one answer" in out


def test_a_damaged_checkpoint_fails(check, checkpoint):
    head = checkpoint / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-4] + b"\0\0\0\0")
    code, out, err = check("prm")
    assert (code, out) == (1, "")
    assert "not the file that was saved" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 1, "no PRM checkpoint 'nowhere'"),
        (["none"], 2, "no PRM to check"),
        (["--dtype", "int8"], 2, "'int8'"),
        (["--device", "gpu"], 2, "--device must be"),
    ],
)
def test_what_cannot_be_checked_is_told_in_a_line(check, arguments, code, said):
    found, out, err = check(*arguments)
    assert (found, out) == (code, "")
    assert said in err
