"""What launchd and systemd are told of a server. Pure: descriptions in, text out."""

import plistlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LABEL = "portico.server"  # launchd's name for it
UNIT = "portico.service"  # systemd's


@dataclass(frozen=True, slots=True)
class Service:
    """A server that starts with its user's session.

    stop_timeout: seconds from SIGTERM until it is killed.
    """

    command: tuple[str, ...]
    folder: Path
    stop_timeout: int
    environment: Mapping[str, str] = field(default_factory=dict)


def launchd_plist(service: Service, log: Path) -> str:
    """Starts at login, and again when it fails. What it says goes to `log`."""
    agent = {
        "Label": LABEL,
        "ProgramArguments": list(service.command),
        "WorkingDirectory": str(service.folder),
        "EnvironmentVariables": dict(service.environment),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ProcessType": "Interactive",  # others are slowed down in favour of what is on the screen
        "ExitTimeOut": service.stop_timeout,
        "Umask": 0o077,
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    return plistlib.dumps(agent, sort_keys=False).decode()


def systemd_unit(service: Service) -> str:
    """A user's unit. Only what every user's manager may restrict: folders that are hidden would
    take a user namespace, which many systems forbid, and in which a GPU is out of reach.
    """
    program, *arguments = service.command
    command = " ".join([_quoted(program), *(_quoted(text, "$") for text in arguments)])
    variables = "".join(
        f"Environment={_quoted(f'{name}={value}')}\n" for name, value in service.environment.items()
    )
    return f"""\
[Unit]
Description=Portico, an OpenAI-compatible inference server
# Restarts by hand count as well.
StartLimitIntervalSec=120
StartLimitBurst=10

[Service]
Type=exec
ExecStart={command}
WorkingDirectory={_unspecified(str(service.folder))}
{variables}Restart=on-failure
RestartSec=5
# Wrong settings don't get right by trying again; a second SIGTERM was meant.
RestartPreventExitStatus=2
SuccessExitStatus=143
TimeoutStopSec={service.stop_timeout}
# The server ends its engines itself, after the answers that are under way.
KillMode=mixed
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""


def _quoted(text: str, doubled: str = "") -> str:
    """One word for systemd. doubled: what else has a meaning there, and is meant as it is."""
    escaped = _unspecified(text).replace("\\", "\\\\").replace('"', '\\"')
    for sign in doubled:
        escaped = escaped.replace(sign, sign * 2)
    return f'"{escaped}"'


def _unspecified(text: str) -> str:
    """%h and the like are systemd's."""
    return text.replace("%", "%%")
