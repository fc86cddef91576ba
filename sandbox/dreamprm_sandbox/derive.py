"""An image derived from the sandbox image: a repository's dependencies in a layer of their own, /opt/deps.

Only wheels are taken (`pip install --target --only-binary :all: --no-compile`), for the image's Python and not for
this machine's: nothing of a stranger is run here, neither a setup.py nor a build backend nor a package. What has no
wheel, or fits nothing else, is left out and named. The layer is added with a Dockerfile of one `COPY`, which needs no
network and starts no container. /opt/deps is not on the path of PID 1 (a `.pth` in it is read by nobody): runs put
it on theirs. The same requirements on the same base are one image, built once.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import SandboxUnavailable
from dreamprm_sandbox import image

KEY = "dreamprm.sandbox.derived"
_LEFT_OUT = "dreamprm.sandbox.left_out"
_ALWAYS = "coverage>=7.4"
_PYTHON = "3.11"  # the image's
_GLIBC = range(36, 4, -1)  # manylinux_2_36, which the image has, and all before
_PIP_S = 1200
_MOST_MB = 6000


@dataclass(frozen=True, slots=True)
class Derived:
    """The image's digest, and what could not be installed: (requirement, why)."""

    image: str
    left_out: tuple[tuple[str, str], ...] = ()


def derive(
    client: Any, requirements: Sequence[str], pins: Sequence[str] = (), say: Callable[[str], None] = lambda line: None
) -> Derived:
    """The image with these requirements (PEP 508, without URLs), built if there is none. `pins` (`name==version`, from
    a lock file) constrain them. Raises SandboxUnavailable."""
    base = image.ensure(client)
    asked = [*sorted(set(requirements)), _ALWAYS]
    key = hashlib.sha256(json.dumps([base, asked, sorted(pins), _PYTHON]).encode()).hexdigest()[:24]
    for found in client.api.images(filters={"label": f"{KEY}={key}"}):
        left_out = json.loads(found["Labels"].get(_LEFT_OUT, "[]"))
        return Derived(str(found["Id"]), tuple((name, why) for name, why in left_out))
    with tempfile.TemporaryDirectory(prefix="dreamprm-deps-") as folder:
        target = Path(folder) / "deps"
        say(f"installing {len(asked)} requirements into an image of their own ...")
        missed = _install(asked, pins, target, Path(folder))
        size = sum(path.lstat().st_size for path in target.rglob("*")) >> 20
        if size > _MOST_MB:
            raise SandboxUnavailable(
                f"the dependencies take {size} MB, more than {_MOST_MB}", "name fewer under [sandbox] in dreamprm.toml"
            )
        say(f"building the image ({size} MB of dependencies) ...")
        return Derived(_build(client, base, key, target, missed), tuple(missed))


def _install(asked: Sequence[str], pins: Sequence[str], target: Path, scratch: Path) -> list[tuple[str, str]]:
    """Install all of them, else those that can be had. (requirement, why) of the others. Raises SandboxUnavailable."""
    constraints = scratch / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
    pinned = ["--constraint", str(constraints)] if pins else []
    if not _pip(["--target", str(target), *pinned, *asked]):
        return []
    missed: list[tuple[str, str]] = []
    kept: list[str] = []
    for requirement in asked:
        if why := _pip(["--dry-run", "--target", str(target), requirement]):
            missed.append((requirement, why))
        else:
            kept.append(requirement)
    if _ALWAYS not in kept:
        raise SandboxUnavailable(
            f"coverage cannot be installed for the sandbox: {missed[-1][1]}", "is there a network?"
        )
    if kept != list(asked) and not _pip(["--target", str(target), *pinned, *kept]):
        return missed
    # They do not go together, or not with the lock file: the first that do.
    chosen: list[str] = [_ALWAYS]
    for requirement in kept[:-1]:
        if why := _pip(["--dry-run", "--target", str(target), *chosen, requirement]):
            missed.append((requirement, why))
        else:
            chosen.append(requirement)
    if why := _pip(["--target", str(target), *chosen]):
        raise SandboxUnavailable(f"the dependencies cannot be installed: {why}", "name others under [sandbox]")
    return missed


def _pip(arguments: Sequence[str]) -> str:
    """Why pip fails; empty when it does not."""
    machine = platform.machine()
    platforms = [
        *(f"manylinux_2_{minor}_{machine}" for minor in _GLIBC),
        f"manylinux2014_{machine}",
        f"linux_{machine}",
    ]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--no-compile", "--python-version", _PYTHON, "--implementation", "cp"]
    command += [part for one in platforms for part in ("--platform", one)]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, errors="replace", check=False, timeout=_PIP_S,
            stdin=subprocess.DEVNULL, cwd=tempfile.gettempdir(), env={**os.environ, "PYTHONNOUSERSITE": "1"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[:200]
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    last = errors[-1:] or done.stderr.strip().splitlines()[-1:] or ["pip failed"]
    return last[0][:200] if done.returncode else ""


def _build(client: Any, base: str, key: str, target: Path, missed: Sequence[tuple[str, str]]) -> str:
    labels = {image.LABEL: "derived", KEY: key, _LEFT_OUT: json.dumps(list(missed))}
    lines = [
        f"FROM {base}",
        "COPY deps /opt/deps",
        *(f"LABEL {name}={json.dumps(text)}" for name, text in labels.items()),
    ]
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            dockerfile = tarfile.TarInfo("Dockerfile")
            data = ("\n".join(lines) + "\n").replace("$", "\\$").encode()
            dockerfile.size = len(data)
            archive.addfile(dockerfile, BytesIO(data))
            archive.add(target, "deps", filter=_plain)
        file.seek(0)
        said = ""
        for event in client.api.build(
            fileobj=file, tag=f"dreamprm-sandbox:deps-{key}", custom_context=True, rm=True, forcerm=True, decode=True
        ):
            said = str(event.get("error", said))
    images = client.api.images(filters={"label": f"{KEY}={key}"})
    if not images:
        raise SandboxUnavailable(
            f"the image with the dependencies cannot be built: {said[:200]}", "is there room left?"
        )
    return str(images[0]["Id"])


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Plain files and folders, owned by root and readable by all."""
    if not (member.isreg() or member.isdir()):
        return None
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member
