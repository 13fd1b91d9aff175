"""`ovsnet apply` and `ovsnet export`: pools, networks and reservations by a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ovsnet.errors import Conflict, InvalidRequest, NotFound, OvsnetError

from .output import as_yaml, print_json
from .session import EXIT_FAILURE, Session, options

if TYPE_CHECKING:
    from ovsnet.client import Client
    from ovsnet.manifest import Step


@click.command("apply")
@click.option("-f", "--file", metavar="FILE", required=True, type=click.Path(), help="YAML; `-` is standard input.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done; exit code 1 if something would.")
@click.option("--prune", is_flag=True, help="Remove what the API made and the file does not have.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options
@click.pass_obj
@click.pass_context
def apply(ctx: click.Context, session: Session, file: str, dry_run: bool, prune: bool, yes: bool) -> None:
    """Make what a file wishes for: pools, networks and reservations. Shows what it is going to do, then asks.

    Done again, it does nothing. Without --prune nothing is removed. See `ovsnet help apply`.
    """
    from ovsnet import manifest  # noqa: PLC0415  # slow

    wished = manifest.parse(_read(file, manifest.MAX_BYTES), file)
    client = session.client()
    plan = manifest.compare(wished, client.pools(), client.networks(), client.endpoints, prune=prune)
    _refuse(plan.conflicts, _rehearse(client, plan.steps))
    if not session.json:
        for step in plan.steps:
            click.echo(str(step))
    if plan.steps and not dry_run:
        if not yes:
            _ask(session, file, len(plan.steps))
        for number, step in enumerate(plan.steps, 1):
            _carry_out(client, step)
            if sys.stderr.isatty():
                click.echo(f"\r{number} of {len(plan.steps)} done", nl=number == len(plan.steps), err=True)
    if session.json:
        print_json({"applied": bool(plan.steps) and not dry_run, "changes": [_shown(step) for step in plan.steps]})
    elif not plan.steps:
        click.echo("nothing to do")
    if dry_run and plan.steps:
        ctx.exit(EXIT_FAILURE)


@click.command("export")
@click.option("--all", "everything", is_flag=True, help="Also what Docker and CNI made.")
@options
@click.pass_obj
def export(session: Session, everything: bool) -> None:
    """Print the pools, networks and reservations that the API made, as `ovsnet apply` takes them."""
    from ovsnet import manifest  # noqa: PLC0415  # slow

    client = session.client()
    found = manifest.export(client.pools(), client.networks(), everything=everything)
    if session.output == "json":
        print_json(found)
    else:
        click.echo(as_yaml(found), nl=False)


def _read(file: str, limit: int) -> str:
    try:
        with click.open_file(file, "rb") as stream:
            return bytes(stream.read(limit + 1)).decode()  # one more than it may have, so that it is noticed
    except OSError as exc:
        raise InvalidRequest(
            f"{file} cannot be read: {exc.strerror}", hint="name a file, or - for standard input"
        ) from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{file} is not UTF-8", hint="write YAML in UTF-8") from None


def _rehearse(client: Client, steps: list[Step]) -> list[OvsnetError]:
    """What ovsnetd would refuse, as far as it can tell before the steps ahead of it are done."""
    if any(step.action == "delete" for step in steps):
        return []  # what is removed makes room for the rest
    coming = {step.name for step in steps if (step.action, step.kind) == ("create", "pool")}
    changing = {step.name for step in steps if (step.action, step.kind) == ("change", "pool")}
    leaving = {step.fields["vlan"][0] for step in steps if (step.action, step.kind) == ("change", "network")}
    refused: list[OvsnetError] = []
    for step in steps:
        of = {step.pool, *step.fields.get("pools", ((), ()))[1]}
        tag = step.fields.get("vlan", (None, None))[1]
        if of & (coming | changing) or tag in leaving or (step.action, step.kind) == ("change", "reservation"):
            continue
        try:
            _carry_out(client, step, dry_run=True)
        except (Conflict, InvalidRequest, NotFound) as exc:
            exc.message = f"{step.kind} {step.name}: {exc.message}"
            refused.append(exc)
    return refused


def _refuse(conflicts: list[str], refused: list[OvsnetError]) -> None:
    """Raise one error that tells all of them."""
    kind: type[OvsnetError] = Conflict if conflicts else type(refused[0]) if refused else Conflict
    if conflicts or refused:
        hints = dict.fromkeys(one.hint for one in refused if one.hint)
        raise kind(
            "\n".join([*conflicts, *(one.message for one in refused)]),
            hint="; ".join(["nothing was done", *hints]),
        )


def _ask(session: Session, file: str, count: int) -> None:
    if file == "-" or session.json or not sys.stdin.isatty():
        raise InvalidRequest(
            f"{count} things are to be done, and nobody can be asked",
            hint="say --yes, or look with --dry-run; nothing was done",
        )
    if not click.confirm(f"Do {'this' if count == 1 else f'these {count} things'}?", err=True):
        raise InvalidRequest("nothing was done", hint="say y to go on")


def _carry_out(client: Client, step: Step, *, dry_run: bool = False) -> None:
    values: dict[str, Any] = {key: new for key, (_, new) in step.fields.items()}
    match step.action, step.kind:
        case "create", "pool":
            draining = values.pop("draining", False)
            if "gateway" in values and values["gateway"] is None:
                values |= {"gateway": "", "no_gateway": True}
            client.create_pool(name=step.name, dry_run=dry_run, **values)
            if draining and not dry_run:
                client.change_pool(step.name, draining=True)
        case "change", "pool":
            client.change_pool(step.name, dry_run=dry_run, **values)
        case "create", "network":
            client.create_network(step.name, dry_run=dry_run, **values)
        case "change", "network":
            client.change_network(step.name, dry_run=dry_run, **values)
        case "create", "reservation":
            client.reserve(step.pool, step.name, values["address"], dry_run=dry_run)
        case "change", "reservation":
            client.release_reservation(step.pool, step.name)
            try:
                client.reserve(step.pool, step.name, values["address"])
            except OvsnetError as refused:
                try:
                    client.reserve(step.pool, step.name, step.fields["address"][0])
                except OvsnetError as lost:
                    refused.message += f"; and the reservation for {step.name} is gone: {lost.message}"
                raise
        case _, kind:
            _remove(client, step, kind)


def _remove(client: Client, step: Step, kind: str) -> None:
    try:
        if kind == "reservation":
            client.release_reservation(step.pool, step.name)
        elif kind == "network":
            client.delete_network(step.name)
        else:
            client.delete_pool(step.name)
    except NotFound:
        return  # as it was wished: a pool that was made with its network went with it


def _shown(step: Step) -> dict[str, Any]:
    fields = {key: {"old": old, "new": new} for key, (old, new) in step.fields.items()}
    return {"action": step.action, "kind": step.kind, "name": step.name, "pool": step.pool, "fields": fields}
