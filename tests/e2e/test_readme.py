"""Every snippet of the README runs, and says what it should."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from adapters.cli import library, remote
from adapters.cli.main import app
from adapters.mlx import demo
from adapters.settings import Settings
from tests.e2e.conftest import Program, portico_serve
from tests.servers import model_folder
from tests.stub_hub import stub_hub
from tests.terminal import command, on_a_terminal

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in SNIPPETS if language == "python"]
SHELL = [line for language, code in SNIPPETS if language == "sh" for line in code.splitlines()]


def run(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(  # noqa: S603 - our own README
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command_of(line: str) -> list[str]:
    return shlex.split(line.partition("#")[0])


def test_there_are_no_other_snippets() -> None:
    assert len(PYTHON) == 3
    assert {language for language, _ in SNIPPETS} == {"python", "sh"}
    commands = [command_of(line) for line in SHELL]
    assert [c[:2] for c in commands] == [
        ["make", "serve"],
        ["make", "chat"],
        ["portico", "search"],
        ["portico", "pull"],
        ["portico", "chat"],
        ["portico", "models"],
        ["portico", "convert"],
        ["portico", "serve"],
        ["portico", "models"],
    ]


def test_the_client_snippet(demo_server: Program, tmp_path: Path) -> None:
    code = PYTHON[0].replace("http://127.0.0.1:8000", demo_server.url)
    assert run(code, tmp_path).startswith("Portico is an OpenAI-compatible inference server")


def test_the_in_process_snippet(tmp_path: Path) -> None:
    said = run(PYTHON[1], tmp_path)
    assert said.startswith("Portico is an OpenAI-compatible inference server")


def test_leaving_amid_an_answer_without_closing_ends_cleanly(tmp_path: Path) -> None:
    code = PYTHON[1].replace(
        "    print(assemble([event async for event in container.complete_chat()(command)]).text)",
        "    async for event in container.complete_chat()(command):\n        raise SystemExit(7)",
    )
    assert code != PYTHON[1]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60)  # noqa: S603
    assert done.returncode == 7


def test_the_fake_backend_snippet(tmp_path: Path) -> None:
    assert run(PYTHON[2], tmp_path) == ""


def test_make_chat_answers(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "chat"],  # noqa: S607
        cwd=ROOT,
        env=outside_make(tmp_path),
        input="What is Portico?",
        capture_output=True,
        text=True,
        check=True,
        timeout=300,  # it may set up the environment first
    )
    assert "Portico is an OpenAI-compatible inference server" in done.stdout


@pytest.mark.timeout(300)
def test_make_serve_serves(tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["make", "serve", "ARGS=--port 0"],  # noqa: S607
        cwd=ROOT,
        env=outside_make(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "running on" in line)
        url = line.split("running on ")[1].split()[0]
        code = PYTHON[0].replace("http://127.0.0.1:8000", url)
        assert run(code, tmp_path).startswith("Portico is an OpenAI-compatible inference server")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        process.stderr.close()


def outside_make(home: Path) -> dict[str, str]:
    """The environment without what `make test` put into it."""
    made = {"ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}
    kept = {name: value for name, value in os.environ.items() if name not in made}
    return kept | {"HF_HOME": str(home / "huggingface")}


@pytest.mark.timeout(300)
def test_the_commands_to_get_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a hub whose models of these names are the demo model."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    lines = [command_of(line)[1:] for line in SHELL if line.startswith("portico")]
    search, pull, chat, rm, convert = lines[:5]
    with stub_hub() as hub:
        hub.add_folder(pull[1], demo.FOLDER)
        hub.add_folder(convert[1], demo.FOLDER)
        own = {"HF_ENDPOINT": hub.url, "PORTICO_MODELS_DIR": str(tmp_path / "mine")}
        assert pull[1] in on_a_terminal(command(*search), own)
        assert f"portico chat {chat[1]}" in on_a_terminal(command(*pull), own)
        asked = on_a_terminal(command(*chat), own, said="What is Portico?\n/exit\n")
        assert "Portico is an OpenAI-compatible inference server" in asked
        assert "Deleted" in on_a_terminal(command(*rm), own, said="y\n")
        assert "portico chat Qwen3-4B-4bit" in on_a_terminal(command(*convert), own)


def registered(commands: typer.Typer) -> list[str]:
    return [
        info.name or info.callback.__name__
        for info in commands.registered_commands
        if info.callback is not None
    ]


def test_the_page_on_the_command_line_names_every_command() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    declared = [
        *(
            (name, "")
            for commands in (app, library.app, remote.app)
            for name in registered(commands)
        ),
        *((name, "models ") for name in registered(library.models_app)),
    ]
    names = {f"{group}{name}" for name, group in declared}
    assert not [name for name in names if f"`portico {name}" not in page]


def test_the_commands_for_own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`portico serve --model … --model ~/models/my-own`, and `portico models`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    model_folder(tmp_path / "models", "my-own")
    flags = next(line for line in SHELL if line.startswith("portico serve --model"))
    with portico_serve(tmp_path, *shlex.split(flags)[2:]) as program:
        listed = subprocess.run(
            [sys.executable, "-m", "adapters.cli.main", "models", "-m", "~/models/my-own"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"COLUMNS": "120"},
        )
        assert "my-own" in listed.stdout
        assert program.url


def test_the_settings_page_names_every_setting_and_its_example_is_valid() -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    named = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert named == set(Settings.model_fields)
    examples = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    example, drafts = (Settings(**tomllib.loads(text)) for text in examples)
    assert example.port == 8080
    (pair,) = drafts.models.values()
    assert pair.draft_model and pair.num_draft_tokens == 4
