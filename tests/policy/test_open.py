"""Names of policies: parsed without touching anything, and opened or refused in one line."""

import pytest

from dreamprm_cli.errors import CheckpointError, ConfigError, ModelError
from dreamprm_cli.policy.open import PolicySpec, open_policy, resolve_policy_spec


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("gguf:/a/b.gguf", PolicySpec("gguf", "/a/b.gguf")),
        ("gguf:C:/b.gguf", PolicySpec("gguf", "C:/b.gguf")),
        ("hf:Qwen/Qwen2.5-Coder-3B", PolicySpec("hf", "Qwen/Qwen2.5-Coder-3B")),
        ("vllm:x", PolicySpec("vllm", "x")),
        ("vllm+openai:x", PolicySpec("vllm+openai", "x")),
        ("openai:org/model:free", PolicySpec("openai", "org/model:free")),
        ("qwen2.5-coder-1.5b", PolicySpec("registry", "qwen2.5-coder-1.5b")),
    ],
)
def test_specs(spec, expected):
    assert resolve_policy_spec(spec) == expected


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("qwen2.5-coder-1.5", "did you mean qwen2.5-coder-1.5b?"),
        ("model.gguf", "did you mean gguf:model.gguf?"),
        ("Someone/their-model", "did you mean hf:Someone/their-model?"),
        ("ollama:x", "there are gguf:PATH, hf:ORG/NAME, vllm:NAME, openai:NAME, and qwen2.5-coder-1.5b"),
        ("gguf:", "write gguf:PATH"),
        ("", "there are gguf:PATH"),
    ],
)
def test_unknown_specs_get_a_hint(spec, hint):
    with pytest.raises(ConfigError) as caught:
        resolve_policy_spec(spec)
    assert caught.value.hint.startswith(hint)


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(ConfigError, match="no file"):
        open_policy(f"gguf:{tmp_path}/none.gguf")
    with pytest.raises(CheckpointError, match="no backbone file"):
        open_policy(f"vllm:{tmp_path}/none.gguf")


def test_a_repository_that_cannot_be_fetched_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot fetch hf:nobody/nothing \(nobody/nothing\)"):
        open_policy("hf:nobody/nothing")


def test_a_remote_policy_takes_its_address():
    policy = open_policy("openai:m", base_url="http://127.0.0.1:9/v1", device="cpu")
    assert (policy.name, policy.prefills) == ("openai:m", False)
    policy.close()


@pytest.mark.model
def test_a_registry_name_opens_its_file():
    policy = open_policy("qwen2.5-coder-0.5b", base_url="http://ignored", device="auto", slots=1)
    try:
        assert (policy.name, policy.prefills) == ("qwen2.5-coder-0.5b", True)
    finally:
        policy.close()
