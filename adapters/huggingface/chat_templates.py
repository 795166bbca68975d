"""What a model's chat template lets it do, read from its files without running anything."""

import json
import re
from pathlib import Path

from domain.models import Capabilities

# The marks by which mlx-lm knows thinking (mlx_lm/tokenizer_utils.py, 0.32), and the switch that
# templates have for it.
_THINKING = re.compile(
    r"<think>|<longcat_think>|<\|think:start\|>|<\|channel>thought|enable_thinking"
)
_THINKING_TOKENS = re.compile(r'"(<think>|<longcat_think>|<\|think:start\|>)"')
_TOOLS = re.compile(r"\btools\b")
_CODED_TEMPLATES = frozenset({"deepseek_v32", "muse_spark"})  # mlx-lm's own, in Python


def capabilities(location: Path) -> Capabilities:
    """Raises ValueError or TypeError for a tokenizer_config.json that is no JSON object."""
    settings = _tokenizer_settings(location)
    if settings.get("chat_template_type") in _CODED_TEMPLATES:
        return Capabilities(chat_template=True, tools=True, thinking=True)
    template = "\n".join([*_texts(settings.get("chat_template")), *_template_files(location)])
    if not template.strip():
        return Capabilities()
    return Capabilities(
        chat_template=True,
        tools=_TOOLS.search(template) is not None,
        thinking=_THINKING.search(template) is not None or _has_thinking_tokens(location),
    )


def _tokenizer_settings(location: Path) -> dict[str, object]:
    text = _read(location / "tokenizer_config.json")
    settings = json.loads(text) if text else {}
    if not isinstance(settings, dict):
        raise TypeError("tokenizer_config.json is no object")
    return settings


def _template_files(location: Path) -> list[str]:
    in_json = _read(location / "chat_template.json")
    parsed = json.loads(in_json) if in_json else {}
    jinja = _read(location / "chat_template.jinja")
    return [jinja, *_texts(parsed.get("chat_template") if isinstance(parsed, dict) else None)]


def _texts(template: object) -> list[str]:
    """A template, or several with names: [{"name": "tool_use", "template": "..."}]."""
    if isinstance(template, str):
        return [template]
    named = template if isinstance(template, list) else []
    return [entry.get("template", "") for entry in named if isinstance(entry, dict)]


def _has_thinking_tokens(location: Path) -> bool:
    names = ("tokenizer_config.json", "tokenizer.json")
    return any(_THINKING_TOKENS.search(_read(location / name)) for name in names)


def _read(file: Path) -> str:
    return file.read_text("utf-8") if file.is_file() else ""
