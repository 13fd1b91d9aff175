"""`ovsnet help`: what has to be known about a topic, from packaged texts."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import resources

import click

from ovsnet.errors import InvalidRequest

from .session import options

_TOPICS = resources.files(__package__) / "topics"


def topics() -> list[str]:
    """All there are."""
    return sorted(one.name.removesuffix(".txt") for one in _TOPICS.iterdir() if one.name.endswith(".txt"))


def text(topic: str) -> str:
    """What there is to say about a topic: a title, an empty line, and the rest."""
    return (_TOPICS / f"{topic}.txt").read_text(encoding="utf-8")


def _complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    return [one for one in topics() if one.startswith(begun)]


@click.command("help")
@click.argument("topic", required=False, shell_complete=_complete)
@options
@click.pass_context
def help_(ctx: click.Context, topic: str | None) -> None:
    """Explain a topic, or list the topics. Each command explains itself with --help."""
    known = topics()
    if topic is None:
        width = max(map(len, known))
        for one in known:
            click.echo(f"{one.ljust(width)}  {text(one).splitlines()[0]}")
        return
    if topic not in known:
        group = ctx.find_root().command
        if isinstance(group, click.Group) and topic in group.commands:
            hint = f"`ovsnet {topic} --help` explains the command"
        elif near := get_close_matches(topic, known, 1):
            hint = f"did you mean {near[0]!r}?"
        else:
            hint = f"the topics are {', '.join(known)}"
        raise InvalidRequest(f"there is no topic {topic[:40]!r}", hint=hint)
    click.echo(text(topic), nl=False)
