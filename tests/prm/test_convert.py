"""GGUF to a Hugging Face folder: same weights and tokens, written whole or not at all, once."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

from dreamprm_cli.errors import CheckpointError  # noqa: E402
from dreamprm_cli.prm.convert import hugging_face_name  # noqa: E402
from dreamprm_cli.prm.source import file_digest, locate_backbone, locate_causal, made_whole  # noqa: E402


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def write_model(path, tied=False):
    """A GGUF as llama.cpp's converter writes it, of a random 2-layer Qwen2, matrices in F16. tied: without LM head."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, "de", "def", "<|im_start|>", "<|im_end|>"]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 3])
    writer.add_token_merges(["d e", "de f"])
    writer.add_eos_token_id(len(tokens) - 1)
    draw = np.random.default_rng(0)

    def add(name, *shape, dtype=np.float16):
        writer.add_tensor(name, draw.normal(0, 0.3, shape).astype(dtype))

    add("token_embd.weight", len(tokens), 32)
    if not tied:
        add("output.weight", len(tokens), 32)
    add("output_norm.weight", 32, dtype=np.float32)
    for k in range(2):
        for name, rows in (("attn_q", 32), ("attn_k", 16), ("attn_v", 16)):
            add(f"blk.{k}.{name}.weight", rows, 32)
            add(f"blk.{k}.{name}.bias", rows, dtype=np.float32)
        add(f"blk.{k}.attn_output.weight", 32, 32)
        add(f"blk.{k}.ffn_gate.weight", 48, 32)
        add(f"blk.{k}.ffn_up.weight", 48, 32)
        add(f"blk.{k}.ffn_down.weight", 32, 48)
        add(f"blk.{k}.attn_norm.weight", 32, dtype=np.float32)
        add(f"blk.{k}.ffn_norm.weight", 32, dtype=np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_folder_opens_with_transformers_and_holds_the_files_weights(cache, model_file):
    from transformers import AutoModel, AutoTokenizer

    source = locate_backbone(f"gguf:{model_file}")
    assert source.sha256 == file_digest(model_file)
    model = AutoModel.from_pretrained(source.folder, dtype=torch.float32)
    weights = model.state_dict()
    for tensor in gguf.GGUFReader(model_file).tensors:
        name = hugging_face_name(tensor.name)
        if name is not None:
            stored = torch.tensor(np.array(tensor.data)).float()
            np.testing.assert_allclose(weights.pop(name), stored, rtol=2**-8)
    assert not weights  # every parameter came from the file
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer("def f<|im_end|>").input_ids) == ["def", "Ġ", "f", "<|im_end|>"]
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize("tied", [False, True])
def test_a_policys_folder_has_the_head_and_every_end_of_a_turn(cache, tmp_path, tied):
    from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig

    path = write_model(tmp_path / "policy.gguf", tied)
    folder = locate_causal(str(path))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    stored = tensors["token_embd.weight" if tied else "output.weight"]
    np.testing.assert_allclose(model.lm_head.weight.detach(), np.array(stored.data).astype(np.float32), rtol=2**-8)
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [len(tensors["token_embd.weight"].data) - 1]
    assert locate_causal(str(path)) == folder
    backbone = AutoModel.from_pretrained(locate_backbone(str(path)).folder, dtype=torch.float32)
    ids = torch.tensor([[1, 2]])
    with torch.inference_mode():
        expected = backbone(ids).last_hidden_state @ model.lm_head.weight.T
        np.testing.assert_allclose(model(ids).logits, expected, atol=1e-4)


def test_a_file_is_converted_once(cache, model_file):
    first = locate_backbone(str(model_file))
    written = (first.folder / "model.safetensors").stat().st_mtime_ns
    said = []
    assert locate_backbone(str(model_file), report=said.append) == first
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == written
    assert said == []


def test_two_processes_at_once_leave_one_whole_folder(cache, model_file):
    code = f"from dreamprm_cli.prm.source import locate_backbone; print(locate_backbone({str(model_file)!r}).folder)"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    [folder] = (cache / "backbones").iterdir()
    assert folders == {str(folder)}
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 2


def test_a_conversion_that_fails_leaves_nothing(cache):
    folder = cache / "backbones" / "x"

    def fail():
        with made_whole(folder) as scratch:
            (scratch / "half").write_text("")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(folder.parent.iterdir()) == []


def test_the_slower_of_two_keeps_the_others_folder(cache):
    folder = cache / "backbones" / "x"
    with made_whole(folder) as slow:
        with made_whole(folder) as quick:
            (quick / "file").write_text("quick")
        (slow / "file").write_text("slow")
    assert (folder / "file").read_text() == "quick"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 10])
def test_what_is_no_gguf_is_said_to_be_none(cache, tmp_path, content):
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable GGUF"):
        locate_backbone(str(tmp_path / "bad.gguf"))
    with pytest.raises(CheckpointError, match="no backbone file"):
        locate_backbone(str(tmp_path / "gone.gguf"))


def test_a_model_of_another_architecture_is_refused(cache, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="holds a llama model"):
        locate_backbone(str(tmp_path / "other.gguf"))


def test_a_changed_file_gets_a_new_digest(cache, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"one" * 10**6)
    first = file_digest(path)
    assert [first] == [json.loads(memo.read_text())["sha256"] for memo in (cache / "digests").iterdir()]
    path.write_bytes(b"other" * 10**6)
    assert file_digest(path) == hashlib.sha256(b"other" * 10**6).hexdigest() != first
