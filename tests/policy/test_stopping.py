from hypothesis import given
from hypothesis import strategies as st

from dreamprm_cli.policy.stopping import FenceStop

TEXTS = st.text(st.sampled_from("`\n aé🙂"), max_size=30)


def run(pieces: list[bytes], prefill: str = "```python\n") -> tuple[str, bool]:
    stop = FenceStop(prefill)
    text = "".join(stop.feed(piece) for piece in pieces) + stop.finish()
    return text, stop.stopped


def expected(text: str, prefill: str) -> tuple[str, bool]:
    """The definition, on whole lines: everything before the first line of the completion that opens with a fence."""
    whole = "\n" + prefill + text
    at = whole.find("\n```", max(0, len(prefill) + 1 - 3))
    return (text, False) if at < 0 else (whole[len(prefill) + 1 : at + 1], True)


@given(TEXTS, st.sampled_from(["```python\n", "", "```python\nx = 1", "```python\n`"]), st.data())
def test_any_cut_of_the_bytes_gives_the_same_text(text, prefill, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert run(pieces, prefill) == expected(text, prefill)


def test_nothing_of_a_possible_fence_is_told_early():
    stop = FenceStop("```python\n")
    assert [stop.feed(piece) for piece in (b"x\n", b"`", b"`", b"y\n", b"``")] == ["x\n", "", "", "``y\n", ""]
    assert stop.feed(b"`python") == ""
    assert stop.stopped
    assert stop.feed(b"more") == stop.finish() == ""


def test_a_fence_in_one_token_with_its_neighbours():
    assert run([b"x = 1", b"\n```\nDone."]) == ("x = 1\n", True)
    assert run([b"```"]) == ("", True)
    assert run([b" ```", b"\n"]) == (" ```\n", False)


def test_bytes_that_are_no_text_become_a_mark():
    assert run([b"\xf0\x9f", b"x"]) == ("\ufffdx", False)
    assert run([b"a\xf0\x9f"]) == ("a\ufffd", False)
