"""`ovsnet completion`, and what a shell is told when it asks for the names of things."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem, get_completion_class

from ovsnet.errors import InvalidRequest, OvsnetError

from .session import Session

_DEADLINE = 2.0  # seconds that somebody who presses the tabulator waits for ovsnetd at most
_VARIABLE = "_OVSNET_COMPLETE"  # click's, by which the script asks

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def known(noun: str) -> Complete:
    """The names of all pools or networks, or the ids of all endpoints, for a shell to choose from."""

    def complete(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        from ovsnet.client import Client  # noqa: PLC0415  # slow

        client = Client(ctx.ensure_object(Session).socket, deadline=_DEADLINE)
        try:
            if noun == "endpoint":
                found = {one["id"]: f"{one['container'][:12]} on {one['network']}" for one in client.endpoints()}
            elif noun == "pool":
                found = {one["name"]: one["subnet"] for one in client.pools()}
            else:
                found = {one["name"]: ", ".join(one["subnets"]) for one in client.networks()}
        except OvsnetError:
            return []  # in the middle of a command line there is no place to tell it; the command itself will
        given = ctx.params.get(param.name or "") or ()
        return [
            CompletionItem(name, help=about)
            for name, about in found.items()
            if name.startswith(begun) and name not in given
        ]

    return complete


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what lets a shell complete commands, options and names, such as for `eval "$(ovsnet completion bash)"`."""
    maker = get_completion_class(shell)
    if maker is None:
        raise InvalidRequest(f"nothing is known of the shell {shell}", hint="use bash, zsh or fish")
    root = ctx.find_root()
    click.echo(maker(root.command, {}, "ovsnet", _VARIABLE).source())
