"""Makes the pictures of the docs: `make docs-captures`.

The real program pulls from a stub hub, on a terminal of its own; a picture is what stood there at
one moment.
"""

import os
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.stub_hub import Fault, stub_hub
from tests.terminal import command, on_a_terminal
from tests.tiny import QWEN3, make_model

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MODEL = "mlx-community/Tiny-Qwen3"
COLUMNS = 92
RATE = 12_000_000  # bytes a second, from the hub

# About 110 MB with random weights.
_CONFIG = QWEN3 | {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, stub_hub() as hub:
        hub.add_folder(MODEL, make_model(Path(folder) / "model", _CONFIG))
        hub.faults.append(Fault(path="/cdn/", rate=RATE))
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(Path(folder) / "huggingface")}
        screen = on_a_terminal(command("pull", MODEL), environment, columns=COLUMNS)
    frames = re.split(r"[\r\n]+", screen)
    amid = next(frame for frame in frames if 55 <= _percent(frame) <= 70)
    _save("pull", f"portico pull {MODEL}", amid)


def _percent(frame: str) -> float:
    found = re.search(r"downloading.* ([\d.]+) MB of ([\d.]+) MB", frame)
    return 100 * float(found[1]) / float(found[2]) if found else 0


def _save(name: str, typed: str, frame: str) -> None:
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        console.print(f"[bold green]$[/] {typed}", highlight=False)
        console.print(Text.from_ansi(frame))
        IMAGES.mkdir(exist_ok=True)
        picture = console.export_svg(title="portico", unique_id=f"portico-{name}")
    (IMAGES / f"{name}.svg").write_text(picture, "utf-8")
    print(IMAGES / f"{name}.svg")


if __name__ == "__main__":
    main()
