"""The embedded demo model: weights, tokenizer and config, and the recipe that makes them."""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
