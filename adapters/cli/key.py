"""`portico key new`: a key, and what the settings file has to know of it."""

import hashlib
import json
import secrets
from typing import Any

import typer
from pydantic import TypeAdapter, ValidationError

from adapters.cli.failing import MISUSED, fail
from adapters.cli.output import write_json
from adapters.settings import ApiKeys

_BYTES = 32  # of chance: too many to guess, so a hash without salt keeps them


def new(
    name: str,
    *,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    models: list[str] | None,
    as_json: bool,
) -> None:
    key = f"portico-{secrets.token_urlsafe(_BYTES)}"
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "models": models or None,
    }
    table: dict[str, Any] = {"sha256": hashlib.sha256(key.encode()).hexdigest()}
    table |= {field: value for field, value in limits.items() if value is not None}
    _check(name, table)
    if as_json:
        write_json({"name": name, "key": key} | table)
        return
    typer.echo(f"The API key of {name}, which is shown only now:\n\n{key}\n")
    typer.echo(f"For the settings file (portico.toml):\n\n[api_keys.{name}]")
    for field, value in table.items():
        # Strings and lists of JSON are strings and lists of TOML.
        typer.echo(f"{field} = {json.dumps(value, ensure_ascii=False)}")


def _check(name: str, table: dict[str, Any]) -> None:
    """Ends the program when the settings would not take it."""
    try:
        TypeAdapter(ApiKeys).validate_python({name: table})
    except ValidationError as error:
        place, problem = error.errors()[0]["loc"], error.errors()[0]["msg"]
        fail(f"`{'.'.join(str(step) for step in place)}`: {problem}", MISUSED)
