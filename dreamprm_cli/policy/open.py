"""From what a user types (`gguf:PATH`, `hf:ORG/NAME`, `vllm:NAME`, `openai:NAME`, a registry name) to a Policy."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamprm_cli.errors import ConfigError, PolicyError
from dreamprm_cli.models import REGISTRY, ModelInfo, Report, ensure
from dreamprm_cli.models.fetch import snapshot
from dreamprm_cli.policy import Policy

Kind = Literal["gguf", "hf", "vllm", "openai", "vllm+openai", "registry"]
_KINDS: dict[str, Kind] = {kind: kind for kind in ("gguf", "hf", "vllm", "openai", "vllm+openai")}
_FORMS = "gguf:PATH, hf:ORG/NAME, vllm:NAME, openai:NAME"


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Which engine (`registry`: the one that fits the file) and what it is to load."""

    kind: Kind
    target: str


def resolve_policy_spec(spec: str) -> PolicySpec:
    """Parse a policy's name without touching engines, files or the network.

    Raises ConfigError for an unknown one, with the nearest name and all there are.
    """
    if spec in REGISTRY:
        return PolicySpec("registry", spec)
    prefix, colon, target = spec.partition(":")
    kind = _KINDS.get(prefix)
    if kind is None or not colon:
        raise ConfigError(f"unknown policy {spec!r}", _hint(spec))
    if not target.strip():
        raise ConfigError(f"policy {spec!r} names no model", f"write {_FORMS}, or one of {', '.join(REGISTRY)}")
    return PolicySpec(kind, target)


def open_policy(
    spec: str,
    *,
    progress: Report | None = None,
    base_url: str | None = None,
    reasoning_effort: str | None = None,
    price: tuple[float, float] | None = None,
    device: str | None = None,
    **options: Any,
) -> Policy:
    """Open the policy that `spec` names, fetching its model first where the registry knows it.

    base_url, reasoning_effort, price: of a policy on a server (see RemotePolicy). device: of an `hf:` policy. Others
    ignore them. options: further arguments of the engine's constructor.
    Raises ConfigError (no such name or file), ModelError (it cannot be fetched), PolicyError (it does not open).
    """
    chosen = resolve_policy_spec(spec)
    if chosen.kind in ("openai", "vllm+openai"):
        from dreamprm_cli.policy.remote import RemotePolicy

        return RemotePolicy(
            chosen.target, base_url=base_url, reasoning_effort=reasoning_effort, price=price,
            continues=chosen.kind == "vllm+openai", **options,
        )  # fmt: skip
    if chosen.kind == "vllm":
        from dreamprm_cli.policy.vllm import VllmPolicy

        return VllmPolicy(_vllm_model(chosen.target, progress), name=spec, **options)
    if chosen.kind == "hf":
        return _transformers(_hub_folder(chosen.target, spec, progress), spec, device, options)
    path = ensure(spec, progress) if chosen.kind == "registry" else Path(chosen.target).expanduser()
    if path.is_dir() and chosen.kind == "registry":
        return _transformers(str(path), spec, device, options)
    if not path.is_file():
        raise ConfigError(f"policy {spec}: no file {path}", "give the path of a .gguf file after `gguf:`")
    from dreamprm_cli.policy.llama_cpp import LlamaCppPolicy

    return LlamaCppPolicy(path, name=spec, **options)


def _hub_folder(target: str, spec: str, progress: Report | None) -> str:
    """A local folder as it is; else that of the hub's repository, fetched."""
    if Path(target).expanduser().is_dir():
        return str(Path(target).expanduser())
    info = ModelInfo(name=spec, repo=target, licence="unknown")
    return str(snapshot(info, progress or (lambda _: None)))


def _vllm_model(target: str, progress: Report | None) -> str:
    """What vLLM opens: the folder that a GGUF file is written out to, a folder, or a name for it to fetch."""
    from dreamprm_cli.prm.source import is_gguf, locate_causal

    if target not in REGISTRY and not is_gguf(target):
        folder = Path(target).expanduser()
        return str(folder) if folder.is_dir() else target
    try:
        return str(locate_causal(target, report=progress))
    except ImportError as error:
        raise PolicyError(f"vllm:{target} needs {error.name}", "pip install 'dreamprm[vllm]'") from None


def _transformers(target: str, spec: str, device: str | None, options: dict[str, Any]) -> Policy:
    from dreamprm_cli.policy.transformers import HFPolicy

    return HFPolicy(target, name=spec, device=None if device == "auto" else device, **options)


def _hint(spec: str) -> str:
    there = f"there are {_FORMS}, and {', '.join(REGISTRY)}"
    if spec.endswith(".gguf"):
        return f"did you mean gguf:{spec}? {there}"
    close = difflib.get_close_matches(spec.lower(), REGISTRY, n=1)
    if close:
        return f"did you mean {close[0]}? {there}"
    if spec.count("/") == 1:
        return f"did you mean hf:{spec}? {there}"
    return there
