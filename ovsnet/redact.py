"""What must not leave a host in a support bundle is taken out here. Pure.

In two nets. What may hold anything is shown only as far as it is known to be harmless: of labels the keys, of CNI
configurations the keys that we know, of the environment the names. What looks like a secret by its key is remembered as well, and
its value taken out of every text, wherever it turns up; so are the usual forms of passwords in texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "[redacted]"

_SUSPECT: Final = (
    r"pass(?:word|wd|phrase)?|secret|token|credential|psk|bearer|api[_.\-]?key|private[_.\-]?key|authorization"
)
_LOOKS_SECRET = re.compile(rf"(?i){_SUSPECT}|(?:^|[_.\-])key$")
_LEAST = 5  # characters of a value that is taken out wherever it is; a shorter one would take half of the text along
_FORMS: Final = (
    # -----BEGIN PRIVATE KEY-----, and what follows
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), REDACTED),
    # user:password@host in a URL
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{REDACTED}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~\-]{8,}"), rf"\1 {REDACTED}"),
    # password=..., "token": "..."
    (
        re.compile(
            rf"""(?i)([\w.\-]*(?:{_SUSPECT})[\w.\-]*\\?["']?\s*[=:]\s*\\?["']?)(?!\[redacted\])[^\s"',;&\\}}]+"""
        ),
        rf"\1{REDACTED}",
    ),
)
# Keys of CNI configurations whose values say nothing but what a network is like.
_HARMLESS: Final = frozenset(
    (
        *("cniVersion", "cniVersions", "name", "type", "network", "pool", "subnet", "gateway", "rangeStart"),
        *("rangeEnd", "dst", "gw", "bridge", "log_level", "vlan", "mtu", "mode", "address", "isGateway"),
        *("isDefaultGateway", "ipMasq", "hairpinMode", "promiscMode", "disableCheck", "forceAddress", "id"),
        *("minID", "maxID", "trunk", "default", "version", "priority", "table", "scope", "advmss"),
    )
)


class Redactor:
    """Takes out secrets, and remembers them, so that they are taken out of every later text too. `kept` are labels' keys whose
    values are ours, and may be shown.
    """

    def __init__(self, kept: frozenset[str] = frozenset()) -> None:
        self._kept = kept
        self._secrets: set[str] = set()

    def values(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """Keys with their values, but for those that look secret."""
        return {key: self._hide(key, value) if _LOOKS_SECRET.search(key) else value for key, value in mapping.items()}

    def labels(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """Keys without values: who labels something may write anything."""
        return {key: value if key in self._kept else self._hide(key, value) for key, value in mapping.items()}

    def names(self, environment: Mapping[str, str]) -> list[str]:
        """Names of variables."""
        self.labels(environment)
        return sorted(environment)

    def configuration(self, value: Any, key: str = "") -> Any:
        """A CNI configuration: its form, and the values of keys that are known to be harmless."""
        if isinstance(value, dict):
            return {name: self.configuration(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [self.configuration(one, key) for one in value]
        return value if key in _HARMLESS or value is None or isinstance(value, bool) else self._hide(key, value)

    def text(self, text: str) -> str:
        """The text without the secrets that are known, and without what has the form of one."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, REDACTED)
        for form, instead in _FORMS:
            text = form.sub(instead, text)
        return text

    def _hide(self, key: str, value: Any) -> str:
        if _LOOKS_SECRET.search(key) and len(str(value)) >= _LEAST and not isinstance(value, bool):
            self._secrets |= {str(value), json.dumps(str(value))[1:-1]}  # as it is, and as it stands in JSON
        return REDACTED
