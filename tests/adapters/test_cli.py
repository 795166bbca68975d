"""The command line, as a newcomer types it."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adapters.cli.main import app
from tests.servers import model_folder


def portico(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=said)


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from adapters.cli.main import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'fastapi', 'uvicorn', 'pydantic',"
        " 'huggingface_hub', 'dependency_injector'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program


def test_a_server_starts_without_importing_mlx() -> None:
    program = (
        "import sys; from adapters.cli.serve import application;"
        "from adapters.container import Container; from adapters.settings import Settings;"
        "application(Container(settings=Settings()));"
        "heavy = {'mlx', 'mlx_lm', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program


def test_help_names_every_command() -> None:
    answer = portico("--help")
    assert answer.exit_code == 0
    for command in ("serve", "chat", "models", "version"):
        assert command in answer.output


def test_versions_are_told() -> None:
    answer = portico("version")
    assert answer.output.startswith("portico-mlx ")
    assert "mlx-lm " in answer.output


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
    assert "`nope` does not exist" in unknown.output
