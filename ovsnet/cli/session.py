"""What all commands share: the options `--socket` and `-o`, the client, and how errors are told.

Both options may stand before the noun or after the verb; the later one counts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ovsnet.errors import Conflict, InvalidRequest, NotFound, OvsnetError, Unavailable, problem

if TYPE_CHECKING:
    from ovsnet.client import Client

DEFAULT_SOCKET = "/run/ovsnet/ovsnet.sock"  # as in ovsnet.client, which would be slow to import

ARGUMENTS = "ovsnet.arguments"  # key of click's Context.meta: the command line as it came

EXIT_FAILURE = 1
EXIT_CODES: tuple[tuple[type[OvsnetError], int], ...] = (
    (InvalidRequest, 2),
    (NotFound, 3),
    (Conflict, 4),
    (Unavailable, 5),
)


@dataclass
class Session:
    """The options of one run."""

    socket: str = field(default_factory=lambda: os.environ.get("OVSNET_SOCKET") or DEFAULT_SOCKET)
    output: str = "table"

    @property
    def json(self) -> bool:
        """Whether machines read the output, as JSON or YAML."""
        return self.output in ("json", "yaml")

    def client(self) -> Client:
        """A client of the API."""
        from ovsnet.client import Client  # noqa: PLC0415  # `--help` and usage errors need no http.client

        return Client(self.socket)


def report(error: OvsnetError, session: Session) -> int:
    """Tell an error on stderr, to people (`error: …`, `hint: …`) or machines (a problem document); gives the exit code."""
    if session.json:
        click.echo(json.dumps(problem(error)), err=True)
    else:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
    return next((code for cls, code in EXIT_CODES if isinstance(error, cls)), EXIT_FAILURE)


class Root(click.Group):
    """The outermost group: whatever fails inside is reported in our words, wrong usage too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options before the noun."""
        ctx.meta[ARGUMENTS] = " ".join(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as exc:
            _refuse(exc, ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as exc:
            _refuse(exc, ctx)
        except OvsnetError as exc:
            ctx.exit(report(exc, ctx.ensure_object(Session)))


def _refuse(error: click.UsageError, ctx: click.Context) -> NoReturn:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        raise error
    session = ctx.ensure_object(Session)
    if re.search(r"(^| )(-o|--output)[ =]?(json|yaml)( |$)", ctx.meta[ARGUMENTS]):  # click may not have come to it
        session.output = "json"
    hint = f"see `{(error.ctx or ctx).command_path} --help`"
    ctx.exit(report(InvalidRequest(error.format_message(), hint=hint), session))


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options that all have."""

    def remember(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and param.name is not None:
            setattr(ctx.ensure_object(Session), param.name, value)

    command = click.option(
        "--socket",
        metavar="PATH",
        callback=remember,
        expose_value=False,
        help="ovsnetd's unix socket.  [default: $OVSNET_SOCKET or /run/ovsnet/ovsnet.sock]",
    )(command)
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "wide", "name", "json", "yaml"]),
        callback=remember,
        expose_value=False,
        help="Format of answers, and for json and yaml of errors.  [default: table]",
    )(command)


def for_each(names: tuple[str, ...], act: Callable[[str], None], session: Session) -> None:
    """Call `act` with each name and print it; go on past errors, and leave with the first one's exit code."""
    first = 0
    for name in names:
        try:
            act(name)
        except OvsnetError as exc:
            code = report(exc, session)
            first = first or code
        else:
            if not session.json:
                click.echo(name)
    if first:
        click.get_current_context().exit(first)
