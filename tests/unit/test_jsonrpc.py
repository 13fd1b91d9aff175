"""The parser of JSON-RPC messages: whatever the pieces they come in, messages come out one by one."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsnet.jsonrpc import Connection, Parser

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


class Stream:
    """Stands in for `ovs.stream.Stream`: every read yields the next piece, an empty one is "not yet"."""

    name = "test"

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def recv(self, size: int) -> tuple[int, bytes]:
        if not self._pieces:
            return 0, b""
        piece = self._pieces.pop(0)
        assert len(piece) <= size
        return (0, piece) if piece else (errno.EAGAIN, b"")

    def close(self) -> None:
        """Nothing to close."""


def test_a_character_that_two_reads_cut_in_two() -> None:
    whole = '{"id":null,"method":"echo","params":["\u00e9"]}'.encode()
    cut = whole.index("\u00e9".encode()) + 1
    connection = Connection(Stream(whole[:cut], b"", whole[cut:] + whole))
    assert connection.recv() == (errno.EAGAIN, None)
    for _ in range(2):
        error, message = connection.recv()
        assert (error, message.params) == (0, ["\u00e9"])
    error, message = connection.recv()
    assert (error, message) == (connection.get_status(), None)
    assert error


@pytest.mark.parametrize("sent", [b"[]", b"\xff", b"{}", b"x"])
def test_what_is_no_message_ends_the_connection(sent: bytes) -> None:
    connection = Connection(Stream(sent, b""))
    error, message = connection.recv()
    assert message is None
    assert error in (errno.EPROTO, errno.EILSEQ)
