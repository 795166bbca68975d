"""How log records are written: for people on a terminal, as JSON for what collects them."""

import logging
import sys
import time
from typing import Any, Literal

from pythonjsonlogger.core import RESERVED_ATTRS

Format = Literal["auto", "human", "json"]

_COLOURED = "color_message"  # uvicorn's message again, with escapes for terminals
_SAID = {"request_id", "method", "path", "status"}  # the line of a request begins with them
_NO_FIELDS = {*RESERVED_ATTRS, "taskName", _COLOURED, *_SAID}


class HumanFormatter(logging.Formatter):
    """`12:00:00 INFO     what happened field=value`.

    Whatever stands in a message, one record is one line; tracebacks follow it, indented. So nothing
    that a client sends can look like a record of its own, or steer the terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = " ".join(
            f"{name}={value}" for name, value in record.__dict__.items() if name not in _NO_FIELDS
        )
        line = _printable(f"{at} {record.levelname:8} {record.getMessage()} {fields}".rstrip())
        return "\n".join([line, *(f"    {_printable(text)}" for text in self._behind(record))])

    def _behind(self, record: logging.LogRecord) -> list[str]:
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        stack = self.formatStack(record.stack_info) if record.stack_info else ""
        return [*trace.splitlines(), *stack.splitlines()]


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def logging_config(form: Format, level: str) -> dict[str, Any]:
    """For logging.config.dictConfig: everything to stderr, through one formatter.

    level: of Portico's own loggers and uvicorn's. Libraries say warnings and worse, whatever it is:
    at lower levels some of them write down headers and bodies.
    """
    human = sys.stderr.isatty() if form == "auto" else form == "human"
    own = {"level": level.upper(), "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": HumanFormatter} if human else _json()},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"portico": own, "uvicorn": own},
    }


def _json() -> dict[str, Any]:
    return {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": ["levelname", "name", "message"],
        "rename_fields": {"levelname": "level", "name": "logger", "exc_info": "exception"},
        "timestamp": "time",
        "reserved_attrs": [*RESERVED_ATTRS, "taskName", _COLOURED],
    }
