"""Who may: roles, who a caller is (peer credentials, certificates, tokens), how often it may ask, and TLS.

Owns the file of tokens. Called by the API, which asks it about every request, and by the composition root; calls nobody.
"""

from __future__ import annotations

from .guard import Guard
from .policy import LEAST, OPEN, least_role
from .rates import Rates
from .roles import Caller, Role
from .tokens import Token, Tokens

__all__ = ["LEAST", "OPEN", "Caller", "Guard", "Rates", "Role", "Token", "Tokens", "least_role"]
