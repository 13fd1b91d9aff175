"""/v1/tokens: who may ask from elsewhere."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from ovsnet import access

from .gate import caller
from .resource import answer, new_blueprint, no_content
from .schemas import NewToken, Ref, Token, TokenCreate, Tokens


def create_blueprint(tokens: access.Tokens) -> APIBlueprint:
    """The resource on `tokens`."""
    blueprint = new_blueprint("tokens", "/v1/tokens")

    @blueprint.get("", responses={200: Tokens})
    def list_tokens() -> Response:
        """All tokens that are worth something, without their text."""
        return answer(Tokens([Token.of(one) for one in tokens.all()]))

    @blueprint.post("", responses={201: NewToken})
    def create_token(body: TokenCreate) -> Response:
        """Make a token; its text is in this answer and nowhere else."""
        made, text = tokens.create(body.name, body.role, body.seconds, caller().name)
        return answer(NewToken(text=text, token=Token.of(made)), 201, location=f"/v1/tokens/{made.id}")

    @blueprint.delete("/<ref>", responses={204: None})
    def revoke_token(path: Ref) -> Response:
        """Let a token be worth nothing from now on."""
        tokens.revoke(path.ref)
        return no_content()

    return blueprint
