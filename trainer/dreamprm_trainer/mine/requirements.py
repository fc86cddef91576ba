"""What a repository wants installed, as its files say it; none of them is run, and none of their options is obeyed.

Read: `[sandbox] requirements` of dreamprm.toml (then nothing else), pyproject.toml (project, its test extras,
dependency groups, poetry), setup.cfg and setup.py (literal lists), PKG-INFO, requirements files; poetry.lock, uv.lock,
pylock.toml and Pipfile.lock for the versions. Requirements that are addresses or paths are left out and named.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.mine.functions import Unreadable, decoded, parsed

_TEST_EXTRAS = re.compile(
    r"(unit)?-?tests?|testing|dev|develop|development|dev-?dependencies|tests?[-_].*", re.IGNORECASE
)
_FILE = re.compile(
    r"(requirements/)?[\w.-]*(requirements|require|reqs)[\w.-]*\.(txt|in)|requirements/[\w.-]+\.(txt|in)"
    r"|tests?/[\w.-]*requirements[\w.-]*\.txt"
)
_NOT_FILE = re.compile(r"doc|lint|build|release|publish|benchmark|mypy|typing", re.IGNORECASE)
_MARKERS = {"python_version": "3.11", "python_full_version": "3.11.2", "sys_platform": "linux", "os_name": "posix",
            "platform_system": "Linux", "implementation_name": "cpython", "extra": ""}  # fmt: skip
SANDBOX_KEYS: dict[str, Any] = {
    "requirements": list,
    "memory_mb": int,
    "test_time_limit_s": (int, float),
    "suite_time_limit_s": (int, float),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """requirements: PEP 508 without addresses; pins: `name==version` of lock files; left_out: (line, why)."""

    requirements: tuple[str, ...]
    pins: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def sandbox_table(text: str, where: str) -> dict[str, Any]:
    """The table [sandbox] of a dreamprm.toml. Raises ConfigError for what cannot be."""
    try:
        table = tomllib.loads(text).get("sandbox", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: sandbox must be a table", "write [sandbox] and the keys below it")
    for key, value in table.items():
        kind = SANDBOX_KEYS.get(key)
        if kind is None:
            raise ConfigError(f"{where}: unknown setting {key!r} under [sandbox]", f"known: {', '.join(SANDBOX_KEYS)}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{where}: sandbox.{key} cannot be {value!r}")
    return dict(table)


def wanted(files: Mapping[str, bytes], table: Mapping[str, Any]) -> Wanted:
    """All of it. `files`: at least those that `tells` names."""
    lines = table["requirements"] if "requirements" in table else _declared(files)
    kept: dict[str, str] = {}
    left_out: dict[str, str] = {}
    own = {_canonical(str(_toml(files, "pyproject.toml").get("project", {}).get("name", "")))}
    for line in lines:
        try:
            name, text = _checked(str(line))
        except ValueError as error:
            left_out[str(line)[:160]] = str(error)
            continue
        if text and name not in own:
            # The first that says a version wins: pyproject.toml comes before requirements files.
            kept[name] = text if name not in kept or _bare(kept[name]) else kept[name]
    pins = {name: pin for name, pin in _pins(files) if name in kept and "requirements" not in table}
    return Wanted(tuple(kept[name] for name in sorted(kept)), tuple(sorted(pins.values())), tuple(left_out.items()))


def tells(path: str) -> bool:
    """Whether `wanted` reads the file."""
    return path in (
        "pyproject.toml", "setup.cfg", "setup.py", "PKG-INFO", "poetry.lock", "uv.lock", "pylock.toml", "Pipfile.lock"
    ) or (_FILE.fullmatch(path) is not None and not _NOT_FILE.search(path))  # fmt: skip


def _checked(line: str) -> tuple[str, str]:
    """(canonical name, requirement); an empty requirement where its markers do not hold. Raises ValueError."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = Requirement(line)
    except InvalidRequirement:
        raise ValueError("not the name of a package") from None
    if found.url:
        raise ValueError("an address; only packages of the index are installed")
    if found.marker is not None and not found.marker.evaluate(dict(_MARKERS)):
        return _canonical(found.name), ""
    found.marker = None
    return _canonical(found.name), str(found)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _bare(requirement: str) -> bool:
    return re.fullmatch(r"[\w.-]+(\[[\w,.-]+\])?", requirement) is not None


