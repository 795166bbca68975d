"""`portico service`: what launchd and systemd are told, and how they are asked."""

import json
import plistlib
import sys
from pathlib import Path

import pytest

from adapters.cli.managers import manager_of
from adapters.cli.units import Service, launchd_plist, systemd_unit
from tests.command_line import portico

SERVICE = Service(
    ("/opt/por tico/portico", "serve", "--config", '/me/50%/$a "b"\\.toml'),
    Path("/home/me"),
    60,
    {"HF_HOME": "/models %h"},
)

PLIST = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>portico.server</string>
	<key>ProgramArguments</key>
	<array>
		<string>/opt/por tico/portico</string>
		<string>serve</string>
		<string>--config</string>
		<string>/me/50%/$a "b"\\.toml</string>
	</array>
	<key>WorkingDirectory</key>
	<string>/home/me</string>
	<key>EnvironmentVariables</key>
	<dict>
		<key>HF_HOME</key>
		<string>/models %h</string>
	</dict>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>ProcessType</key>
	<string>Interactive</string>
	<key>ExitTimeOut</key>
	<integer>60</integer>
	<key>Umask</key>
	<integer>63</integer>
	<key>StandardOutPath</key>
	<string>/logs/portico.log</string>
	<key>StandardErrorPath</key>
	<string>/logs/portico.log</string>
</dict>
</plist>
"""

UNIT = """\
[Unit]
Description=Portico, an OpenAI-compatible inference server
# Restarts by hand count as well.
StartLimitIntervalSec=120
StartLimitBurst=10

[Service]
Type=exec
ExecStart="/opt/por tico/portico" "serve" "--config" "/me/50%%/$$a \\"b\\"\\\\.toml"
WorkingDirectory=/home/me
Environment="HF_HOME=/models %%h"
Restart=on-failure
RestartSec=5
# Wrong settings don't get right by trying again; a second SIGTERM was meant.
RestartPreventExitStatus=2
SuccessExitStatus=143
TimeoutStopSec=60
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


def test_a_plist_for_launchd() -> None:
    text = launchd_plist(SERVICE, Path("/logs/portico.log"))
    assert text == PLIST
    assert plistlib.loads(text.encode())["ProgramArguments"] == list(SERVICE.command)


def test_a_unit_for_systemd() -> None:
    assert systemd_unit(SERVICE) == UNIT


def test_units_are_where_their_managers_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    places = {platform: manager_of(platform, tmp_path).file for platform in ("darwin", "linux")}
    assert places["darwin"] == tmp_path / "Library" / "LaunchAgents" / "portico.server.plist"
    assert places["linux"] == tmp_path / ".config" / "systemd" / "user" / "portico.service"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user with a settings file and no manager of services."""
    monkeypatch.setattr("adapters.cli.service._SETTLED", 0.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "portico.toml").write_text("shutdown_grace = 12.5\n")
    return tmp_path


@pytest.fixture
def manager(home: Path) -> Path:
    """A program that answers for both managers. It writes down what it is asked; the server runs
    from the time when it is started until it is stopped.
    """
    script = f"""\
#!/bin/sh
echo "$*" >> {home}/asked
case "$*" in
  *disable*|bootout*) rm -f {home}/up;;
  *enable*|bootstrap*) : > {home}/up;;
  *is-active*) test -e {home}/up && echo active || {{ echo inactive; exit 3; }};;
  print*) test -e {home}/up && printf 'x = {{\\n\\tstate = running\\n}}\\n' || exit 113;;
esac
"""
    script = script.replace("rm -f", "/bin/rm -f")
    for tool in ("systemctl", "launchctl"):
        (home / "bin" / tool).write_text(script)
        (home / "bin" / tool).chmod(0o755)
    return home / "asked"


def unit_of(home: Path) -> Path:
    return manager_of(sys.platform, home).file


def test_print_changes_nothing(home: Path, manager: Path) -> None:
    said = portico("service", "install", "--print")
    assert said.exit_code == 0
    assert str(home / "portico.toml") in said.stdout
    assert "43" in said.stdout  # 12.5 seconds of grace, and 30 for what follows it
    assert not unit_of(home).exists() and not manager.exists()


def test_from_installation_to_removal(home: Path, manager: Path) -> None:
    assert portico("service", "status").exit_code == 3
    installed = portico("service", "install")
    assert installed.exit_code == 0, installed.output
    assert "Portico runs" in installed.stdout
    assert unit_of(home).read_text() == portico("service", "install", "--print").stdout
    status = portico("service", "status", "--json")
    assert status.exit_code == 0
    told = json.loads(status.stdout)
    assert told == {"installed": True, "running": True, "file": str(unit_of(home))}
    (home / "up").unlink()
    assert "not running" in portico("service", "status").stdout
    removed = portico("service", "uninstall")
    assert (removed.exit_code, unit_of(home).exists()) == (0, False)
    if sys.platform != "darwin":  # else a server that failed would be listed on
        assert "reset-failed portico.service*" in manager.read_text()
    again = portico("service", "uninstall")
    assert (again.exit_code, again.stdout) == (0, "Portico is not installed as a service.\n")


def test_a_server_that_ends_at_once_does_not_run(home: Path, manager: Path) -> None:
    for tool in (home / "bin").iterdir():
        tool.write_text(tool.read_text().replace(f": > {home}/up", ":"))
    installed = portico("service", "install")
    assert installed.exit_code == 1
    assert "ended at once" in installed.stderr


def test_where_no_session_answers_nothing_is_known(home: Path, manager: Path) -> None:
    portico("service", "install")
    for tool in (home / "bin").iterdir():
        tool.write_text("#!/bin/sh\necho 'Failed to connect to bus: no medium found' >&2; exit 1\n")
    status = portico("service", "status")
    assert status.exit_code == 1
    assert "Failed to connect to bus" in status.stderr


def test_a_new_installation_stops_the_old_server_first(home: Path, manager: Path) -> None:
    portico("service", "install")
    manager.unlink()
    assert portico("service", "install").exit_code == 0
    asked = manager.read_text()
    stop, start = ("bootout", "bootstrap") if sys.platform == "darwin" else ("disable", " enable ")
    assert asked.index(stop) < asked.index(start)


def test_without_a_manager_it_says_what_to_run(home: Path) -> None:
    said = portico("service", "install")
    assert said.exit_code == 0
    assert unit_of(home).exists()
    for command in manager_of(sys.platform, home).start:
        assert " ".join(command) in said.stdout
    assert portico("service", "status").exit_code == 3
    assert portico("service", "uninstall").exit_code == 0
    assert not unit_of(home).exists()


def test_a_manager_that_refuses_is_quoted(home: Path, manager: Path) -> None:
    for tool in ("systemctl", "launchctl"):
        (home / "bin" / tool).write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    said = portico("service", "install")
    assert said.exit_code == 1
    assert "failed: no bus" in said.stderr


def test_settings_with_which_no_server_starts_are_refused(home: Path, manager: Path) -> None:
    for text, reason in (('host = "0.0.0.0"', "no API key"), ("port = -1", "port")):
        (home / "portico.toml").write_text(text)
        said = portico("service", "install")
        assert said.exit_code == 2
        assert reason in said.stderr
    assert not unit_of(home).exists()


def test_settings_of_the_shell_are_named_without_their_values(
    home: Path, manager: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTICO_API_KEY", "sesame-open")
    monkeypatch.setenv("HF_HOME", "/disk/hub")
    said = portico("service", "install")
    assert "PORTICO_API_KEY" in said.stderr
    assert "/disk/hub" in unit_of(home).read_text()
    assert "sesame" not in said.output + unit_of(home).read_text()
