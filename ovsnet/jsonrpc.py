"""JSON-RPC connections at C speed, under the transaction engine.

python-ovs parses what a server sends one character at a time when it has no compiled parser, and its wheels have none: the
reply that holds 100,000 leases takes it three seconds, during which no other thread gets on well. Here a regular expression
finds the end of a message, and the standard library's decoder reads it. See docs/decisions/0010.
"""

from __future__ import annotations

import codecs
import errno
import json
import re
from typing import Any

from ovs import jsonrpc

_CHUNK = 1 << 16  # bytes read at once; python-ovs' 4096 cost a system call each
# Up to the next brace, over strings as a whole. Written without possessive quantifiers: early Python 3.11 gets them wrong.
_TO_BRACE = re.compile(r'[^"{}]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"{}]*)*([{}]?)', re.DOTALL)


class Parser:
    """Takes a JSON object in pieces; the interface is that of `ovs.json.Parser`, which also reads other values."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._string = ""  # a string whose end has not come yet, which is in no part
        self._depth = 0
        self._done = False

    def feed(self, text: str) -> int:
        """Take the next piece; how many characters of it belong to the object."""
        before = len(self._string)
        text = self._string + text
        position = 0
        for match in _TO_BRACE.finditer(text):
            position = match.end()
            if match[1]:
                self._depth += 1 if match[1] == "{" else -1
            if self._depth <= 0 or not match[1]:
                break
        self._parts.append(text[:position])
        self._done = self._depth <= 0 and bool(text.strip())  # the end, or something that is no object
        self._string = "" if self._done else text[position:]
        return position - before if self._done else len(text) - before

    def is_done(self) -> bool:
        """Whether the object is complete, or cannot become one."""
        return self._done

    def finish(self) -> Any:
        """The object; a string that says what is wrong if it is none."""
        try:
            value = json.loads("".join(self._parts))
        except (ValueError, RecursionError) as exc:
            return str(exc)
        return value if isinstance(value, dict) else "not an object"


class Connection(jsonrpc.Connection):  # type: ignore[misc]  # python-ovs is not typed
    """A connection with that parser, and with a decoder that remembers a character cut in two between two reads."""

    input: str
    parser: Parser | None

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def recv(self) -> tuple[int, Any]:
        """The next message: (0, message), or (error number, None); EAGAIN when it has not come yet."""
        while not self.status:
            if self.input:
                if self.parser is None:
                    self.parser = Parser()
                self.input = self.input[self.parser.feed(self.input) :]
                if self.parser.is_done() and (message := self._Connection__process_msg()):
                    return 0, message
                continue
            error, data = self.stream.recv(_CHUNK)
            if error == errno.EAGAIN:
                return error, None
            if error or not data:
                self.error(error or jsonrpc.EOF)
                break
            try:
                self.input = self._decoder.decode(data)
            except UnicodeError:
                self.error(errno.EILSEQ)
            self.received_bytes += len(data)
        return self.status, None


def speed_up() -> None:
    """Have all of python-ovs' sessions use it; a session makes its connections by that name."""
    jsonrpc.Connection = Connection
