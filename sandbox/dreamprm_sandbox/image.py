"""The image: Python and a few scientific packages, nothing else. Built with or without a registry.

`ensure` returns the digest of an image that is there, or builds one with debootstrap on Debian (as root). Containers
are always started from a digest, never from a tag.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import SandboxUnavailable

TAG = "dreamprm-sandbox:1"
LABEL = "dreamprm.sandbox.image"
VERSION = "1"
_SUITE = "bookworm"
_PACKAGES = ("python3", "python3-numpy", "python3-sortedcontainers", "python3-pytest")
# Nothing a candidate could mistake for a test, and nothing it has no use for.
_REMOVED = (
    "var/lib/apt var/lib/dpkg var/cache var/log var/backups var/mail var/spool usr/share/doc usr/share/man "
    "usr/share/locale usr/share/perl usr/share/perl5 usr/lib/x86_64-linux-gnu/perl-base usr/share/info "
    "usr/share/lintian usr/share/zoneinfo usr/share/bash-completion usr/share/common-licenses "
    "usr/share/debconf usr/share/bug usr/lib/apt usr/lib/dpkg etc/apt etc/dpkg etc/cron.d etc/cron.daily boot "
    "home media mnt opt srv usr/games usr/local usr/src usr/lib/udev usr/lib/systemd etc/systemd"
)


def ensure(client: Any, progress: Any = None) -> str:
    """The digest (`sha256:...`) of the sandbox image, built first if there is none. Raises SandboxUnavailable."""
    found = find(client)
    return found if found is not None else build(client, progress)


def find(client: Any) -> str | None:
    """The digest of the newest image of this version, None when there is none."""
    images = client.api.images(filters={"label": f"{LABEL}={VERSION}"})
    return str(max(images, key=lambda image: image["Created"])["Id"]) if images else None


def all_of_them(client: Any) -> list[str]:
    """The digests of the sandbox images of all versions, and of those derived from them, the newest first."""
    images = client.api.images(filters={"label": LABEL})
    return [str(image["Id"]) for image in sorted(images, key=lambda image: -int(image["Created"]))]


def build(client: Any, progress: Any = None) -> str:
    """Build with debootstrap and import. Takes about a minute. Raises SandboxUnavailable with the fix."""
    say = progress or (lambda line: print(line, file=sys.stderr))
    if shutil.which("debootstrap") is None:
        raise SandboxUnavailable(
            "there is no sandbox image, and debootstrap, which builds one, is not installed",
            "as root on Debian run `sandbox/engine.sh`; with a registry, `docker build -t dreamprm-sandbox:1 sandbox`",
        )
    with tempfile.TemporaryDirectory(prefix="dreamprm-image-") as folder:
        root = Path(folder) / "root"
        say(f"building the sandbox image with debootstrap ({', '.join(_PACKAGES)}) ...")
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root)]
        mirror = _mirror()
        done = subprocess.run([*command, mirror] if mirror else command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no output"]
            raise SandboxUnavailable(
                f"debootstrap failed: {last[0]}", "it needs root and a Debian mirror that can be reached"
            )
        prune(root)
        say("importing it ...")
        return _import(client, root)


def prune(root: Path) -> None:
    """Remove package management, documentation and byte code from a root folder."""
    for name in _REMOVED.split():
        shutil.rmtree(root / name, ignore_errors=True)
    for pattern in ("usr/bin/apt*", "usr/bin/dpkg*", "usr/bin/perl*", "usr/lib/python3/dist-packages/**/tests"):
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name in ("tmp", "dev", "proc", "sys", "run"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(mode=0o755)
    for path in root.rglob("*"):  # nothing in the image gains rights
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o6000:
            path.chmod(path.stat().st_mode & 0o777)


def _import(client: Any, root: Path) -> str:
    changes = [f'LABEL {LABEL}="{VERSION}"', 'CMD ["python3"]']
    with subprocess.Popen(
        ["tar", "-C", str(root), "--numeric-owner", "--sort=name", "-c", "."], stdout=subprocess.PIPE
    ) as archive:
        repository, tag = TAG.split(":")
        client.api.import_image_from_data(archive.stdout, repository=repository, tag=tag, changes=changes)
    digest = find(client)
    if archive.returncode != 0 or digest is None:
        raise SandboxUnavailable("the image could not be imported", "is there room left where the engine keeps images?")
    return digest


def _mirror() -> str | None:
    """The mirror this machine's own packages come from; debootstrap's default when that cannot be told."""
    if shutil.which("apt-get") is None:
        return None
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        uri, _, suite = line.partition(" ")
        if suite == _SUITE and "security" not in uri:
            return uri
    return None


def main(arguments: list[str]) -> int:
    """`found`: whether there is an image (exit code 0 or 1). `build`: build one if there is none."""
    from dreamprm_sandbox.docker import connect

    try:
        client = connect()
        digest = find(client) if arguments == ["found"] else ensure(client)
    except SandboxUnavailable as error:
        print(f"{error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    if digest is None:
        return 1
    print(f"sandbox image {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
