"""From what a user types after `--prm` to an open Scorer, and which engine it computes with."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.models import Report
from dreamprm_cli.prm import Scorer

if TYPE_CHECKING:
    from dreamprm_cli.prm.checkpoint import Checkpoint
    from dreamprm_cli.prm.llama_cpp import LlamaScorer
    from dreamprm_cli.prm.scorer import PackedScorer

_WITHOUT = "or --prm none to rank without it"


def open_scorer(
    spec: str,
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: Literal["auto", "bf16", "fp32"] = "auto",
    progress: Report | None = None,
) -> Scorer | None:
    """The checkpoint `spec` (a folder or a name shipped with the package) on `device`; None for "none".

    spec: also `http[s]://HOST:PORT`, a `dreamprm serve` elsewhere, or `vllm+http[s]://HOST:PORT`, a `vllm serve` of
    what `dreamprm prm export` wrote; the rest is for checkpoints. engine: "torch",
    "llama" or "auto", see `pick_engine`. dtype: torch's; auto is bf16 where the machine computes in it. Fetches and
    converts the backbone the first time. Raises CheckpointError, ModelError or ScorerError.
    """
    if spec.startswith(("http://", "https://")):
        from dreamprm_cli.prm.remote import RemoteScorer

        return RemoteScorer(spec)
    if spec.startswith(("vllm+http://", "vllm+https://")):
        try:
            from dreamprm_cli.prm.vllm import VllmScorer

            return VllmScorer(spec)
        except ImportError as error:
            raise CheckpointError(f"{spec} needs {error.name}", f"pip install 'dreamprm[prm]', {_WITHOUT}") from None
    if spec == "none":
        return None
    if pick_engine(spec, engine, device) == "llama":
        return open_llama(spec, progress=progress)
    return open_packed(spec, device=device, dtype=dtype, progress=progress)


def pick_engine(spec: str, engine: str = "auto", device: str = "auto") -> str:
    """What "auto" stands for here: torch where it is installed and has a GPU or a processor with bf16, else llama.cpp.

    Torch also where llama.cpp is not installed or cannot read the checkpoint's backbone. Raises CheckpointError when
    neither is installed.
    """
    if engine != "auto":
        return engine
    torch, llama = _installed("torch"), _installed("llama_cpp")
    if not torch and not llama:
        raise CheckpointError(
            "the PRM needs torch or llama-cpp-python",
            f"pip install 'dreamprm[local]' (llama.cpp) or 'dreamprm[prm]' (torch), {_WITHOUT}",
        )
    if not llama or device not in ("auto", "cpu"):
        return "torch"
    if torch and (_native_bf16() or (device == "auto" and _gpu())):
        return "torch"
    return "llama" if _readable_by_llama(spec) else "torch"


def open_packed(
    spec: str,
    *,
    device: str = "auto",
    dtype: Literal["auto", "bf16", "fp32"] = "auto",
    progress: Report | None = None,
) -> PackedScorer:
    """As `open_scorer` with torch, the scorer by its own type."""
    try:
        import torch

        from dreamprm_cli.prm.adapter import load_adapter
        from dreamprm_cli.prm.backbone import load_backbone
        from dreamprm_cli.prm.checkpoint import backbone_of, check_backbone
        from dreamprm_cli.prm.scorer import PackedScorer
        from dreamprm_cli.prm.source import locate_backbone

        folder, checkpoint = read_checkpoint(spec)
        source = locate_backbone(backbone_of(checkpoint, folder), report=progress)
    except ImportError as error:
        raise CheckpointError(f"the PRM needs {error.name}", f"pip install 'dreamprm[prm]', {_WITHOUT}") from None
    check_backbone(checkpoint, source)
    backbone = load_backbone(
        source,
        depth=max(checkpoint.layers),
        device=None if device == "auto" else torch.device(device),
        dtype={"auto": None, "bf16": torch.bfloat16, "fp32": torch.float32}[dtype],
        adapter=load_adapter(folder),
    )
    return PackedScorer(
        backbone,
        layers=checkpoint.layers,
        pooling=checkpoint.pooling,
        head=checkpoint.head,
        name=spec,
        forms=checkpoint.forms,
        logprob_weight=checkpoint.logprob_weight,
        step_token=checkpoint.step_token,
        max_length=checkpoint.max_length,
        code_reserve=checkpoint.code_reserve,
    )


def open_llama(spec: str, *, progress: Report | None = None, threads: int | None = None) -> LlamaScorer:
    """As `open_scorer` with llama.cpp, the scorer by its own type. threads: default all physical cores."""
    try:
        from dreamprm_cli.prm.adapter import load_adapter
        from dreamprm_cli.prm.checkpoint import backbone_of, check_backbone
        from dreamprm_cli.prm.llama_cpp import LlamaScorer
        from dreamprm_cli.prm.source import locate_gguf

        folder, checkpoint = read_checkpoint(spec)
        source = locate_gguf(backbone_of(checkpoint, folder), report=progress)
        check_backbone(checkpoint, source)
        return LlamaScorer(
            source,
            layers=checkpoint.layers,
            pooling=checkpoint.pooling,
            head=checkpoint.head,
            adapter=load_adapter(folder),
            name=spec,
            forms=checkpoint.forms,
            logprob_weight=checkpoint.logprob_weight,
            step_token=checkpoint.step_token,
            max_length=checkpoint.max_length,
            code_reserve=checkpoint.code_reserve,
            threads=threads,
        )
    except ImportError as error:
        raise CheckpointError(
            f"the PRM on llama.cpp needs {error.name}", f"pip install 'dreamprm[local]', {_WITHOUT}"
        ) from None


def read_checkpoint(spec: str) -> tuple[Path, Checkpoint]:
    """The folder and what it says. Raises CheckpointError for one that cannot score functions."""
    from dreamprm_cli.prm.checkpoint import load, resolve

    folder = resolve(spec)
    checkpoint = load(folder)
    if checkpoint.unit != "function":
        raise CheckpointError(
            f"{folder} scores every {checkpoint.unit}, not functions", "it is for `dreamprm bench --rival`"
        )
    return folder, checkpoint


def _readable_by_llama(spec: str) -> bool:
    try:
        from dreamprm_cli.prm.checkpoint import backbone_of, load, resolve
        from dreamprm_cli.prm.source import is_gguf

        folder = resolve(spec)
        return is_gguf(backbone_of(load(folder), folder))
    except ImportError:
        return True  # the engine says what is missing


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def _native_bf16() -> bool:
    """Whether Linux says that the processor multiplies bf16. Torch knows too, and takes seconds to be asked."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def _gpu() -> bool:
    """Whether torch can use a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    import torch

    return torch.cuda.is_available()
