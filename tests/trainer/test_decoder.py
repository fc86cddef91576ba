"""The batched decoder agrees with transformers' own model and gives each candidate its own draw."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from dreamprm_cli.policy import Sampling, candidate_seed  # noqa: E402
from dreamprm_trainer.decoder import Decoder, Request  # noqa: E402

VOCAB = 160
CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCAB,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": CONFIG["rope_theta"]},
        **{key: value for key, value in CONFIG.items() if key != "rope_theta"},
    )
    model = transformers.Qwen2ForCausalLM(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():  # the default initialisation hardly tells one token from another
            parameter.normal_(0, 0.3) if parameter.ndim == 2 else parameter.uniform_(0.5, 1.5)
    return model


def _decoder(reference, ends=frozenset(), rows=4):
    weights = {name.removeprefix("model."): value for name, value in reference.state_dict().items()}
    return Decoder(weights, CONFIG, ends, rows=rows, length=96)


def _run(decoder, requests):
    waiting = iter(requests)
    return decoder.run(lambda: next(waiting, None))


def _greedy(reference, tokens, count):
    ids = torch.tensor([tokens])
    made, logprob = [], 0.0
    with torch.no_grad():
        for _ in range(count):
            scores = reference(ids).logits[0, -1].log_softmax(-1)
            made.append(int(scores.argmax()))
            logprob += float(scores.max())
            ids = torch.cat([ids, torch.tensor([[made[-1]]])], 1)
    return made, logprob


def test_greedy_completions_are_those_of_transformers(reference):
    prompts = [(5, 9, 17, 3), (1, 2, 3, 4, 5, 6, 7, 8, 9), (42,)]
    requests = [
        Request(str(n), prompt, (0, 1), Sampling(temperature=0, max_tokens=12 + n)) for n, prompt in enumerate(prompts)
    ]
    made = {(c.key, c.index): c for c in _run(_decoder(reference), requests)}  # 6 candidates share 4 rows
    assert len(made) == 6
    for number, prompt in enumerate(prompts):
        expected, logprob = _greedy(reference, prompt, 12 + number)
        for index in (0, 1):
            one = made[str(number), index]
            assert list(one.tokens) == expected
            assert one.logprob == pytest.approx(logprob, abs=1e-3)
            assert one.finish_reason == "length"


def test_a_draw_depends_on_its_seed_alone(reference):
    sampling = Sampling(temperature=1.0, max_tokens=20, seed=7)
    together = {c.index: c for c in _run(_decoder(reference), [Request("p", (3, 4), tuple(range(6)), sampling)])}
    alone = {c.index: c for c in _run(_decoder(reference, rows=1), [Request("p", (3, 4), (5, 2), sampling)])}
    assert all(together[index].tokens == alone[index].tokens for index in alone)
    assert len({c.tokens for c in together.values()}) == 6
    assert together[2].seed == candidate_seed(7, 2)


def test_an_end_token_stops_and_is_not_part_of_the_completion(reference):
    whole, _ = _greedy(reference, (5, 9), 10)
    end = whole[4]
    cut = whole.index(end)
    (made,) = _run(
        _decoder(reference, frozenset([end])), [Request("p", (5, 9), (0,), Sampling(temperature=0, max_tokens=10))]
    )
    assert (list(made.tokens), made.finish_reason) == (whole[:cut], "stop")


def test_a_prompt_that_leaves_no_room_gives_an_empty_completion(reference):
    requests = [
        Request("long", tuple(range(90)), (0,), Sampling(max_tokens=7)),
        Request("short", (1,), (0,), Sampling(temperature=0, max_tokens=3)),
    ]
    made = {c.key: c for c in _run(_decoder(reference), requests)}
    assert (made["long"].tokens, made["long"].finish_reason) == ((), "length")
    assert len(made["short"].tokens) == 3


def test_a_prompt_goes_on_from_what_is_encoded_already(reference):
    decoder = _decoder(reference)
    encoded = []
    whole = decoder._encode
    decoder._encode = lambda tokens, shared, parent: (
        encoded.append(len(tokens) - shared) or whole(tokens, shared, parent)
    )
    problem, sampling = tuple(range(30)), Sampling(temperature=0, max_tokens=8)
    prompts = {"a": (*problem, 40, 41), "b": (*problem, 50), "a again": (*problem, 40, 41), "longer": (*problem, 50, 7)}
    made = {c.key: c for c in _run(decoder, [Request(key, tokens, (0,), sampling) for key, tokens in prompts.items()])}
    assert encoded == [32, 1, 1]
    for key, tokens in prompts.items():
        assert list(made[key].tokens) == _greedy(reference, tokens, 8)[0]


def test_more_may_be_asked_for_while_it_runs(reference):
    sampling = Sampling(temperature=0, max_tokens=3)
    waiting = [Request("first", (3,), (0,), sampling)]
    made = []
    for completion in _decoder(reference).run(lambda: waiting.pop() if waiting else None):
        made.append(completion.key)
        if len(made) == 1:
            waiting.append(Request("second", (4,), (0, 1), sampling))
    assert made == ["first", "second", "second"]
