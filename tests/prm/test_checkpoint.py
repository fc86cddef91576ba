import dataclasses
import json

import numpy as np
import pytest

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm.checkpoint import Checkpoint, check_backbone, load, resolve, save
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.source import BackboneSource

HIDDEN = 8
CONFIG = {"model_type": "qwen2", "hidden_size": HIDDEN, "num_hidden_layers": 4}


def checkpoint(**changes):
    weight = np.linspace(-1, 1, 2 * HIDDEN, dtype=np.float32)
    whole = Checkpoint(
        backbone="tiny", backbone_sha256="ab" * 32, layers=(2, 4), head=Head(weight, 0.25, 1.5, -0.1), hidden=HIDDEN,
        step_token="<|fim_pad|>", max_length=100, code_reserve=40, aggregation="min", data_sha256="cd" * 32,
        metrics={"auc": 0.7},
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)


@pytest.fixture
def folder(tmp_path):
    save(checkpoint(), tmp_path / "prm", CONFIG)
    return tmp_path / "prm"


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path):
    saved = checkpoint(pooling="last+mean", head=Head(np.linspace(-1, 1, 4 * HIDDEN, dtype=np.float32), 0.25))
    save(saved, tmp_path / "prm", CONFIG)
    read = load(tmp_path / "prm")
    for f in dataclasses.fields(Checkpoint):
        if f.name != "head":
            assert getattr(read, f.name) == getattr(saved, f.name)
    features = np.random.default_rng(0).normal(size=(5, 4 * HIDDEN)).astype(np.float32)
    np.testing.assert_array_equal(read.head.rewards(features), saved.head.rewards(features))


def test_the_folder_describes_a_token_classifier_of_as_many_layers_as_are_read(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForTokenClassification"]
    assert config["num_hidden_layers"] == 4
    assert config["num_labels"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template_version": 99}, "input template 99"),
        ({"splitter_version": 99}, "splitter 99"),
        ({"aggregation": "median"}, "unknown aggregation"),
        ({"unit": "token"}, "steps that are a 'token'"),
        ({"layers": [2]}, "a head of 16 weights for 1 layers"),
        ({"layers": []}, "layers"),
        ({"pooling": "last+mean"}, "a head of 16 weights for 2 layers of 8, last.mean"),
        ({"pooling": "median"}, "garbles unknown pooling 'median'"),
        ({"layers": "x"}, "garbles"),
        ({"calibration": {"temperature": 0.0, "offset": 0.0}}, "temperature"),
        ({"hidden_size": None}, "garbles"),
        ({"code_reserve": 100}, "code_reserve"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(folder, change, message):
    about = json.loads((folder / "dreamprm.json").read_text())
    (folder / "dreamprm.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_checkpoint_from_before_means_were_read_reads_last_tokens(folder):
    about = json.loads((folder / "dreamprm.json").read_text())
    del about["pooling"]
    (folder / "dreamprm.json").write_text(json.dumps(about))
    assert load(folder).pooling == "last"


@pytest.mark.parametrize("key", ["backbone", "backbone_sha256", "layers", "max_length", "step_token", "data_sha256"])
def test_a_missing_key_is_named(folder, key):
    about = json.loads((folder / "dreamprm.json").read_text())
    del about[key]
    (folder / "dreamprm.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match=key):
        load(folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_head_that_is_not_finite_is_neither_saved_nor_read(tmp_path, bad):
    weight = np.full(2 * HIDDEN, bad, dtype=np.float32)
    with pytest.raises(CheckpointError, match="not finite"):
        save(checkpoint(head=Head(weight, 0.0)), tmp_path, CONFIG)


@pytest.mark.parametrize("name", ["head.safetensors", "dreamprm.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_files_are_checkpoint_errors(folder, name, damage):
    path = folder / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(CheckpointError):
        load(folder)


def test_a_head_from_another_save_is_refused(folder, tmp_path):
    save(checkpoint(head=Head(np.ones(2 * HIDDEN, dtype=np.float32), 0.0)), tmp_path / "other", CONFIG)
    (folder / "head.safetensors").write_bytes((tmp_path / "other" / "head.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="not the file that was saved"):
        load(folder)


def test_another_backbone_is_refused(folder):
    check_backbone(load(folder), BackboneSource("tiny", "ab" * 32, folder))
    with pytest.raises(CheckpointError, match="trained on another file"):
        check_backbone(load(folder), BackboneSource("tiny", "00" * 32, folder))


def test_names_and_folders_resolve_and_others_say_what_there_is(folder):
    assert resolve(str(folder)) == folder
    with pytest.raises(CheckpointError, match="no PRM checkpoint 'nonsense'"):
        resolve("nonsense")
    with pytest.raises(CheckpointError):
        resolve("../prm")
