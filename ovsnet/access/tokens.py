"""Tokens for callers without peer credentials or a certificate: made here, shown once, kept as hashes.

The file is of this node, mode 0600, and replaced as a whole: a crash leaves the old one or the new one. A token is 256 random
bits, so that a plain SHA-256 keeps it: there is nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ovsnet.errors import AlreadyExists, Exhausted, NotFound, Unavailable

from .roles import Caller, Role

LOG = logging.getLogger(__name__)

PREFIX = "ovsnet"  # makes a token that went astray easy to find, as in `ovsnet_1a2b3c4d_...`
MAX_TOKENS = 1000
_BYTES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; times are seconds since the epoch."""

    id: str
    name: str
    role: Role
    created: float
    expires: float
    by: str  # the caller who made it
    digest: str  # SHA-256 of the token as it is sent, in hexadecimal digits

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return datetime.fromtimestamp(self.created, UTC)

    @property
    def expires_at(self) -> datetime:
        """From when it is worth nothing."""
        return datetime.fromtimestamp(self.expires, UTC)


class Tokens:
    """The tokens in the file `path`; None keeps them in memory only. Thread-safe.

    A file that cannot be understood is set aside and its tokens are worth nothing: a defect must let nobody in, nor keep
    containers from their networks.
    """

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = self._load()

    def create(self, name: str, role: Role, seconds: float, by: str) -> tuple[Token, str]:
        """A new token, and its text, which nobody can ask for again. AlreadyExists, Exhausted, Unavailable."""
        with self._lock:
            now = self._clock()
            standing = {ident: one for ident, one in self._tokens.items() if one.expires > now}
            if any(one.name == name for one in standing.values()):
                raise AlreadyExists(f"there is a token {name!r}", hint="revoke it first, or choose another name")
            if len(standing) >= MAX_TOKENS:
                raise Exhausted(f"there are {MAX_TOKENS} tokens", hint="revoke those that nobody needs")
            ident = secrets.token_hex(4)
            while ident in standing:
                ident = secrets.token_hex(4)
            text = f"{PREFIX}_{ident}_{secrets.token_urlsafe(_BYTES)}"
            token = Token(ident, name, role, now, now + seconds, by, _digest(text))
            self._save(standing | {ident: token})
        return token, text

    def all(self) -> list[Token]:
        """Those that are worth something, by name."""
        now = self._clock()
        with self._lock:
            return sorted((one for one in self._tokens.values() if one.expires > now), key=lambda one: one.name)

    def get(self, ref: str) -> Token:
        """The token of that name or id; NotFound."""
        found = next((one for one in self.all() if ref in (one.id, one.name)), None)
        if found is None:
            raise NotFound(f"there is no token {ref[:80]!r}", hint="see `ovsnet token ls`")
        return found

    def revoke(self, ref: str) -> None:
        """Let the token of that name or id be worth nothing from now on; NotFound, Unavailable."""
        token = self.get(ref)
        with self._lock:
            self._save({ident: one for ident, one in self._tokens.items() if ident != token.id})

    def caller(self, text: str) -> Caller | None:
        """Who sends this token; None if it is none, has ended or was revoked."""
        _, _, rest = text.partition("_")
        token = self._tokens.get(rest.partition("_")[0])
        digest = "" if token is None else token.digest
        same = hmac.compare_digest(_digest(text), digest)
        if token is None or not same or token.expires <= self._clock():
            return None
        return Caller(f"token:{token.name}", token.role)

    def _load(self) -> dict[str, Token]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))
            tokens = [Token(**row | {"role": Role(row["role"])}) for row in rows]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
            aside = self._path.with_name(f"{self._path.name}.broken")
            LOG.error("the tokens in %s are void, for they cannot be read (%s); see %s", self._path, exc, aside)
            try:
                self._path.replace(aside)
            except OSError as error:
                LOG.error("%s cannot be moved: %s", self._path, error)
            return {}
        return {one.id: one for one in tokens}

    def _save(self, tokens: dict[str, Token]) -> None:
        """Put these in the place of all; the lock is held."""
        if self._path is not None:
            new = self._path.with_name(f"{self._path.name}.new")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                new.unlink(missing_ok=True)
                with open(new, "x", encoding="utf-8", opener=_private) as file:
                    json.dump([asdict(one) for one in tokens.values()], file)
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(self._path)
                _sync(self._path.parent)
            except OSError as exc:
                raise Unavailable(f"the tokens cannot be written to {self._path}: {exc}", hint="make room") from exc
        self._tokens = tokens


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(directory: Path) -> None:
    """Have the new name itself on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
