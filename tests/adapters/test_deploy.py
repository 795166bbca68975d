"""What is in deploy/ fits together, and to the program."""

import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from adapters.settings import Settings
from domain.hosts import HostAllowlist

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


COMPOSE = read("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_prometheus_reaches_portico_with_its_key() -> None:
    (job,) = read("prometheus.yml")["scrape_configs"]
    secret = Path(job["authorization"]["credentials_file"])
    assert secret.parent == Path("/run/secrets")
    assert secret.name in SERVICES["prometheus"]["secrets"]
    host, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert host in SERVICES
    names = SERVICES["portico"]["environment"]["PORTICO_ALLOWED_HOSTS"].split(",")
    assert HostAllowlist.of("0.0.0.0", tuple(names)).allows(f"{host}:{port}")
    assert f"EXPOSE {port}" in DOCKERFILE
    assert SERVICES["portico"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_grafana_has_the_dashboard_where_its_provisioning_looks() -> None:
    (provider,) = read("grafana/provisioning/dashboards/portico.yaml")["providers"]
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounted["./grafana/portico.json"] == f"{provider['options']['path']}/portico.json"
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    variable = source["url"].strip("${}")
    assert SERVICES["grafana"]["environment"][variable] == "http://prometheus:9090"


def test_what_is_mounted_is_here_or_told_of_in_the_docs() -> None:
    told = (ROOT / "docs" / "operations.md").read_text()
    sources = [volume.split(":")[0] for s in SERVICES.values() for volume in s.get("volumes", ())]
    sources += [secret["file"] for secret in COMPOSE["secrets"].values()]
    for source in sources:
        if source not in COMPOSE["volumes"]:
            here = (DEPLOY / source).exists()
            assert here or f"deploy/{source.removeprefix('./')}" in told, source


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service["ports"]]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_time_to_stop_is_more_than_the_grace() -> None:
    seconds = int(SERVICES["portico"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= Settings().shutdown_grace + 30


def test_the_image_sets_what_the_program_knows() -> None:
    names = set(re.findall(r"\bPORTICO_([A-Z_]+)=", DOCKERFILE))
    names |= {n[8:] for n in SERVICES["portico"]["environment"] if n != "PORTICO_CONFIG"}
    assert len(names) >= 4
    assert {name.lower() for name in names} <= set(Settings.model_fields)
    assert "\nUSER portico\n" in DOCKERFILE
    assert "/livez" in DOCKERFILE


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_the_server_itself(status: int, code: int) -> None:
    class Livez(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

    (check,) = re.findall(r"^ +CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    _, *arguments = json.loads(check)
    with HTTPServer(("127.0.0.1", 0), Livez) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        nobody = "http://127.0.0.1:9"  # a proxy, as containers are often given
        environment = {"PORTICO_PORT": str(server.server_port), "HTTP_PROXY": nobody}
        asked = subprocess.run(  # noqa: S603 - the Dockerfile's own command
            [sys.executable, *arguments], env=environment, capture_output=True, timeout=30
        )
        server.shutdown()
    assert asked.returncode == code, asked.stderr


def test_the_image_is_made_of_files_that_are_here_and_let_in() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    ]
    assert {"domain", "application", "adapters", "pyproject.toml"} <= set(copied)
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in let_in


def test_the_cuda_build_is_an_extra_of_the_package() -> None:
    extra = read("compose.cuda.yaml")["services"]["portico"]["build"]["args"]["EXTRA"]
    assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()
