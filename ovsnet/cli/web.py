"""`ovsnet web`: the page, for a browser of this host."""

from __future__ import annotations

import click

from .output import print_json
from .session import Session, options


@click.command("web")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="On the loopback.  [default: a free one]")
@options
@click.pass_obj
def web(session: Session, port: int) -> None:
    """Show the page of ovsnetd to a browser of this host, until interrupted; it only looks.

    The address that it tells has a key: who has it sees what you may see. From elsewhere come by `ssh -L`.
    """
    from ovsnet.web.door import Door  # noqa: PLC0415  # http.server is slow to import

    session.client().health()  # says what is wrong before a browser does
    with Door(session.socket, port) as door:
        if session.json:
            print_json({"url": door.url})
        else:
            click.echo(f"Open {door.url}")
            click.echo("Ctrl-C ends it.", err=True)
        try:
            door.serve_forever()
        except KeyboardInterrupt:
            click.echo(err=True)
