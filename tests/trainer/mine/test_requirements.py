"""What a repository wants installed is read, never run or obeyed."""

from __future__ import annotations

import pytest

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.mine import layout
from dreamprm_trainer.mine.requirements import sandbox_table, tells, wanted


def _wanted(files: dict[str, str], table: dict[str, object] | None = None) -> tuple[str, ...]:
    return wanted({path: text.encode() for path, text in files.items()}, table or {}).requirements


def test_pyproject_with_extras_groups_and_markers() -> None:
    text = """
[project]
name = "own"
dependencies = ["a>=1", "windows; sys_platform == 'win32'", "old; python_version < '3.8'"]
[project.optional-dependencies]
test = ["b", "own[more]"]
more = ["c[x]~=2.0"]
docs = ["sphinx"]
[dependency-groups]
dev = ["d", {include-group = "other"}]
other = ["e"]
[tool.poetry.dependencies]
python = "^3.9"
f = "^1.2"
g = {version = "*", optional = true}
"""
    assert _wanted({"pyproject.toml": text}) == ("a>=1", "b", "c[x]~=2.0", "d", "e", "f>=1.2")


def test_setup_files_and_requirements() -> None:
    files = {
        "setup.cfg": "[options]\ninstall_requires =\n    a>=1  # why\n[options.extras_require]\ntesting = b\n",
        "setup.py": "needs = ['c>2']\nsetup(install_requires=needs, extras_require={'test': ['d'], 'x': ['y']})\n",
        "requirements.txt": "e==1 --hash=sha256:00\n-r other.txt\n# words\nf \\\n  >=2\n",
        "requirements-dev.txt": "g\n",
        "docs/requirements.txt": "sphinx\n",
        "requirements-docs.txt": "sphinx\n",
        "PKG-INFO": "Name: own\nRequires-Dist: h>=3\nRequires-Dist: i; extra == 'test'\n\nRequires-Dist: no\n",
    }
    assert _wanted(files) == ("a>=1", "b", "c>2", "d", "e==1", "f>=2", "g", "h>=3", "i")
    assert not tells("docs/requirements.txt")
    assert not tells("requirements-docs.txt")


def test_addresses_paths_and_options_are_left_out_by_name() -> None:
    lines = [
        "x @ https://example.org/x.zip",
        "git+https://example.org/x",
        "-e .",
        "../up",
        "--index-url https://example.org",
    ]
    found = wanted({"requirements.txt": "\n".join([*lines, "fine"]).encode()}, {})
    assert found.requirements == ("fine",)
    assert [name for name, _ in found.left_out] == lines


def test_lock_files_pin_what_is_wanted() -> None:
    files = {
        "pyproject.toml": '[project]\nname = "own"\ndependencies = ["A.b>=1"]\n',
        "uv.lock": '[[package]]\nname = "a-b"\nversion = "1.5"\n[[package]]\nname = "other"\nversion = "2"\n',
    }
    found = wanted({path: text.encode() for path, text in files.items()}, {})
    assert (found.requirements, found.pins) == (("A.b>=1",), ("a-b==1.5",))


def test_the_sandbox_table_says_otherwise() -> None:
    table = sandbox_table('[sandbox]\nrequirements = ["only"]\nmemory_mb = 512\n', "dreamprm.toml")
    assert _wanted({"requirements.txt": "more\n"}, table) == ("only",)
    for text, said in (
        ("[sandbox]\nmemory = 1\n", "unknown setting 'memory'"),
        ("[sandbox]\nmemory_mb = 'x'\n", "cannot be 'x'"),
        ("sandbox = 1\n", "must be a table"),
        ("[", "not valid TOML"),
    ):
        with pytest.raises(ConfigError, match=said):
            sandbox_table(text, "dreamprm.toml")


def test_damaged_files_say_nothing() -> None:
    files = dict.fromkeys(("pyproject.toml", "setup.cfg", "setup.py", "uv.lock", "Pipfile.lock", "PKG-INFO"), "[(\x00")
    assert _wanted(files) == ()


def test_layout() -> None:
    files = {
        "src/pkg/__init__.py": b"", "src/pkg/deep/__init__.py": b"", "src/pkg/deep/a.py": b"", "single.py": b"",
        "tests/test_a.py": b"", "setup.py": b"", "docs/conf.py": b"", "vendor/x.py": b"", "scripts/run.py": b"",
        "pyproject.toml": b'[tool.pytest.ini_options]\naddopts = "-ra --import-mode=importlib --cov"\n',
    }  # fmt: skip
    assert layout.roots(files) == [".", "src"]
    assert layout.options(files) == ["--import-mode=importlib"]
    assert [path for path in files if layout.is_source(path)] == [
        "src/pkg/__init__.py", "src/pkg/deep/__init__.py", "src/pkg/deep/a.py", "single.py", "scripts/run.py"
    ]  # fmt: skip
    assert (
        layout.tests_in(b"def test_a(): pass\nclass TestB:\n    def test_b(self): pass\n    def helper(self): pass\n")
        == 2
    )
