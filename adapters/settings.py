"""Every setting there is: from the environment, a TOML file and the command line."""

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEMO_MODEL = "portico/demo"

_DEFAULT_MEMORY_SHARE = 0.7  # of the machine's memory; the rest is for KV caches and other programs

ModelRef = Annotated[str, Field(min_length=1)]


def _listed(value: object) -> object:
    """In the environment a list is written with commas, or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def machine_memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class ScriptSettings(BaseModel):
    """What the scripted backend says, how fast (delays in seconds), and when it breaks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reply: str = ""
    replies: dict[str, str] = {}
    token_delay: float = Field(0.0, ge=0)
    prompt_delay: float = Field(0.0, ge=0)
    load_delay: float = Field(0.0, ge=0)
    fail_after: int = Field(-1, ge=-1)
    hang_after: int = Field(-1, ge=-1)
    fail_load: bool = False
    slots: int = Field(32, ge=1)


class Settings(BaseSettings):
    """Rising order: defaults, environment (`PORTICO_…`), TOML file, arguments (flags)."""

    model_config = SettingsConfigDict(
        env_prefix="PORTICO_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    backend: Literal["mlx", "scripted"] = "mlx"
    available_models: Annotated[tuple[ModelRef, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (),
        description="Hub ids in the local cache, or folders; empty: the whole cache and the demo",
    )
    default_model: ModelRef | None = Field(None, description="Used when a request names no model")
    memory_budget_gb: float = Field(
        default_factory=lambda: round(machine_memory() * _DEFAULT_MEMORY_SHARE / 1e9, 1),
        gt=0,
        description="For the weights of all loaded models together",
    )
    max_cache_size_gb: float | None = Field(None, ge=0, description="MLX's own buffer cache")
    api_key: SecretStr | None = Field(None, description="Asked for on every API route, if set")
    max_choices: int = Field(8, ge=1, le=128, description="The most choices (n) of one prompt")
    max_body_mb: float = Field(64.0, gt=0, description="The largest request body")
    max_batch_size: int = Field(32, ge=1, le=1024, description="Requests that decode together")
    prefill_step_size: int | None = Field(
        None, ge=16, description="Prompt tokens between two chances to decode or cancel"
    )
    max_waiting: int = Field(1024, ge=1, description="Requests that may wait for a model")
    shutdown_grace: float = Field(30.0, ge=0, description="Seconds for streams to finish")
    first_event_patience: float = Field(
        5.0, gt=0, description="Seconds before a stream without a token says that it is waiting"
    )
    hang_timeout: float = Field(
        30.0, gt=0, description="Seconds of silence amid work after which an engine counts as hung"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    scripted: ScriptSettings = ScriptSettings()

    @property
    def offered_default(self) -> str | None:
        """The model of requests that name none."""
        return self.default_model or (None if self.available_models else DEMO_MODEL)

    @classmethod
    def load(cls, config: Path | None = None, **flags: Any) -> Self:
        """Read every source. `config` names a TOML file that must exist.

        Without it, `PORTICO_CONFIG` does, and else `portico.toml` in the working directory is
        read if there is one. Flags that are None were not given. Raises pydantic.ValidationError,
        tomllib.TOMLDecodeError and FileNotFoundError.
        """
        named = config or os.environ.get("PORTICO_CONFIG")
        path = Path(named or "portico.toml")
        written = tomllib.loads(path.read_text("utf-8")) if named or path.is_file() else {}
        given = {name: value for name, value in flags.items() if value is not None}
        return cls(**(written | given))
