"""`portico service`: a server that starts with its user's session, and again when it fails."""

import math
import os
import shlex
import sys
import time
from pathlib import Path

import typer

from adapters.cli.failing import MISUSED, fail
from adapters.cli.managers import Command, asked, manager_of
from adapters.cli.output import write_json
from adapters.cli.security import check_tls, refuse_open_bind
from adapters.cli.session import read_settings
from adapters.cli.units import Service

_AFTER_GRACE = 30  # seconds to write caches down and to unload
_PLACES = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT")  # of models; the service has no other way
_SETTLED = 3.0  # seconds until a server runs, and one that can't start has ended
_NOT_RUNNING = 3  # the exit code that tools of Linux have for it


def install(config: Path | None, *, only_print: bool) -> None:
    service, manager = _described(config), manager_of(sys.platform, Path.home())
    unit = manager.render(service)
    if only_print:
        typer.echo(unit, nl=False)
        return
    _warn_of_lost_settings()
    if manager.is_here and manager.is_running:
        _run(manager.stop)
        manager.ended(service.stop_timeout)
    try:
        manager.file.parent.mkdir(parents=True, exist_ok=True)
        manager.file.write_text(unit, "utf-8")
    except OSError as error:
        fail(f"{manager.file} can't be written: {error}")
    typer.echo(f"Wrote {manager.file}")
    if not _run(manager.start):
        return
    time.sleep(_SETTLED)
    if not manager.is_running:
        fail("\n".join(("it was started, and ended at once.", *manager.hints)))
    typer.echo("\n".join(("Portico runs, and starts with your session.", *manager.hints)))


def uninstall() -> None:
    manager = manager_of(sys.platform, Path.home())
    if not manager.file.exists():
        typer.echo("Portico is not installed as a service.")
        return
    stopped = _run(manager.stop)
    try:
        manager.file.unlink()
    except OSError as error:
        fail(f"{manager.file} can't be deleted: {error}")
    typer.echo(f"Deleted {manager.file}")
    if stopped:
        _run(manager.forget)


def status(*, as_json: bool) -> None:
    """The exit code is 0 while it runs, else 3."""
    manager = manager_of(sys.platform, Path.home())
    installed = manager.file.exists()
    running = manager.is_running if installed and manager.is_here else None
    if as_json:
        write_json({"installed": installed, "running": running, "file": str(manager.file)})
    elif not installed:
        typer.echo("Portico is not installed as a service. `portico service install` does it.")
    elif running is None:
        typer.echo(f"{manager.file} is there, but no {manager.look[0]} that could be asked.")
    else:
        typer.echo(f"{manager.file}: {'running' if running else 'not running'}")
    if not running:
        raise typer.Exit(_NOT_RUNNING)


def _described(config: Path | None) -> Service:
    """Ends the program for settings with which no server would start."""
    settings = read_settings(config, {})
    refuse_open_bind(settings)
    check_tls(settings)
    file = config or Path(os.environ.get("PORTICO_CONFIG") or "portico.toml")
    command = (*_program(), "serve", *(("--config", str(file.absolute())) if file.exists() else ()))
    environment = {name: os.environ[name] for name in _PLACES if os.environ.get(name)}
    if not all(text.isprintable() for text in (*command, *environment.values())):
        fail("a path with control characters can't be written down for a service", MISUSED)
    grace = math.ceil(settings.shutdown_grace) + _AFTER_GRACE
    return Service(command, Path.home(), grace, environment)


def _program() -> tuple[str, ...]:
    """As it was called, so that it is still there after an upgrade."""
    called = Path(sys.argv[0])
    if called.name == "portico" and called.exists():
        return (str(called.absolute()),)
    return (sys.executable, "-P", "-m", "adapters.cli.main")


def _warn_of_lost_settings() -> None:
    names = [name for name in os.environ if name.startswith("PORTICO_")]
    lost = sorted({*names} - {"PORTICO_CONFIG", "PORTICO_URL"})
    if lost:
        typer.echo(
            f"portico: a service does not see {', '.join(lost)} of this shell; "
            "write them into the settings file.",
            err=True,
        )


def _run(commands: tuple[Command, ...]) -> bool:
    """Whether there was anyone to ask; else it says what to do. Ends the program on a failure."""
    for command in commands:
        try:
            outcome = asked(command)
        except FileNotFoundError:
            todo = "\n".join(f"  {shlex.join(command)}" for command in commands)
            typer.echo(f"There is no {command[0]} here. Where there is one, run:\n{todo}")
            return False
        if outcome.returncode:
            reason = (outcome.stderr or outcome.stdout).strip() or f"code {outcome.returncode}"
            fail(f"`{shlex.join(command)}` failed: {reason}")
    return True
