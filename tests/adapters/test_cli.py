"""The command line, as a newcomer types it."""

import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tests.command_line import portico
from tests.servers import model_folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from adapters.cli.main import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'fastapi', 'uvicorn', 'pydantic',"
        " 'huggingface_hub', 'dependency_injector', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program


def test_a_server_starts_without_importing_what_is_slow() -> None:
    program = (
        "import sys; from adapters.cli.serve import application;"
        "from adapters.container import Container; from adapters.settings import Settings;"
        "application(Container(settings=Settings()));"
        "slow = {'mlx_lm', 'numpy', 'transformers'} & set(sys.modules); assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program


STARTING = """
import os, sys, threading, time, urllib.request

def look():
    while True:
        try:
            urllib.request.urlopen("http://127.0.0.1:{port}/livez").read()
            break
        except OSError:
            time.sleep(0.01)
    heavy = {{"llguidance", "mlx_lm", "numpy", "tokenizers", "torch", "transformers"}}
    imported = heavy & set(sys.modules)
    print(*imported, file=sys.stderr, flush=True)
    os._exit(len(imported))

threading.Thread(target=look, daemon=True).start()
sys.argv = ["portico", "serve", "--port", "{port}", "--log-level", "warning"]
from adapters.cli.main import main
main()
"""


def test_a_server_answers_before_anything_of_a_model_is_imported() -> None:
    program = STARTING.format(port=free_port())
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)  # noqa: S603 - ours


def test_a_server_does_not_wait_for_the_hubs_client() -> None:
    program = (
        "import sys; from adapters.container import Container; from adapters.settings import"
        " Settings; Container(settings=Settings()).pulls();"
        "heavy = {'adapters.huggingface.source', 'huggingface_hub.hf_api'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program


def test_help_names_every_command() -> None:
    answer = portico("--help")
    assert answer.exit_code == 0
    commands = "serve chat version search pull convert models ps load unload bench"
    for command in commands.split():
        assert command in answer.output


def test_versions_are_told() -> None:
    answer = portico("version")
    assert answer.output.startswith("portico-mlx ")
    assert "mlx-lm " in answer.output


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_mlx(name: str) -> str:
        if name == "mlx":
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr("adapters.cli.version.version", without_mlx)
    answer = portico("version")
    assert answer.exit_code == 0
    assert answer.output == "portico-mlx 1.2.3\nmlx not installed\nmlx-lm 1.2.3\n"


def test_models_are_listed(tmp_path: Path) -> None:
    model_folder(tmp_path / "m", "org/one", size=2_500_000)
    answer = portico("models", "--model", str(tmp_path / "m"))
    assert answer.exit_code == 0
    assert "org/one" in answer.output
    assert "2.5 MB" in answer.output
    (tmp_path / "none").mkdir()
    assert "No models" in portico("models", "--model", str(tmp_path / "none")).output


def test_a_piped_question_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder(tmp_path / "m", "one")
    monkeypatch.setenv("PORTICO_AVAILABLE_MODELS", str(tmp_path / "m"))
    monkeypatch.setenv("PORTICO_SCRIPTED__REPLY", "<think>Hm.</think>Forty-two.")
    answer = portico("chat", "one", "--backend", "scripted", said="What is it?")
    assert answer.exit_code == 0
    assert "Forty-two." in answer.output
    assert "Hm." in answer.output


def test_wrong_settings_and_models_are_told_in_a_line(tmp_path: Path) -> None:
    wrong = portico("serve", "--port", "99999")
    assert wrong.exit_code == 2
    assert "setting `port`" in wrong.output
    missing = portico("models", "--config", str(tmp_path / "none.toml"))
    assert missing.exit_code == 2
    assert "none.toml" in missing.output
    unknown = portico("chat", "nope", "--backend", "scripted", said="x")
    assert unknown.exit_code == 1
    assert "portico: `nope` is not on this machine; `portico models` lists" in unknown.stderr


def test_chat_says_how_to_get_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = portico("chat", "org/m", "--backend", "scripted")
    assert unknown.exit_code == 1
    assert unknown.stderr == (
        "portico: `org/m` is not on this machine; `portico pull org/m` gets it.\n"
    )
    monkeypatch.setenv("PORTICO_AVAILABLE_MODELS", "org/m")
    hidden = portico("chat", "portico/demo", "--backend", "scripted")
    assert hidden.stderr == (
        "portico: `portico/demo` is on this machine, but not among your `available_models`.\n"
    )
