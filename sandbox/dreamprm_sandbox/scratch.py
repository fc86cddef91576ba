"""The small file systems in memory that candidates may write to, with caps on their bytes and on the number of files.

Docker mounts them with the container. Podman knows no cap on files there (`nr_inodes`), but hands the options of a
volume on as they are: on podman each container has volumes of its own, named after it and removed after it.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Mapping
from typing import Any

from dreamprm_sandbox import proof


def mounts(client: Any, container: str, labels: Mapping[str, str], size: int, files: int) -> dict[str, Any]:
    """What `create_host_config` has to be told for a container of that name; makes the volumes that it needs."""
    if not is_podman(client):
        return {"tmpfs": dict.fromkeys(proof.WRITABLE, f"size={size},nr_inodes={files},mode=1777,nosuid,nodev")}
    # Not `size`, which podman takes for a quota on a disk.
    options = f"nr_blocks={size // resource.getpagesize()},nr_inodes={files},nosuid,nodev"
    names = _names(container)
    for name in names:
        client.api.create_volume(name, "local", {"type": "tmpfs", "device": "tmpfs", "o": options}, dict(labels))
    return {"binds": [f"{name}:{path}:nocopy" for name, path in zip(names, proof.WRITABLE, strict=True)]}


def remove(client: Any, container: str) -> None:
    """Remove what a container of that name had; never raises."""
    import docker.errors

    with contextlib.suppress(docker.errors.DockerException, OSError):
        for name in _names(container) if is_podman(client) else []:
            client.api.remove_volume(name, force=True)


def left(client: Any, label: str) -> list[tuple[str, dict[str, str]]]:
    """The containers, by name, that volumes with this label were made for, and the labels."""
    if not is_podman(client):
        return []
    found = client.api.volumes(filters={"label": label})["Volumes"] or []
    return [(volume["Name"].rpartition("-")[0], volume["Labels"]) for volume in found]


def _names(container: str) -> list[str]:
    return [f"{container}-{number}" for number in range(len(proof.WRITABLE))]


def is_podman(client: Any) -> bool:
    """Whether it is podman that answers."""
    return any("podman" in part.get("Name", "").lower() for part in client.version().get("Components") or [])
