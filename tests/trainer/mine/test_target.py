"""A function is found in its file, and only its own lines of the file change."""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_git import MODULE, PROJECT, digests, git

from dreamprm_cli.errors import ConfigError, DreamPRMError, ProblemError
from dreamprm_cli.types import Problem
from dreamprm_trainer.mine import trial, worktree
from dreamprm_trainer.mine.functions import Unreadable, module
from dreamprm_trainer.mine.repository import Repository
from dreamprm_trainer.mine.target import Target, find

Make = Callable[..., Path]
BODY = "def total(values):\n    return sum(values)\n"
OLD = "    result = 0\n    for value in values:\n        result += value\n    return result\n"


def target(text: str | bytes, name: str = "total", starter: str = "") -> Target:
    data = text.encode() if isinstance(text, str) else text
    return find({"a/m.py": data}, f"a/m.py::{name}", starter)


def test_a_program_changes_its_functions_lines_and_no_others() -> None:
    assert target(MODULE).changed(BODY).decode() == MODULE.replace(OLD, "    return sum(values)\n")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_stay_what_they_are(end: str) -> None:
    want = MODULE.replace(OLD, "    return sum(values)\n").replace("\n", end)
    assert target(MODULE.replace("\n", end)).changed(BODY).decode() == want


def test_mixed_line_ends_stay_and_new_lines_have_the_usual_one() -> None:
    head, tail = MODULE.split(OLD)
    one = target(head.replace("\n", "\r\n") + OLD + tail)
    assert one.changed(BODY).decode() == head.replace("\n", "\r\n") + "    return sum(values)\n" + tail
    one = target(head + OLD + tail.replace("\n", "\r\n"))
    assert one.changed(BODY).decode() == head + "    return sum(values)\r\n" + tail.replace("\n", "\r\n")


@pytest.mark.parametrize(
    "text", ["def total(values):\n    return 0", "x = 1\n\n\ndef total(values):\n    return 0\nx = 2"]
)
def test_a_file_without_an_end_of_its_last_line_keeps_none(text: str) -> None:
    one = target(text)
    assert one.changed(BODY).decode() == text.replace("return 0", "return sum(values)")
    assert one.diff(one.changed(BODY)).count(b"\\ No newline at end of file\n") == (2 if text.endswith("0") else 1)


def test_encodings_and_a_byte_order_mark_stay() -> None:
    latin = "# -*- coding: latin-1 -*-\n# \xe9\n".encode("latin-1") + MODULE.encode()
    assert target(latin).changed(BODY).startswith(b"# -*- coding: latin-1 -*-\n# \xe9\n")
    marked = b"\xef\xbb\xbf" + MODULE.encode()
    assert target(marked).changed(BODY) == marked.replace(OLD.encode(), b"    return sum(values)\n")


def test_indentation_decorators_and_async_stay() -> None:
    text = 'class A:\n\tclass B:\n\t\t@staticmethod\n\t\tasync def f(x):\n\t\t\t"""Say."""\n\n\t\ty = 1\n'
    one = target(text, "A.B.f")
    assert b'"""Say."""\n\t\t\tpass\n\n' in one.runnable()
    program = (
        "class B:\n    @staticmethod\n    async def f(x):\n        if x:\n            return 2\n        return 3\n"
    )
    got = one.changed(program).decode()
    assert got == text.replace('"""Say."""\n', '"""Say."""\n\t\t\tif x:\n\t\t\t    return 2\n\t\t\treturn 3\n'), got


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_git_applies_the_diff(tmp_path: Path, end: str) -> None:
    data = (MODULE.rstrip("\n") + "\n").replace("\n", end or "\n").encode()
    data = data if end else data.rstrip(b"\n")
    one = target(data, "unused")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "m.py").write_bytes(data)
    (tmp_path / "change.diff").write_bytes(one.diff(one.changed("def unused(value):\n    return -value\n")))
    git(tmp_path, "init", "-q")
    git(tmp_path, "-c", "core.autocrlf=false", "apply", "change.diff")
    assert (tmp_path / "a" / "m.py").read_bytes() == data.replace(b"return value", b"return -value")