def _declared(files: Mapping[str, bytes]) -> Iterator[str]:
    yield from _pyproject(_toml(files, "pyproject.toml"))
    yield from _setup_cfg(_text(files, "setup.cfg"))
    yield from _setup_py(files.get("setup.py", b""))
    for line in _text(files, "PKG-INFO").partition("\n\n")[0].splitlines():
        extra = re.search(r"""extra\s*==\s*['"]([^'"]*)""", line)
        if line.startswith("Requires-Dist:") and (extra is None or _TEST_EXTRAS.fullmatch(extra[1])):
            requirement, _, marker = line.removeprefix("Requires-Dist:").strip().partition(";")
            yield requirement if extra else f"{requirement};{marker}".rstrip(";")
    for path in sorted(files):
        if tells(path) and _FILE.fullmatch(path):
            for line in re.sub(r"\\\r?\n", " ", _text(files, path)).splitlines():
                line = re.sub(r"(^|\s)#.*", "", line).strip()
                line = re.sub(r"\s--hash[= ]\S+", "", line).strip()
                if line and not re.match(r"(-r|-c|--requirement|--constraint)\b", line):
                    yield line


def _pyproject(table: Mapping[str, Any]) -> Iterator[str]:
    project, tool = _table(table.get("project")), _table(table.get("tool"))
    yield from _strings(project.get("dependencies"))
    name = _canonical(str(project.get("name", "")))
    extras = {key: list(_strings(value)) for key, value in _table(project.get("optional-dependencies")).items()}
    for key, lines in extras.items():
        if _TEST_EXTRAS.fullmatch(key):
            for line in lines:  # an extra may name others of the same project
                own = re.fullmatch(r"([\w.-]+)\[([\w,.\s-]+)\]", line)
                if own and _canonical(own[1]) == name:
                    yield from (one for other in own[2].split(",") for one in extras.get(other.strip(), []))
                else:
                    yield line
    groups = _table(table.get("dependency-groups"))
    for key in groups:
        if _TEST_EXTRAS.fullmatch(key):
            yield from _group(groups, key, 0)
    poetry = _table(tool.get("poetry"))
    tables = [poetry.get("dependencies"), poetry.get("dev-dependencies")]
    tables += [
        _table(group).get("dependencies")
        for key, group in _table(poetry.get("group")).items()
        if _TEST_EXTRAS.fullmatch(key)
    ]
    for one in tables:
        for package, spec in _table(one).items():
            version = spec if isinstance(spec, str) else _table(spec).get("version", "*")
            if package != "python" and not (isinstance(spec, dict) and spec.get("optional")):
                yield package + _poetry(str(version))


def _group(groups: Mapping[str, Any], key: str, depth: int) -> Iterator[str]:
    for line in groups.get(key, []) if isinstance(groups.get(key), list) else []:
        if isinstance(line, str):
            yield line
        elif isinstance(line, dict) and "include-group" in line and depth < 5:
            yield from _group(groups, str(line["include-group"]), depth + 1)


def _poetry(version: str) -> str:
    """Poetry's `^1.2` and `~1.2` as lower bounds."""
    version = version.strip()
    if version in ("", "*"):
        return ""
    if version[0] in "^~" and version[1:2] != "=":
        return f">={version[1:]}"
    return version if version[0] in "<>=!~" else f"=={version}"


def _setup_cfg(text: str) -> Iterator[str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    wanted = [("options", "install_requires"), ("options", "tests_require")]
    if parser.has_section("options.extras_require"):
        keys = parser.options("options.extras_require")
        wanted += [("options.extras_require", key) for key in keys if _TEST_EXTRAS.fullmatch(key)]
    for section, key in wanted:
        for line in parser.get(section, key, fallback="").splitlines():
            line = re.sub(r"(^|\s)#.*", "", line).strip()
            if line and not line.startswith(("file:", "attr:")):
                yield line


def _setup_py(data: bytes) -> Iterator[str]:
    """Literal lists only."""
    try:
        tree = parsed(decoded(data)[0])
    except Unreadable:
        return
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("install_requires", "tests_require", "extras_require"):
            try:
                given = named.get(node.value.id, node.value) if isinstance(node.value, ast.Name) else node.value
                value = ast.literal_eval(given)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(value, dict):
                value = [line for key, some in value.items() if _TEST_EXTRAS.fullmatch(str(key)) for line in some]
            yield from _strings(value if isinstance(value, list | tuple) else [value])


def _pins(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    for path in ("poetry.lock", "uv.lock", "pylock.toml"):
        table = _toml(files, path)
        for one in [*_list(table.get("package")), *_list(table.get("packages"))]:
            if isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("version"), str):
                yield _canonical(one["name"]), f"{one['name']}=={one['version']}"
    try:
        lock = json.loads(_text(files, "Pipfile.lock") or "{}")
    except (ValueError, RecursionError):
        return
    for section in ("default", "develop"):
        for name, one in _table(_table(lock).get(section)).items():
            version = _table(one).get("version")
            if isinstance(version, str) and version.startswith("=="):
                yield _canonical(name), f"{name}{version}"


def _toml(files: Mapping[str, bytes], path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(files, path))
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _text(files: Mapping[str, bytes], path: str) -> str:
    return files.get(path, b"").decode("utf-8", "replace").lstrip("\ufeff")


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: object) -> Iterable[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []
