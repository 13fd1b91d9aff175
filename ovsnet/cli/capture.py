"""`ovsnet capture`: what an endpoint sends and receives, for tcpdump, Wireshark and their like."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .resources import uuid_of
from .session import Session, options


@click.command("capture")
@click.argument("endpoint", metavar="ID")
@click.option("--filter", "expression", metavar="EXPRESSION", default="", help="Only what that pcap-filter(7) takes.")
@click.option("--seconds", type=click.IntRange(1, 60), default=10, show_default=True, help="How long.")
@click.option(
    "--bytes", "size", type=click.IntRange(24, 16 << 20), default=4 << 20, show_default=True, help="How much."
)
@click.option("-w", "--write", type=click.Path(path_type=Path), help="The file.  [default: standard output]")
@options
@click.pass_obj
def capture(session: Session, endpoint: str, expression: str, seconds: int, size: int, write: Path | None) -> None:
    """Record what endpoint ID (or the beginning of its UUID) sends and receives, and write it in libpcap's format.

    With `ovsnet capture ID | tcpdump -nr -` it is read at once.
    """
    if write is None and sys.stdout.isatty():
        raise click.UsageError("a terminal cannot show it: name a file with -w, or read it by `| tcpdump -nr -`")
    client = session.client()
    found = client.capture(uuid_of(client, endpoint), seconds=seconds, size=size, filter=expression)
    if write is None:
        sys.stdout.buffer.write(found)
    else:
        try:
            write.write_bytes(found)
        except OSError as exc:
            raise click.UsageError(f"{write} cannot be written: {exc.strerror}") from None
        click.echo(f"{len(found)} bytes in {write}", err=True)
