"""Answers on stdout: JSON or YAML as the API gave it, or tables that fit the terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from .session import Session

GAP = 2  # blanks between columns


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; on a narrow terminal those with the highest `optional` go first, 0 stays."""

    title: str
    optional: int = 0


def print_json(value: Any) -> None:
    """`value` as the API gave it: as JSON, or with `-o yaml` as YAML."""
    click.echo(as_yaml(value) if _output() == "yaml" else json.dumps(value, indent=2), nl=_output() != "yaml")


def print_document(value: Any) -> None:
    """One of many values that follow each other: JSON on one line, or with `-o yaml` a document of YAML."""
    click.echo("---\n" + as_yaml(value) if _output() == "yaml" else json.dumps(value), nl=_output() != "yaml")


def as_yaml(value: Any) -> str:
    """`value` as YAML, its keys in their order."""
    import yaml  # noqa: PLC0415  # slow

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # they are hard to read
            return True

    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _output() -> str:
    """What `-o` says."""
    session = click.get_current_context().find_object(Session)
    return session.output if session else "table"


def print_table(columns: tuple[Column, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """Rows under the columns' titles; those that the terminal has no room for are left out, unless it is `-o wide`.

    Into a pipe or file: every column, every row on one line (lists: with commas).
    """
    terminal = sys.stdout.isatty()
    wide = _output() == "wide"
    cells = [[_cell(value, "\n" if terminal and not wide else ",") for value in row] for row in rows]
    shown = list(range(len(columns)))
    if terminal and not wide:
        widths = [
            max(len(line) for cell in (column.title, *(row[index] for row in cells)) for line in cell.split("\n"))
            for index, column in enumerate(columns)
        ]
        while sum(widths[index] + GAP for index in shown) - GAP > shutil.get_terminal_size().columns:
            least = max(shown, key=lambda index: columns[index].optional)
            if not columns[least].optional:
                break
            shown.remove(least)
    _render([columns[index].title for index in shown], [[row[index] for index in shown] for row in cells], wide=wide)


def print_line(row: tuple[object, ...], widths: tuple[int, ...]) -> None:
    """A row of a table that has no end, so that its columns' widths are chosen beforehand."""
    cells = (_cell(value, ",").ljust(width) for value, width in zip(row, widths, strict=True))
    click.echo((" " * GAP).join(cells).rstrip())


def print_sheet(values: Mapping[str, object]) -> None:
    """One thing, a line for each of its keys."""
    separator = "\n" if sys.stdout.isatty() else ","
    _render(None, [[key, _cell(value, separator)] for key, value in values.items()])


def in_words(value: object) -> str:
    """A value as a table has it, on one line."""
    return _cell(value, ",")


def _cell(value: object, separator: str) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return separator.join(_cell(item, separator) for item in value)
    if isinstance(value, dict):
        return separator.join(f"{_cell(key, ' ')}={_cell(item, ' ')}" for key, item in value.items())
    return "".join(char if char.isprintable() else "?" for char in str(value))  # no escape sequences from outside


def _render(titles: list[str] | None, rows: list[list[str]], *, wide: bool = False) -> None:
    if wide or not sys.stdout.isatty():
        lines = rows if titles is None else [titles, *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            click.echo((" " * GAP).join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich.console import Console  # noqa: PLC0415  # slow
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=titles is not None)
    for title in titles or ("", ""):
        table.add_column(title, overflow="fold")
    if titles is None:
        table.columns[0].style = "bold"
    for row in rows:
        table.add_row(*row)
    width, height = shutil.get_terminal_size()  # rich would take 80 by 25 for a dumb terminal
    Console(markup=False, highlight=False, emoji=False, width=width, height=height).print(table)
