"""`portico convert`."""

import asyncio
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from adapters.cli.output import make_console, write_json
from adapters.cli.pull import find, pull, reporter
from adapters.cli.session import read_id, read_settings, told
from adapters.container import Container
from adapters.settings import Settings
from domain.conversion import Conversion
from domain.errors import InvalidRequest, ModelNotFound
from domain.models import ModelCard, ModelId
from domain.sizes import size


def run(
    config: Path | None,
    *,
    source: str,
    bits: int,
    group_size: int,
    dtype: str | None,
    name: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    settings = read_settings(config, {})
    with told():
        before = _source(settings, source)
        target = output.expanduser() if output else _target(settings, before, name, bits)
        with Console(stderr=True, highlight=False).status(f"Converting {escape(source)}"):
            # On this very thread, the main one; see MlxConverter.
            converter = Container(settings=settings).converter()
            converter.convert(before, target, Conversion(bits, group_size, dtype))
        after = _model_in(settings, target)
        offered = asyncio.run(_offered_as(settings, after))
    if as_json:
        write_json(_document(before, after, offered))
    else:
        console = make_console()
        console.print(_sizes(before, after), markup=False, soft_wrap=True)
        console.print(_next_step(after, offered), markup=False, soft_wrap=True)


def _source(settings: Settings, source: str) -> ModelCard:
    """A folder, else a model of the cache, else one of the hub, which is pulled."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _model_in(settings, folder)
    model = read_id(source)
    try:
        return asyncio.run(find(settings, model))
    except ModelNotFound:
        with reporter(Console(stderr=True, highlight=False), model, as_json=False) as report:
            pull(settings, model, None, report)
    return asyncio.run(find(settings, model))


def _target(settings: Settings, source: ModelCard, name: str | None, bits: int) -> Path:
    folder = str(read_id(name)) if name else f"{source.id.text.rpartition('/')[2]}-{bits}bit"
    return settings.models_dir.expanduser() / folder


def _model_in(settings: Settings, folder: Path) -> ModelCard:
    """Raises InvalidRequest."""
    only = settings.model_copy(update={"available_models": (str(folder),)})
    card = _at(folder, asyncio.run(Container(settings=only).catalog().all()))
    if card is None:
        raise InvalidRequest(f"`{folder}` is not a whole model in safetensors form.")
    return card


async def _offered_as(settings: Settings, model: ModelCard) -> ModelId | None:
    """The id by which Portico serves it, if it does."""
    card = _at(model.location, await Container(settings=settings).catalog().all())
    return card.id if card else None


def _at(folder: Path, cards: tuple[ModelCard, ...]) -> ModelCard | None:
    here = folder.resolve()
    return next((card for card in cards if card.location.resolve() == here), None)


def _document(before: ModelCard, after: ModelCard, offered: ModelId | None) -> dict[str, Any]:
    return {
        "id": offered and str(offered),
        "location": str(after.location),
        "size_bytes": after.weight_bytes,
        "quantization": after.quantization,
        "source": {
            "id": str(before.id),
            "location": str(before.location),
            "size_bytes": before.weight_bytes,
        },
    }


def _sizes(before: ModelCard, after: ModelCard) -> str:
    return (
        f"{before.id} ({size(before.weight_bytes)}) has become {after.id} "
        f"({size(after.weight_bytes)}) in {after.location}"
    )


def _next_step(after: ModelCard, offered: ModelId | None) -> str:
    if offered:
        return f"Chat with it: portico chat {offered}"
    return f"Serve it: portico serve --model {shlex.quote(str(after.location))}"
