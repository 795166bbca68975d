"""`portico ps`, `load` and `unload`: a running server, over its management API."""

import ssl
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adapters.cli.failing import fail
from adapters.cli.output import duration, make_console, make_table, write_json
from adapters.cli.session import read_id, read_settings
from adapters.settings import Settings
from domain.sizes import size

_CONNECT_PATIENCE = 5.0  # seconds; a load may take as long as it takes
_NUMBERS = ("Memory", "Context", "Requests", "Waiting", "Idle")

Document = dict[str, Any]


def ps(config: Path | None, *, url: str | None, as_json: bool) -> None:
    status = _ask(read_settings(config, {}), url, "GET", "status")
    if as_json:
        write_json(status)
        return
    console = make_console()
    if status["residents"]:
        console.print(_table(status["residents"]))
    console.print(_summary(status), markup=False)


def load(
    config: Path | None, *, model: str, pin: bool, wait: bool, url: str | None, as_json: bool
) -> None:
    settings = read_settings(config, {})
    asked = {"model": str(read_id(model)), "wait": wait} | ({"pin": True} if pin else {})
    with Console(stderr=True, highlight=False).status(f"Loading {escape(model)}"):
        answer = _ask(settings, url, "POST", "models/load", asked)
    _tell(answer, f"{model} is loaded{' and pinned' if pin else ''}.", as_json=as_json)


def unload(config: Path | None, *, model: str, force: bool, url: str | None, as_json: bool) -> None:
    settings = read_settings(config, {})
    asked = {"model": str(read_id(model)), "force": force}
    answer = _ask(settings, url, "POST", "models/unload", asked)
    outcome = "is out of memory" if answer["was_loaded"] else "was not in memory"
    _tell(answer, f"{model} {outcome}.", as_json=as_json)


def _tell(answer: Document, outcome: str, *, as_json: bool) -> None:
    if as_json:
        write_json(answer)
    else:
        make_console().print(outcome, markup=False)


def _ask(
    settings: Settings, url: str | None, method: str, path: str, body: Document | None = None
) -> Document:
    """The server's answer. Ends the program, with the reason, when there is none."""
    base = (url or _own_url(settings)).rstrip("/")
    key = settings.api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    timeout = httpx2.Timeout(None, connect=_CONNECT_PATIENCE)
    try:
        # A proxy of the environment has no way to this machine.
        with httpx2.Client(
            headers=headers, timeout=timeout, trust_env=False, verify=_trust(settings)
        ) as client:
            answer = client.request(method, f"{base}/api/v1/{path}", json=body)
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        fail(
            f"no server answers at {base}. `portico serve` starts one; --url or PORTICO_URL names "
            "another."
        )
    except (httpx2.TransportError, httpx2.InvalidURL, OSError) as error:
        fail(f"{base} can't be asked: {error}")
    return _read(answer, base)


def _own_url(settings: Settings) -> str:
    """Of the server with these settings, on this machine."""
    listens_everywhere = settings.host in {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    host = "127.0.0.1" if listens_everywhere else settings.host
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.ssl_certfile else 'http'}://{shown}:{settings.port}"


def _trust(settings: Settings) -> ssl.SSLContext:
    """As everybody does, and the certificate of these settings, which its owner may have signed."""
    context = ssl.create_default_context()
    if settings.ssl_certfile:
        context.load_verify_locations(settings.ssl_certfile.expanduser())
    return context


def _read(answer: httpx2.Response, base: str) -> Document:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if answer.is_success and isinstance(document, dict):
        return document
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict) and "message" in error:
        hint = (
            " PORTICO_API_KEY holds the key."
            if answer.status_code == httpx2.codes.UNAUTHORIZED
            else ""
        )
        fail(f"{error['message']}{hint}")
    fail(f"what answers at {base} is not Portico (status {answer.status_code}).")


def _table(residents: list[Document]) -> Table:
    table = make_table("Model", "State", *_NUMBERS, "Pinned", right=_NUMBERS)
    for resident in residents:
        table.add_row(
            escape(resident["id"]),
            resident["state"],
            size(resident["memory"]["total"]),
            f"{resident['context_length']:,}",
            str(resident["leases"]),
            str(resident["waiting"]),
            duration(resident["idle_seconds"]),
            "yes" if resident["pinned"] else "-",
        )
    return table


def _summary(status: Document) -> str:
    used, budget = size(status["memory_used"]), size(status["memory_budget"])
    waiting = f" {status['waiting']} requests wait for memory." if status["waiting"] else ""
    hung = "".join(f" The engine of {model} hangs." for model in status["hung"])
    dying = "".join(
        f" The engine of {failing['model']} died {failing['deaths']} times in a row."
        for failing in status["failing"]
    )
    closing = " It is shutting down." if status["closing"] else ""
    return (
        f"{used} of {budget} in use. Portico {status['version']}, up for "
        f"{duration(status['uptime'])}.{waiting}{hung}{dying}{closing}"
    )
