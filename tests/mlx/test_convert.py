"""`portico convert`: real conversions of tiny models, and what is refused."""

import asyncio
import json
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from adapters.container import Container
from adapters.settings import Settings
from domain.chat import ChatCommand, Message, Sampling
from domain.conversion import Conversion
from domain.errors import InvalidRequest
from domain.events import assemble
from domain.models import ModelId
from tests.command_line import portico
from tests.tiny import QWEN3, make_model


@pytest.fixture(autouse=True)
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTICO_MODELS_DIR", str(tmp_path / "mine"))
    return tmp_path / "mine"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even an attempt."""

    def refuse(*arguments: object) -> NoReturn:
        raise AssertionError(f"connected to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def answer(settings: Settings, model: str) -> str:
    return asyncio.run(_answer(settings, model))


async def _answer(settings: Settings, model: str) -> str:
    container = Container(settings=settings)
    sampling = Sampling(temperature=0, max_tokens=8)
    command = ChatCommand(ModelId.parse(model), (Message.user("What is Portico?"),), sampling)
    try:
        events = [event async for event in container.complete_chat()(command)]
    finally:
        await container.models().close()
    return assemble(events).text


def test_a_folder_becomes_a_smaller_model_of_the_catalog(tmp_path: Path, models_dir: Path) -> None:
    source = make_model(tmp_path / "tiny", eos=False)
    (source / "modeling.py").write_text("raise SystemExit")
    done = portico("convert", str(source), "--bits", "4")
    assert done.exit_code == 0, done.stderr
    before, after = (folder / "model.safetensors" for folder in (source, models_dir / "tiny-4bit"))
    assert after.stat().st_size < before.stat().st_size / 2
    assert "has become tiny-4bit" in done.stdout
    assert done.stdout.endswith("Chat with it: portico chat tiny-4bit\n")
    assert [folder.name for folder in models_dir.iterdir()] == ["tiny-4bit"]
    assert not list(models_dir.glob("*/*.py"))
    (listed,) = (
        model
        for model in json.loads(portico("models", "--json").stdout)["data"]
        if model["id"] == "tiny-4bit"
    )
    assert listed["quantization"] == "4-bit"


def test_what_was_converted_generates(tmp_path: Path, models_dir: Path) -> None:
    source = make_model(tmp_path / "tiny", eos=False)
    assert portico("convert", str(source)).exit_code == 0
    assert answer(Settings(), "tiny-4bit")


def test_the_demo_model_converts(models_dir: Path) -> None:
    done = portico("convert", "portico/demo", "--bits", "8", "--name", "me/demo", "--json")
    told = json.loads(done.stdout)
    assert told["id"] == "me/demo"
    assert told["location"] == str(models_dir / "me" / "demo")
    assert told["quantization"] == "8-bit"
    assert told["size_bytes"] < told["source"]["size_bytes"]
    assert answer(Settings(), "me/demo").startswith("Portico is an OpenAI-compatible")


def test_another_folder_is_served_by_its_name(tmp_path: Path) -> None:
    target = tmp_path / "else where"
    done = portico("convert", "portico/demo", "--output", str(target), "--dtype", "float16")
    assert done.exit_code == 0
    assert done.stdout.endswith(f"Serve it: portico serve --model '{target}'\n")
    assert (target / "config.json").is_file()


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    done = portico("convert", "portico/demo", "--output", str(target))
    assert done.exit_code == 1
    assert done.stderr == (
        f"portico: `{target}` is there already; delete it, or choose another name.\n"
    )
    assert not list(target.iterdir())


def spoiled(folder: Path, what: str) -> Path:
    config = dict(QWEN3)
    source = make_model(folder / "m", config, bits=4 if what == "quantised" else None)
    match what:
        case "a program":
            written = json.loads((source / "config.json").read_text())
            (source / "config.json").write_text(json.dumps(written | {"model_file": "m.py"}))
            (source / "m.py").write_text("raise SystemExit('run!')")
        case "damaged":
            weights = source / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-100])
        case "no safetensors":
            (source / "model.safetensors").rename(source / "pytorch_model.bin")
            (source / "model.safetensors.index.json").unlink(missing_ok=True)
        case "of an unknown kind":
            (source / "config.json").write_text(json.dumps(config | {"model_type": "nope"}))
        case "without a tokenizer":
            (source / "tokenizer.json").write_text("{")
    return source


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("a program", "never runs code"),
        ("damaged", "not a whole model in safetensors form"),
        ("no safetensors", "not a whole model in safetensors form"),
        ("quantised", "is quantised already"),
        ("of an unknown kind", "could not be converted: Model type nope not supported."),
        ("without a tokenizer", "converted"),
    ],
)
def test_what_can_not_be_converted_leaves_nothing(
    tmp_path: Path, models_dir: Path, what: str, words: str
) -> None:
    done = portico("convert", str(spoiled(tmp_path, what)), "--json")
    assert done.exit_code == 1, done.exception
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not models_dir.exists() or not list(models_dir.iterdir())


def test_a_group_that_no_layer_can_be_cut_into_is_refused(tmp_path: Path) -> None:
    narrow = dict(QWEN3, hidden_size=32, intermediate_size=32, num_attention_heads=1)
    narrow["num_key_value_heads"] = 1
    done = portico("convert", str(make_model(tmp_path / "narrow", narrow)))
    assert done.exit_code == 1
    assert "choose a smaller group size" in done.stderr


def test_wrong_usage_is_told_before_anything_is_read(tmp_path: Path) -> None:
    assert portico("convert", "portico/demo", "--bits", "7").exit_code == 2
    assert portico("convert", "x/y", "--name", "a", "--output", "b").exit_code == 2
    assert portico("convert", "./nothing").exit_code == 2
    for wrong in ({"bits": 7}, {"group_size": 16}, {"dtype": "int8"}):
        with pytest.raises(InvalidRequest):
            Conversion(**wrong)  # type: ignore[arg-type]
