"""Reading a repository changes nothing, runs nothing, and says in one line what is wrong with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_git import MODULE, PROJECT, commit, digests, git

from dreamprm_cli.errors import ProblemError
from dreamprm_trainer.mine import pipeline
from dreamprm_trainer.mine.pipeline import Options
from dreamprm_trainer.mine.repository import Repository

Make = Callable[..., Path]
READ_ONLY = Options(tests=False, past=True)


def _mine(folder: Path, out: Path) -> dict[str, Any]:
    with Repository(folder) as repository:
        return pipeline.mine(repository, out, READ_ONLY)


def test_nothing_changes(make: Make, tmp_path: Path) -> None:
    folder = make(PROJECT)
    commit(folder, {"project/sums.py": MODULE.replace("result = 0", "result = 0 + 0")}, day=2)
    (folder / "project" / "sums.py").touch()  # an index that is out of date: status would refresh it
    (folder / "untracked.py").write_text("x = 1\n")
    before = digests(folder)
    _mine(folder, tmp_path / "out")
    assert digests(folder) == before
    assert git(folder, "--no-optional-locks", "status", "--porcelain") == "?? untracked.py\n"


def test_nothing_of_it_runs(make: Make, tmp_path: Path) -> None:
    """Hooks, filters, text conversion, the file system monitor and aliases would each leave a mark."""
    folder = make({**PROJECT, ".gitattributes": "*.py filter=mark diff=mark\n", "conftest.py": "raise SystemExit\n"})
    mark = tmp_path / "mark"
    script = f"touch {mark}; cat"
    for key in ("filter.mark.smudge", "filter.mark.clean", "diff.mark.textconv", "core.fsmonitor", "core.pager",
                "core.sshCommand", "alias.rev-parse", "core.editor"):  # fmt: skip
        with (folder / ".git" / "config").open("a") as config:
            section, _, name = key.rpartition(".")
            head, _, sub = section.partition(".")
            config.write(f'[{head} "{sub}"]\n' if sub else f"[{head}]\n")
            config.write(f'\t{name} = "{script}"\n')
    hooks = folder / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "post-index-change", "pre-commit", "reference-transaction", "fsmonitor-watchman"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (hooks / name).chmod(0o755)
    _mine(folder, tmp_path / "out")
    assert not mark.exists()


def test_a_partial_clone_fetches_nothing(make: Make, tmp_path: Path) -> None:
    origin = make(PROJECT, "origin")
    git(origin, "config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{origin}", str(clone))
    before = digests(clone)
    with pytest.raises(ProblemError, match="nothing to mine"):
        _mine(clone, tmp_path / "out")
    assert digests(clone) == before


def _not_there(folder: Path) -> Path:
    return folder / "nowhere"


def _no_repository(folder: Path) -> Path:
    shutil.rmtree(folder / ".git")
    return folder


def _head_of_nothing(folder: Path) -> Path:
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/gone\n")
    return folder


def _objects(folder: Path) -> list[Path]:
    return [path for path in (folder / ".git" / "objects").rglob("*") if path.is_file()]


def _no_objects(folder: Path) -> Path:
    for path in _objects(folder):
        path.unlink()
    return folder


def _garbage(folder: Path) -> Path:
    for path in _objects(folder):
        path.chmod(0o644)
        path.write_bytes(b"garbage")
    return folder


def _cut_pack(folder: Path) -> Path:
    git(folder, "repack", "-q", "-a", "-d")
    for path in _objects(folder):
        if path.suffix == ".pack":
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:100])
    return folder


def _bad_config(folder: Path) -> Path:
    (folder / ".git" / "config").write_text("[core\nbare = ???\n")
    return folder


def _no_python(folder: Path) -> Path:
    git(folder, "rm", "-q", "-r", "project", "tests")
    commit(folder, {"README": "words"})
    return folder


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_not_there, "there is no folder"),
        (_no_repository, "is not a git repository"),
        (_head_of_nothing, "names no commit"),
        (_no_objects, "cannot be read"),
        (_garbage, "cannot be read"),
        (_cut_pack, "cannot be read"),
        (_bad_config, "(settings cannot be read|is not a git repository|names no commit)"),
        (_no_python, "nothing to mine"),
    ],
)
def test_one_clear_line(make: Make, tmp_path: Path, spoil: Callable[[Path], Path], said: str) -> None:
    folder = spoil(make(PROJECT))
    with pytest.raises(ProblemError, match=said) as raised:
        _mine(folder, tmp_path / "out")
    assert raised.value.exit_code == 42
    assert "\n" not in raised.value.message


def test_empty(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="an empty repository"):
        _mine(make(), tmp_path / "out")


def test_a_missing_file_is_left_out_by_name(make: Make, tmp_path: Path) -> None:
    folder = make({**PROJECT, "project/lost.py": "def lost():\n    '''Lost.'''\n    return 1\n"})
    blob = git(folder, "rev-parse", "HEAD:project/lost.py").strip()
    (folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    report = _mine(folder, tmp_path / "out")
    why = next(one["why"] for one in report["left_out"] if one["name"] == "project/lost.py")
    assert why.startswith("missing or damaged")
    assert report["tasks"] == 2


def test_what_is_no_plain_python_file(make: Make, tmp_path: Path) -> None:
    folder = make(PROJECT)
    inner = make({"inner.py": "def f():\n    '''F.'''\n    return 1\n"}, "inner")
    git(folder, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "vendored_module")
    os.symlink("/etc/passwd", folder / "link.py")
    commit(
        folder,
        {
            "bytes.py": b"def f():\n    '''\xff\xfe'''\n    return 1\n",
            "latin.py": "# -*- coding: latin-1 -*-\ndef caf\u00e9():\n    '''Un caf\u00e9.'''\n    return 1\n".encode(
                "latin-1"
            ),
            "broken.py": "def f(:\n",
            "python2.py": "print 'hello'\n",
            "deep.py": "x = " + "(" * 300 + ")" * 300,
            "null.py": b"x = 1\0\n",
        },
        day=2,
    )
    report = _mine(folder, tmp_path / "out")
    left_out = {one["name"]: one["why"] for one in report["left_out"]}
    assert {
        "vendored_module",
        "link.py",
        "bytes.py",
        "broken.py",
        "python2.py",
        "deep.py",
        "null.py",
    } <= left_out.keys()
    assert left_out["vendored_module"] == "a submodule"
    assert left_out["link.py"] == "a link"
    assert report["tasks"] == 3  # of the project two, and café


def test_shallow_bare_and_linked(make: Make, tmp_path: Path) -> None:
    folder = make(PROJECT)
    commit(folder, {"project/sums.py": MODULE.replace("result = 0", "result = 0 + 0"), "tests/test_x.py": ""}, day=2)
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{folder}", str(tmp_path / "shallow"))
    git(tmp_path, "clone", "-q", "--bare", str(folder), str(tmp_path / "bare.git"))
    git(folder, "worktree", "add", "-q", str(tmp_path / "linked"), "HEAD~1")
    reports = {name: _mine(tmp_path / name, tmp_path / "out" / name) for name in ("shallow", "bare.git", "linked")}
    assert {name: report["tasks"] for name, report in reports.items()} == dict.fromkeys(reports, 2)
    assert reports["shallow"]["shallow"]
    assert reports["shallow"]["pairs"] == 0
    assert reports["bare.git"]["pairs"] == 1
    assert reports["linked"]["pairs"] == 0


def test_broken_history_is_used_as_far_as_it_goes(make: Make, tmp_path: Path) -> None:
    folder = make(PROJECT)
    first = git(folder, "rev-parse", "HEAD").strip()
    for day in (2, 3):
        changed = MODULE.replace("result = 0", f"result = {day} - {day}")
        commit(folder, {"project/sums.py": changed, "tests/test_x.py": f"x = {day}\n"}, day=day)
    (folder / ".git" / "objects" / first[:2] / first[2:]).unlink()
    report = _mine(folder, tmp_path / "out")
    assert report["tasks"] == 2
    assert any(one["name"] == "history" for one in report["left_out"])


def test_the_callers_git_variables_mean_nothing(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = make(PROJECT), make({"a.py": "def a():\n    '''A.'''\n    return 1\n"}, "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git" / "objects"))
    assert _mine(folder, tmp_path / "out")["tasks"] == 2


def test_mining_twice_gives_the_same_bytes(make: Make, tmp_path: Path) -> None:
    folder = make(PROJECT)
    script = (
        "import sys; from pathlib import Path; from dreamprm_trainer.mine import pipeline; "
        "from dreamprm_trainer.mine.repository import Repository; "
        "pipeline.mine(Repository(Path(sys.argv[1])), Path(sys.argv[2]), pipeline.Options(tests=False, past=True))"
    )
    outs = [tmp_path / "one", tmp_path / "two"]
    for seed, out in enumerate(outs):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", script, str(folder), str(out)], check=True, env=environment)
    one, two = ((out / "tasks.jsonl").read_bytes() for out in outs)
    assert one == two
    assert one