@pytest.mark.parametrize(
    ("starter", "name", "text", "want"),
    [
        ("def new(x):", "new", "a = 1\n", 'a = 1\n\n\ndef new(x):\n    return x\n'),
        ('def new(x):\n    """It."""\n', "new", 'a = 1\n\n\nif __name__ == "__main__":\n    new(a)\n',
         'a = 1\n\n\ndef new(x):\n    """It."""\n    return x\n\n\nif __name__ == "__main__":\n    new(a)\n'),
        ("class A:\n    def new(self, x):\n", "A.new", "class A:\n\ta = 1\n\n\nb = 2\n",
         "class A:\n\ta = 1\n\n\tdef new(self, x):\n\t    return x\n\n\nb = 2\n"),
        ("def new(x): ...", "new", "", "def new(x):\n    return x\n"),
    ],
)  # fmt: skip
def test_a_function_that_is_not_there_yet(starter: str, name: str, text: str, want: str) -> None:
    one = target(text, name, starter)
    assert b"raise NotImplementedError" in one.runnable()
    parameters = "self, x" if "." in name else "x"
    assert one.changed(f"def new({parameters}):\n    return x\n").decode() == want


@pytest.mark.parametrize("program", ["", "x = 1\n", "def other():\n    pass\n", "def total(:\n"])
def test_what_does_not_define_the_function_does_not_fit(program: str) -> None:
    with pytest.raises(Unreadable):
        target(MODULE).changed(program)


ODD = (
    "import typing\n\n\n@typing.overload\ndef twice(x: int): ...\ndef twice(x): return x\n\n\n"
    "@typing.overload\ndef shape(x): ...\n\n\ndef outer():\n    def inner():\n        return 1\n    return inner\n\n\n"
    'def brief(): "Says it."\n'
)


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("m.py", "names no function", "PATH.py::function"),
        ("m.py::", "names no function", "PATH.py::function"),
        ("b/m.py::outer", "no file b/m.py", "a/m.py::outer"),
        ("other.py::outer", "no file other.py", "a/m.py::outer"),
        ("../a/m.py::outer", "no file ../a/m.py", "a/m.py::outer"),
        ("a/m.py::outr", "no function outr", "a/m.py::outer"),
        ("a/m.py::A.outer", "no function A.outer", "a/m.py::outer"),
        ("a/m.py::inner", "no function inner", "within a function"),
        ("a/m.py::nothing_like_it", "no function", "starter"),
        ("a/m.py::twice", "twice cannot be a target: defined more than once", ""),
        ("a/m.py::shape", "shape cannot be a target: no body of its own", ""),
        ("a/m.py::brief", "on one line", ""),
        ("a/broken.py::f", "does not parse", ""),
    ],
)
def test_what_is_no_target_is_told_with_what_is_near(name: str, said: str, hint: str) -> None:
    with pytest.raises(DreamPRMError) as raised:
        find({"a/m.py": ODD.encode(), "a/broken.py": b"def f(:\n"}, name)
    assert said in raised.value.message
    assert hint in raised.value.hint
    assert raised.value.exit_code == (2 if isinstance(raised.value, ConfigError) else 42)


