"""Every setting there is: from the environment, a TOML file and the command line."""

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEMO_MODEL = "portico/demo"

ModelRef = Annotated[str, Field(min_length=1)]


def _listed(value: object) -> object:
    """In the environment a list is written with commas, or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


class ModelSettings(BaseModel):
    """What one model has of its own; what is not said here is as it is for all.

    0 is for "none": it undoes what is set for all, and TOML has no null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pinned: bool = False
    idle_ttl: float | None = Field(None, ge=0)
    context_length: int | None = Field(None, ge=0)
    kv_concurrency: int | None = Field(None, ge=0, le=1024)
    kv_bits: Literal[0, 4, 8] | None = None


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
    burst: int = Field(16, ge=1)
    kv_bytes_per_token: int = Field(0, ge=0)


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
    models_dir: Path = Field(
        Path("~/.portico/models"), description="Models of your own, as `portico convert` writes"
    )
    memory_budget_gb: float | None = Field(
        None, gt=0, description="For all loaded models together; None: what the device allows"
    )
    max_cache_size_gb: float | None = Field(None, ge=0, description="MLX's own buffer cache")
    idle_ttl: float | None = Field(
        None, gt=0, description="Seconds without a request after which a model leaves"
    )
    context_length: int | None = Field(
        None, ge=1, description="The most tokens of a request; None: the model's, or what fits"
    )
    kv_concurrency: int | None = Field(
        None, ge=1, le=1024, description="Requests of full length that the KV reserve holds"
    )
    kv_bits: Literal[4, 8] | None = Field(None, description="Quantise KV caches to so many bits")
    models: dict[str, ModelSettings] = Field({}, description="What single models have of their own")
    offline: bool = Field(False, description="Never look anything up on the hub")
    allow_pulls: bool = Field(True, description="Whether the API may download and delete models")
    stall_timeout: float = Field(
        30.0, gt=0, description="Seconds without a byte after which a download has stalled"
    )
    api_key: SecretStr | None = Field(None, description="Asked for on every API route, if set")
    max_choices: int = Field(8, ge=1, le=128, description="The most choices (n) of one prompt")
    max_body_mb: float = Field(64.0, gt=0, description="The largest request body")
    max_batch_size: int = Field(32, ge=1, le=1024, description="Requests that decode together")
    prefill_step_size: int | None = Field(
        None, ge=16, description="Prompt tokens between two chances to decode or cancel"
    )
    prefill_pace: float = Field(
        2.0, gt=0, description="Decode steps that a slice of prefill may take while others decode"
    )
    prefix_cache: bool = Field(
        True, description="Keep states of prompts in memory, for those that begin alike"
    )
    prefix_cache_disk_gb: float = Field(
        0.0, ge=0, description="And on disk, up to so much; 0 is not at all"
    )
    prefix_cache_dir: Path = Field(Path("~/.portico/prefixes"), description="Where on disk")
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

    @property
    def pinned_models(self) -> tuple[str, ...]:
        """The models that are in memory from the start, and stay."""
        return tuple(name for name, own in self.models.items() if own.pinned)

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
