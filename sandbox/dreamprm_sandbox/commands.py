"""`dreamprm sandbox build|status|clean` as plain functions: each returns what it found or did, as JSON values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dreamprm_cli.errors import SandboxUnavailable
from dreamprm_sandbox import docker, image
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.slot import Fault


def build(progress: Callable[[str], None], force: bool = False) -> dict[str, Any]:
    """`{"image": digest, "built": bool}`. Builds if there is no image, or with `force`. Raises SandboxUnavailable."""
    client = docker.connect()
    found = None if force else image.find(client)
    return {"image": found or image.build(client, progress), "built": found is None}


def status(prove: bool = True) -> dict[str, Any]:
    """The engine, the image, containers of ours, and whether the limits hold in a container started for the purpose.

    `{"engine", "version", "cgroups", "runtimes", "image": digest | None, "containers": int, "orphans": int,
    "ready": bool, "problem": str | None}`. Raises SandboxUnavailable when no engine answers.
    """
    client = docker.connect()
    about = client.info()
    ours = docker.containers(client)
    report: dict[str, Any] = {
        "engine": about.get("Name"),
        "version": about.get("ServerVersion"),
        "cgroups": f"v{about.get('CgroupVersion', 1)}",
        "runtimes": sorted(about.get("Runtimes") or {}),
        "image": image.find(client),
        "containers": len(ours),
        "orphans": sum(docker.orphaned(container["Labels"]) for container in ours),
        "ready": False,
        "problem": None,
    }
    if report["image"] is None:
        report["problem"] = "no image: run `dreamprm sandbox build`"
    elif prove:
        try:
            engine = docker.Engine(Limits(), runtime=docker.own_runtime(), image_id=report["image"])
            try:
                engine.start()
            finally:
                engine.close()
            report["ready"] = True
        except (SandboxUnavailable, Fault) as error:
            report["problem"] = str(error)
    return report


def clean(images: bool = False) -> dict[str, int]:
    """Remove the containers whose owner is dead, and with `images` the images: `{"containers", "images"}`."""
    client = docker.connect()
    removed = {"containers": docker.reap(client), "images": 0}
    if images:
        for digest in image.all_of_them(client):
            client.api.remove_image(digest, force=True)
            removed["images"] += 1
    return removed
