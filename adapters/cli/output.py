"""How commands write: numbers for people, JSON for programs."""

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDE = 200  # columns where nobody looks: lines stay whole for grep
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def make_console() -> Console:
    console = Console(highlight=False)
    # Rich takes 80 columns where there is no terminal; COLUMNS still has its way.
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDE
    return console


def write_json(document: object, *, indent: int | None = 2) -> None:
    """One document; or one line of many, without indent."""
    sys.stdout.write(json.dumps(document, indent=indent) + "\n")
    sys.stdout.flush()


def make_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Columns without a frame; those in `right` hold numbers."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def facts(rows: Mapping[str, Any]) -> Table:
    """Names and values; those that are None are left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, escape(str(value)))
    return table


def duration(seconds: float) -> str:
    """As "42s", "3m 05s", "2h 10m" or "4d 3h"."""
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"


def moment(when: float) -> str:
    """Unix seconds, as the clock on the wall has them."""
    return f"{datetime.fromtimestamp(when):%Y-%m-%d %H:%M}"
