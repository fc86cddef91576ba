"""From what a user types after `--prm` to an open Scorer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.models import Report
from dreamprm_cli.prm import Scorer

if TYPE_CHECKING:
    from dreamprm_cli.prm.scorer import PackedScorer


def open_scorer(
    spec: str,
    *,
    device: str = "auto",
    dtype: Literal["auto", "bf16", "fp32"] = "auto",
    progress: Report | None = None,
) -> Scorer | None:
    """The checkpoint `spec` (a folder or a name shipped with the package) on `device`; None for "none".

    dtype: auto is bf16 where the machine computes in it. Fetches and converts the backbone the first time.
    Raises CheckpointError or ModelError.
    """
    return None if spec == "none" else open_packed(spec, device=device, dtype=dtype, progress=progress)


def open_packed(
    spec: str,
    *,
    device: str = "auto",
    dtype: Literal["auto", "bf16", "fp32"] = "auto",
    progress: Report | None = None,
) -> PackedScorer:
    """As `open_scorer`, the scorer by its own type."""
    try:
        import torch

        from dreamprm_cli.prm.backbone import load_backbone
        from dreamprm_cli.prm.checkpoint import backbone_of, check_backbone, load, load_adapter, resolve
        from dreamprm_cli.prm.scorer import PackedScorer
        from dreamprm_cli.prm.source import locate_backbone
    except ImportError as error:
        raise CheckpointError(
            f"the PRM needs {error.name}", "pip install 'dreamprm[prm]', or --prm none to rank without it"
        ) from None
    folder = resolve(spec)
    checkpoint = load(folder)
    if checkpoint.unit != "function":
        raise CheckpointError(
            f"{folder} scores every {checkpoint.unit}, not functions", "it is for `dreamprm bench --rival`"
        )
    source = locate_backbone(backbone_of(checkpoint, folder), report=progress)
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
        head=checkpoint.head,
        name=spec,
        forms=checkpoint.forms,
        step_token=checkpoint.step_token,
        max_length=checkpoint.max_length,
        code_reserve=checkpoint.code_reserve,
    )
