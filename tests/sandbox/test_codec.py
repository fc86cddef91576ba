"""The codec: any plain value survives, any bytes are survived."""

import contextlib
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm_sandbox import codec
from dreamprm_sandbox.codec import CodecError, Opaque, TooLarge, decode, encode

text = st.text(st.characters(), max_size=20)  # lone surrogates too
hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | text
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=12,
)
values = st.recursive(
    hashable | st.binary(max_size=20).map(bytearray) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.sets(hashable, max_size=5)
        | st.dictionaries(hashable, inner, max_size=5)
    ),
    max_leaves=30,
)


def same(a: Any, b: Any) -> bool:
    """Equal in type, value and sign, NaN for NaN, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@given(values)
def test_a_plain_value_survives_the_round_trip(value):
    assert same(decode(encode(value)), value)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_value_or_a_codec_error(data):
    with contextlib.suppress(CodecError):
        decode(data)


@given(values, st.data())
def test_damaged_bytes_are_a_value_or_a_codec_error(value, data):
    good = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(CodecError):
        decode(bytes(good[:cut]))


class Liar(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__

    def __index__(self):
        return 3


class LyingList(list):
    def __iter__(self):
        return iter([42])

    def __len__(self):
        return 1


class LyingDict(dict):
    def items(self):
        return [("answer", 42)]


class LyingText(str):
    def encode(self, *args):
        return b"42"


class Meta(type):
    __hash__ = type.__hash__

    def __eq__(cls, other):
        return True

    @property
    def __mro__(cls):
        return (int, object)


class Anything(metaclass=Meta):
    def __eq__(self, other):
        return True


@pytest.mark.parametrize(
    ("value", "base"),
    [(Liar(9), 9), (LyingList([1, 2]), [1, 2]), (LyingDict(a=1), {"a": 1}), (LyingText("x"), "x")],
)
def test_a_subclass_is_collapsed_to_what_it_is_at_its_base(value, base):
    got = decode(encode(value))
    assert type(got) is type(base)
    assert got == base


@pytest.mark.parametrize("value", [object(), Anything(), print, (x for x in ()), range(3), {}.keys(), int])
def test_what_is_not_plain_arrives_as_opaque(value):
    assert isinstance(decode(encode([value]))[0], Opaque)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", [nested(codec.MAX_DEPTH + 1), nested(10**6), cyclic(), [0] * (codec.MAX_NODES + 1), "x" * codec.MAX_BYTES]
)
def test_values_beyond_the_caps_are_refused_by_the_writer(value):
    with pytest.raises(TooLarge):
        encode(value)
    while isinstance(value, list) and value:  # a deep list would overflow the stack of the garbage collector's caller
        value = value.pop() if len(value) == 1 and value[0] is not value else None


def test_nesting_beyond_the_cap_is_refused_by_the_reader():
    with pytest.raises(TooLarge):
        decode((b"l" + struct.pack("!I", 1)) * (codec.MAX_DEPTH + 2) + b"N")


def test_more_items_than_bytes_are_refused_before_anything_is_made():
    with pytest.raises(CodecError):
        decode(b"l" + struct.pack("!I", 2**32 - 1))


def test_a_set_made_to_collide_is_refused():
    numbers = [(2**61 - 1) * i for i in range(1000)]
    with pytest.raises(TooLarge):
        decode(encode(numbers).replace(b"l", b"e", 1))
    assert len(decode(encode(set(range(100_000))))) == 100_000


def test_a_number_of_many_digits_passes_without_being_printed():
    assert decode(encode(10**100_000)) == 10**100_000
