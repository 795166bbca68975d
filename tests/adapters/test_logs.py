"""How log records are written."""

import io
import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import pytest

from adapters.telemetry.logs import Format, HumanFormatter, logging_config

FORGERY = "a\r\n12:00:00 INFO     forged \x1b[31m\u2028\u202e end"


def record(text: str, *args: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("portico.requests", logging.INFO, "f.py", 1, text, args, None)
    made.__dict__.update(fields)
    return made


class Terminal(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@contextmanager
def configured(form: Format, level: str, *, terminal: bool) -> Iterator[Terminal]:
    """What comes to stderr under this configuration; the loggers are as they were, afterwards."""
    loggers = [logging.getLogger(name) for name in (None, "portico", "uvicorn")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    stderr = Terminal(is_terminal=terminal)
    with redirect_stderr(stderr):
        try:
            logging.config.dictConfig(logging_config(form, level))
            yield stderr
        finally:
            for logger, (handlers, level_before, propagate) in zip(loggers, before, strict=True):
                logger.handlers[:], logger.propagate = handlers, propagate
                logger.setLevel(level_before)


def written(terminal: Terminal) -> list[dict[str, Any]]:
    return [json.loads(line) for line in terminal.getvalue().splitlines()]


def test_people_get_a_line_with_fields() -> None:
    fields = {"request_id": "req_1", "status": 200, "model": "a/b", "ttft_ms": 1.5}
    line = HumanFormatter().format(record("GET %s 200", "/x", color_message="x", **fields))
    assert line.partition(" ")[2] == "INFO     GET /x 200 model=a/b ttft_ms=1.5"


def test_nothing_forges_a_line_for_people() -> None:
    line = HumanFormatter().format(record("%s", FORGERY, model=FORGERY))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert r"a\r\n12:00:00" in line


def test_tracebacks_are_indented() -> None:
    try:
        raise ValueError(FORGERY)
    except ValueError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
    first, *rest = HumanFormatter().format(made).splitlines()
    assert first.endswith("it failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_what_is_no_terminal_gets_json() -> None:
    with configured("auto", "info", terminal=False) as stderr:
        log = logging.getLogger("portico.requests")
        log.info("%s", FORGERY, extra={"model": FORGERY, "ttft_ms": 1.5})
        log.debug("not at this level")
        logging.getLogger("uvicorn").info("running on", extra={"color_message": "x"})
        logging.getLogger("httpx").info("libraries say warnings")
        logging.getLogger("httpx").warning("and they do")
        try:
            raise ValueError(FORGERY)
        except ValueError:
            log.exception("failed")
    forged, running, warning, failed = written(stderr)
    assert (forged["message"], forged["model"], forged["ttft_ms"]) == (FORGERY, FORGERY, 1.5)
    assert (forged["level"], forged["logger"]) == ("INFO", "portico.requests")
    assert forged["time"].endswith("+00:00")
    assert set(running) == {"time", "level", "logger", "message"}
    assert (warning["level"], warning["message"]) == ("WARNING", "and they do")
    assert "ValueError" in failed["exception"]


@pytest.mark.parametrize(("form", "terminal"), [("auto", True), ("human", False)])
def test_terminals_get_words_and_so_does_who_asks(form: Format, terminal: bool) -> None:
    with configured(form, "debug", terminal=terminal) as stderr:
        logging.getLogger("portico.models").debug("loading", extra={"model": "m"})
    assert stderr.getvalue().partition(" ")[2] == "DEBUG    loading model=m\n"


def test_json_also_on_a_terminal_if_asked_for() -> None:
    with configured("json", "info", terminal=True) as stderr:
        logging.getLogger("portico.models").info("loading")
    assert written(stderr)[0]["message"] == "loading"
