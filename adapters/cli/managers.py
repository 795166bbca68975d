"""The system's own managers of services, and how they are asked."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapters.cli.failing import fail
from adapters.cli.units import LABEL, UNIT, Service, launchd_plist, systemd_unit

Command = tuple[str, ...]

_LOOK = 0.2  # seconds between two looks whether it has ended


@dataclass(frozen=True, slots=True)
class Manager:
    """file: where the unit is. look: its output holds `running` while the server runs.

    forget: once the file is gone. hints: what is good to know after an installation.
    """

    file: Path
    render: Callable[[Service], str]
    start: tuple[Command, ...]
    stop: tuple[Command, ...]
    forget: tuple[Command, ...]
    look: Command
    running: str
    hints: tuple[str, ...]

    @property
    def is_here(self) -> bool:
        """Whether there is anyone to ask."""
        return shutil.which(self.look[0]) is not None

    @property
    def is_running(self) -> bool:
        """Ends the program where nobody answers, as without a session."""
        outcome = asked(self.look)
        if "Failed to connect to bus" in outcome.stderr:
            fail(f"`{shlex.join(self.look)}` failed: {outcome.stderr.strip()}")
        return self.running in outcome.stdout.split("\n")

    def ended(self, patience: float) -> bool:
        """Whether the server ends within so many seconds."""
        deadline = time.monotonic() + patience
        while self.is_running:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True


def manager_of(platform: str, home: Path) -> Manager:
    """For `sys.platform`."""
    return _launchd(home) if platform == "darwin" else _systemd(home)


def asked(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    # By name: systems have them in different places, and PATH is the user's own.
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _launchd(home: Path) -> Manager:
    file = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    log = home / "Library" / "Logs" / "portico.log"
    domain = f"gui/{os.getuid()}"
    return Manager(
        file,
        partial(launchd_plist, log=log),
        start=(("launchctl", "bootstrap", domain, str(file)),),
        stop=(("launchctl", "bootout", f"{domain}/{LABEL}"),),
        forget=(),
        look=("launchctl", "print", f"{domain}/{LABEL}"),
        running="\tstate = running",
        hints=(f"Its log is {log}.",),
    )


def _systemd(home: Path) -> Manager:
    configured = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(configured) if configured else home / ".config"
    systemctl = ("systemctl", "--user")
    return Manager(
        folder / "systemd" / "user" / UNIT,
        systemd_unit,
        start=((*systemctl, "daemon-reload"), (*systemctl, "enable", "--now", UNIT)),
        stop=((*systemctl, "disable", "--now", UNIT),),
        # A pattern, since to name a unit that is gone is an error.
        forget=((*systemctl, "daemon-reload"), (*systemctl, "reset-failed", f"{UNIT}*")),
        look=(*systemctl, "is-active", UNIT),
        running="active",
        hints=(
            f"Its log: journalctl --user -u {UNIT}",
            "It ends when you log out, unless you say: loginctl enable-linger",
        ),
    )
