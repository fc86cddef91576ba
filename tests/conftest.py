"""What holds for all tests: the user's own settings do not reach them, and no machine is too slow for them."""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from dreamprm_cli.config import KEYS

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell's background jobs ignore Ctrl-C, and hand that down to the processes whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _no_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, _no_config: Path) -> None:
    for key in KEYS:
        monkeypatch.delenv(f"DREAMPRM_{key.upper()}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(_no_config))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a random 3-layer Qwen2 of a few thousand weights and a byte tokenizer: everything but
    its size is real."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2Config, Qwen2Model

    folder = tmp_path_factory.mktemp("tiny-qwen2")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, rope_theta=10000.0,
    )  # fmt: skip
    model = Qwen2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():  # the usual start is too tame to tell layers and positions apart
            parameter.normal_(0.3 if parameter.dim() == 1 else 0.0, 0.3)
    model.save_pretrained(folder)
    return folder
