"""A PRM checkpoint: a Hugging Face style folder of adapter and head; the backbone is named, and copied only where all
of it was trained.

    config.json              the token-classification model it makes with its backbone (num_labels 1)
    head.safetensors         score.weight (1, F), score.bias (1,); fp32, F as in `pooling`
    adapter_config.json, adapter_model.safetensors    a PEFT LoRA adapter, where the backbone is not frozen
    backbone/                a whole backbone, where it was fine-tuned without an adapter (then named `./backbone`)
    dreamprm.json            what must fit: backbone digest, template and splitter versions, layers, calibration, data,
                             and the digests of the files above

Everything is checked when it is loaded: scores from a PRM that reads other text than it was trained on are noise.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamprm_cli.aggregate import AGGREGATIONS
from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm.adapter import ADAPTER_FILES, read_json
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.pooling import Pooling, known, width
from dreamprm_cli.prompts import PRM_TEMPLATE_VERSION
from dreamprm_cli.steps import SPLITTER_VERSION

if TYPE_CHECKING:
    from dreamprm_cli.prm.source import BackboneSource, GGUFSource

SCHEMA_VERSION = 1
SHIPPED = Path(__file__).parent / "checkpoints"
_ABOUT = "dreamprm.json"
_HEAD = "head.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a scorer needs besides the backbone.

    layers: whose states the head reads, counted from 1, side by side in this order; pooling: which states of a step.
    unit: what a step is: "function", or "line" for experiments (such a checkpoint is judged, but cannot score live).
    logprob_weight: of the policy's mean log-probability beside the reward, where programs are ranked
    (`aggregate.standing`).
    forms: kinds of problem it has learned from (`prompts.problem_form`); empty when not recorded.
    data_sha256: digest of the training data; metrics: held-out results, as the trainer recorded them.
    """

    backbone: str
    backbone_sha256: str
    layers: tuple[int, ...]
    head: Head
    hidden: int
    pooling: Pooling = "last"
    step_token: str | None = None
    max_length: int = 4096
    code_reserve: int = 1536
    aggregation: str = "mean"
    logprob_weight: float = 0.0
    unit: str = "function"
    forms: tuple[str, ...] = ()
    data_sha256: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    template_version: int = PRM_TEMPLATE_VERSION
    splitter_version: int = SPLITTER_VERSION

    def about(self) -> dict[str, Any]:
        """The content of `dreamprm.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "backbone": self.backbone,
            "backbone_sha256": self.backbone_sha256,
            "hidden_size": self.hidden,
            "layers": list(self.layers),
            "pooling": self.pooling,
            "template_version": self.template_version,
            "splitter_version": self.splitter_version,
            "step_token": self.step_token,
            "max_length": self.max_length,
            "code_reserve": self.code_reserve,
            "aggregation": self.aggregation,
            "logprob_weight": self.logprob_weight,
            "unit": self.unit,
            "calibration": {"temperature": self.head.temperature, "offset": self.head.offset},
            "forms": list(self.forms),
            "data_sha256": self.data_sha256,
            "metrics": dict(self.metrics),
        }


def resolve(spec: str) -> Path:
    """The folder of a checkpoint given by path, or by the name of a shipped one. Raises CheckpointError."""
    folder = Path(spec).expanduser()
    if (folder / _ABOUT).is_file():
        return folder
    if (SHIPPED / spec / _ABOUT).is_file() and Path(spec).name == spec:
        return SHIPPED / spec
    names = ", ".join(sorted(p.parent.name for p in SHIPPED.glob(f"*/{_ABOUT}"))) or "none"
    raise CheckpointError(f"no PRM checkpoint {spec!r}", f"give a folder with {_ABOUT}, or a shipped name: {names}")


def save(checkpoint: Checkpoint, folder: Path, backbone_config: Mapping[str, Any], adapter: Path | None = None) -> None:
    """Write the checkpoint. Raises CheckpointError on a bad head.

    backbone_config: the backbone's `config.json`. adapter: a folder that PEFT's `save_pretrained` wrote, or None.
    """
    from safetensors.numpy import save

    _check(checkpoint, str(folder))
    weight = checkpoint.head.weight.astype(np.float32).reshape(1, -1)
    config = {
        **backbone_config,
        "architectures": ["Qwen2ForTokenClassification"],
        "num_hidden_layers": max(checkpoint.layers),
        "num_labels": 1,
        "id2label": {"0": "correct"},
        "label2id": {"correct": 0},
    }
    if "layer_types" in backbone_config:
        config["layer_types"] = backbone_config["layer_types"][: max(checkpoint.layers)]
    files = {
        "config.json": _json(config),
        _HEAD: save({"score.weight": weight, "score.bias": np.array([checkpoint.head.bias], np.float32)}),
    }
    if adapter is not None:
        files |= {name: (adapter / name).read_bytes() for name in ADAPTER_FILES}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _ABOUT).unlink(missing_ok=True)  # a save that is cut off leaves no checkpoint, not half another one
    for name in ADAPTER_FILES:
        (folder / name).unlink(missing_ok=True)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    for name, content in {**files, _ABOUT: _json({**checkpoint.about(), "files": digests})}.items():
        (folder / name).write_bytes(content)


def load(folder: Path) -> Checkpoint:
    """Read and check a checkpoint. Raises CheckpointError saying what is missing, damaged or does not fit."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    about = read_json(folder / _ABOUT)
    _check_files(folder, about)
    try:
        tensors = load_file(folder / _HEAD)
        calibration = about.get("calibration") or {"temperature": 1.0, "offset": 0.0}
        checkpoint = Checkpoint(
            backbone=str(about["backbone"]),
            backbone_sha256=str(about["backbone_sha256"]),
            layers=tuple(int(layer) for layer in about["layers"]),
            head=Head(
                tensors["score.weight"].reshape(-1).astype(np.float32),
                float(tensors["score.bias"].reshape(-1)[0]),
                float(calibration["temperature"]),
                float(calibration["offset"]),
            ),
            hidden=int(about["hidden_size"]),
            pooling=known(str(about.get("pooling", "last"))),
            step_token=about["step_token"],
            max_length=int(about["max_length"]),
            code_reserve=int(about["code_reserve"]),
            aggregation=str(about["aggregation"]),
            logprob_weight=float(about.get("logprob_weight") or 0.0),
            unit=str(about.get("unit", "function")),
            forms=tuple(about.get("forms") or ()),
            data_sha256=str(about["data_sha256"]),
            metrics=about.get("metrics") or {},
            template_version=int(about["template_version"]),
            splitter_version=int(about["splitter_version"]),
        )
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {folder / _HEAD}: {error}", "the checkpoint is damaged") from None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{folder}: {_ABOUT} or {_HEAD} lacks or garbles {error}", "train it again") from None
    _check(checkpoint, str(folder))
    return checkpoint