def test_the_work_tree_as_it_lies(make: Make, tmp_path: Path) -> None:
    """What the user has changed counts; nothing of git's, of environments, of other repositories, behind links."""
    folder = make(
        {**PROJECT, ".gitignore": "made.py\n", "data.txt": "1", "gone.py": "", ".gitattributes": "*.py filter=bad\n"}
    )
    git(folder, "config", "filter.bad.clean", f"touch {tmp_path / 'filtered'}")
    git(folder, "config", "core.fsmonitor", f"touch {tmp_path / 'monitored'}")
    (folder / "project" / "sums.py").write_text("x = 1\n")
    (folder / "gone.py").unlink()
    for path in ("made.py", "new/deep.py", "env/pyvenv.cfg", "env/lib.py", "other/.git", "other/o.py", ".hidden/h.py"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("y = 2\n")
    (folder / "new.txt").write_text("")
    (folder / "link.py").symlink_to("made.py")
    before = digests(folder)
    with Repository(folder) as repository:
        found = dict(worktree.contents(repository))
    assert sorted(found) == sorted([".gitattributes", ".gitignore", "data.txt", "made.py", "new/deep.py", *PROJECT])
    assert found["project/sums.py"] == b"x = 1\n"
    assert digests(folder) == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["project"]


def test_writing_keeps_the_mode_and_refuses_a_file_that_has_changed(tmp_path: Path) -> None:
    place = tmp_path / "m.py"
    place.write_bytes(b"a\r\n")
    place.chmod(0o751)
    with pytest.raises(ProblemError, match="changed meanwhile"):
        worktree.write(tmp_path, "m.py", b"a\n", b"b\n")
    assert place.read_bytes() == b"a\r\n"
    worktree.write(tmp_path, "m.py", b"a\r\n", b"b\r\n")
    assert place.read_bytes() == b"b\r\n"
    assert place.stat().st_mode & 0o777 == 0o751
    assert os.listdir(tmp_path) == ["m.py"]
    (tmp_path / "link.py").symlink_to(place)
    with pytest.raises(ProblemError, match="changed meanwhile"):
        worktree.write(tmp_path, "link.py", b"b\r\n", b"c")


@pytest.mark.parametrize("name", ["argparse", "ast", "dataclasses", "enum", "json.decoder", "textwrap", "typing"])
def test_a_functions_own_source_changes_nothing(name: str) -> None:
    """Whatever real code looks like: comments after a docstring, strings below each other, decorators."""
    found = importlib.import_module(name)
    assert found.__file__ is not None
    data = Path(found.__file__).read_bytes()
    fit = [one for one in module("m.py", data).functions if not one.unfit]
    assert fit
    for one in fit[:: max(1, len(fit) // 12)]:
        assert find({"m.py": data}, f"m.py::{one.qualname}").changed(one.source) == data, one.qualname


def test_comments_are_about_the_body_that_they_precede() -> None:
    text = 'def f(x):\n    """Say."""\n\n    # the old way\n    return x\n'
    got = target(text, "f").changed('def f(x):\n    """Else."""\n    # the new way\n    return 2 * x\n')
    assert got.decode() == 'def f(x):\n    """Say."""\n    # the new way\n    return 2 * x\n'


def test_a_target_is_a_problem_with_its_module_around_it(make: Make) -> None:
    folder = make(
        {**PROJECT, "project/use.py": "from project.sums import total\n\n\ndef use():\n    return total([1])\n"}
    )
    given = Problem(id="p", statement="Be quick.")
    found = trial.problem(folder, "project/sums.py::total", given, tests=False)
    assert found.statement.startswith("Be quick.\n\nWrite the function `total` of `project/sums.py`.\n\nThe sum")
    assert "return total([1])  # use" in found.statement
    assert (found.entry_point, found.language, found.tests.kind) == ("total", "python", "target")
    assert found.starter_code == 'def total(values):\n    """The sum of the values; 0 for none."""\n'
    assert "class Counter:" in found.context
    assert "result += value" not in found.context
    with trial.opened(found) as opened:
        assert opened.verify is None
        assert opened.fits("def other(): pass") is None
    (folder / "project" / "sums.py").write_text(MODULE + "\n")
    with pytest.raises(ProblemError, match="has changed since the run began"), trial.opened(found):
        pass


@pytest.mark.parametrize(
    "stub", ['    """Only said."""\n', '    """Only said."""\n    ...\n', "    raise NotImplementedError\n"]
)
def test_the_module_around_a_function_that_waits_for_its_body(make: Make, stub: str) -> None:
    folder = make({"m.py": f"def wanted(x):\n{stub}"})
    found = trial.problem(folder, "m.py::wanted", None, tests=False)
    assert found.context.splitlines()[-1] == "    ..."


def test_a_bare_repository_is_told(make: Make, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(make(PROJECT)), str(bare)], check=True)
    with pytest.raises(ProblemError, match="bare repository"):
        trial.problem(bare, "project/sums.py::total", None, tests=False)
