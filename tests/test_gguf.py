"""Our reader of GGUF files against the gguf package's, and against damage."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from dreamprm_cli.models import cache_dir  # noqa: E402
from dreamprm_cli.models.gguf import read_gguf  # noqa: E402

REAL = cache_dir() / "models" / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
KINDS = [gguf.GGMLQuantizationType[name] for name in ("Q8_0", "Q4_0", "Q5_1", "BF16")]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Every kind of value that the package writes, and tensors of several types."""
    path = tmp_path_factory.mktemp("gguf") / "all.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    for kind, value in (("uint8", 7), ("int8", -7), ("uint16", 700), ("int16", -700), ("uint32", 70000)):
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    for kind, value in (("int32", -70000), ("uint64", 1 << 40), ("int64", -(1 << 40)), ("float32", 0.5)):
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    writer.add_float64("a.float64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "ünï\n")
    writer.add_array("a.strings", ["", "b", "日本"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.floats", [0.25, 0.5])
    draw = np.random.default_rng(0)
    writer.add_tensor("vector", draw.normal(size=5).astype(np.float32))
    writer.add_tensor("half", draw.normal(size=(3, 4)).astype(np.float16))
    for kind in KINDS:
        values = gguf.quantize(draw.normal(size=(3, 64)).astype(np.float32), kind)
        writer.add_tensor(kind.name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def same(path: Path) -> None:
    theirs, ours = gguf.GGUFReader(path), read_gguf(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.fields == fields
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.tensors[tensor.name].values(), expected)


def test_it_reads_what_the_package_reads(written):
    same(written)


@pytest.mark.model
def test_it_reads_the_real_file(written):
    if not REAL.exists():
        pytest.skip(f"needs {REAL.name}: dreamprm models pull qwen2.5-coder-0.5b")
    theirs, ours = gguf.GGUFReader(REAL), read_gguf(REAL)
    assert ours.fields["tokenizer.ggml.tokens"] == theirs.fields["tokenizer.ggml.tokens"].contents()
    for tensor in theirs.tensors[:20]:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.tensors[tensor.name].values(), expected)


def test_a_file_cut_anywhere_is_a_value_error(written, tmp_path):
    whole = written.read_bytes()
    for length in range(1, len(whole), 7):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="it "):
            read_gguf(cut)


def test_a_damaged_file_is_a_value_error_or_reads_otherwise(written, tmp_path):
    whole = bytearray(written.read_bytes())
    head = whole.index(b"BF16")
    draw = np.random.default_rng(1)
    for _ in range(300):
        bad = bytearray(whole)
        for place in draw.integers(0, head, 3):
            bad[place] = draw.integers(256)
        (tmp_path / "bad.gguf").write_bytes(bad)
        with contextlib.suppress(ValueError):
            assert read_gguf(tmp_path / "bad.gguf").fields
