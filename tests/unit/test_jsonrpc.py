"""The parser of JSON-RPC messages: whatever the pieces they come in, messages come out one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsnet.jsonrpc import Parser

TEXT = st.text() | st.text('{}[]"\\,:')
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


def parse(pieces: list[str]) -> list[Any]:
    """What a connection gets out of these reads."""
    found = []
    parser = Parser()
    for piece in pieces:
        rest = piece
        while rest:
            used = parser.feed(rest)
            assert parser.is_done() or used == len(rest)
            rest = rest[used:]
            if parser.is_done():
                found.append(parser.finish())
                parser = Parser()
    return found


@given(st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=3), st.booleans(), st.integers(1, 9))
def test_messages_in_pieces(messages: list[dict[str, Any]], ascii_only: bool, size: int) -> None:
    text = "".join(json.dumps(message, ensure_ascii=ascii_only) for message in messages)
    assert parse([text[start : start + size] for start in range(0, len(text), size)]) == messages


@pytest.mark.parametrize("text", ["[1]", "x", "}", '"a', '{"a":}', "{]}", '{"a" 1}', "null", "{" * 9 + "x" + "}" * 9])
def test_anything_else_is_an_error_in_words(text: str) -> None:
    parser = Parser()
    parser.feed(text)
    assert parser.is_done()
    assert isinstance(parser.finish(), str)


def test_space_between_messages_is_skipped() -> None:
    assert parse([" \n{", "} \n", " {}"]) == [{}, {}]