def backbone_of(checkpoint: Checkpoint, folder: Path) -> str:
    """What `locate_backbone` takes: a name that starts with `./` is a folder inside the checkpoint's `folder`."""
    return str(folder / checkpoint.backbone) if checkpoint.backbone.startswith("./") else checkpoint.backbone


def check_backbone(checkpoint: Checkpoint, source: BackboneSource | GGUFSource) -> None:
    """Raise CheckpointError when the backbone at hand is not the one that the head was trained on."""
    if checkpoint.backbone_sha256 != source.sha256:
        raise CheckpointError(
            f"the PRM was trained on another file of {checkpoint.backbone} ({checkpoint.backbone_sha256[:12]}...)",
            f"the file here has SHA-256 {source.sha256[:12]}...: fetch the right one with `dreamprm models pull`",
        )


def _check(checkpoint: Checkpoint, where: str) -> None:
    head = checkpoint.head
    wrong = ""
    if checkpoint.template_version != PRM_TEMPLATE_VERSION:
        wrong = f"input template {checkpoint.template_version}, this version writes {PRM_TEMPLATE_VERSION}"
    elif checkpoint.splitter_version != SPLITTER_VERSION:
        wrong = f"splitter {checkpoint.splitter_version}, this version splits as {SPLITTER_VERSION}"
    elif checkpoint.aggregation not in AGGREGATIONS:
        wrong = f"unknown aggregation {checkpoint.aggregation!r}"
    elif not 0 <= checkpoint.logprob_weight < math.inf:
        wrong = f"a weight of log-probability of {checkpoint.logprob_weight}"
    elif checkpoint.unit not in ("function", "line"):
        wrong = f"steps that are a {checkpoint.unit!r} each"
    elif not checkpoint.layers or min(checkpoint.layers) < 1:
        wrong = f"layers {list(checkpoint.layers)}"
    elif head.weight.shape != (len(checkpoint.layers) * width(checkpoint.pooling) * checkpoint.hidden,):
        states = f"{len(checkpoint.layers)} layers of {checkpoint.hidden}, {checkpoint.pooling}"
        wrong = f"a head of {head.weight.size} weights for {states}"
    elif not (np.isfinite(head.weight).all() and all(map(math.isfinite, (head.bias, head.temperature, head.offset)))):
        wrong = "a head with numbers that are not finite"
    elif not 0 < checkpoint.code_reserve < checkpoint.max_length:
        wrong = f"code_reserve {checkpoint.code_reserve} of max_length {checkpoint.max_length}"
    elif head.temperature <= 0:
        wrong = f"temperature {head.temperature}"
    if wrong:
        raise CheckpointError(f"{where}: {wrong}", "use a checkpoint made for this version, or train one")


def _check_files(folder: Path, about: Mapping[str, Any]) -> None:
    """The files are those that were saved together, and no adapter lies there from before."""
    known = about.get("files")
    if not isinstance(known, dict):
        return  # written before digests were
    present = {name for name in ADAPTER_FILES if (folder / name).exists()}
    for name in sorted(present | set(known)):
        path = folder / str(name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if known.get(name) != digest:
            raise CheckpointError(f"{path} is not the file that was saved", "copy the checkpoint again, whole")


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
