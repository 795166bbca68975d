"""Every setting there is: from the environment, a TOML file and the command line."""

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain.errors import InvalidRequest
from domain.hosts import is_host_pattern, is_loopback, is_origin
from domain.models import ModelId

DEMO_MODEL = "portico/demo"
DEFAULT_KEY = "default"  # the name of the one in `api_key`
_PREFIX = "PORTICO_"
_NO_SETTINGS = {"CONFIG", "URL", "BENCH_API_KEY"}  # variables that commands read by themselves


def _listed(value: object) -> object:
    """In the environment a list is written with commas, or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def _of_a_key(digest: str) -> str:
    if digest == hashlib.sha256(b"").hexdigest():
        raise ValueError("this is the digest of an empty key")
    return digest


def _plain_key(key: SecretStr | None) -> SecretStr | None:
    text = key.get_secret_value() if key else ""
    if key is not None and (not text or text != text.strip() or not text.isprintable()):
        raise ValueError("a key is printable, neither begins nor ends with a space, and not empty")
    return key


def _model_id(name: str) -> str:
    try:
        return str(ModelId.parse(name))
    except InvalidRequest as error:
        raise ValueError(str(error)) from error


def _host_patterns(hosts: tuple[str, ...]) -> tuple[str, ...]:
    if not all(is_host_pattern(host) for host in hosts):
        raise ValueError("a host is a name, an address, `*.example.com` or `*`, without a port")
    return hosts


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    if not all(origin == "*" or is_origin(origin) for origin in origins):
        raise ValueError("an origin is like `https://chat.example.com`, in lower case, or `*`")
    return origins


ModelRef = Annotated[str, Field(min_length=1)]  # an id, or a folder
ModelName = Annotated[str, AfterValidator(_model_id)]


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
    isolation: Literal["thread", "process"] | None = None
    draft_model: ModelName | None = Field(
        None, description="A small model of the same vocabulary, which guesses what this one says"
    )
    num_draft_tokens: int | None = Field(
        None, ge=1, le=16, description="Its guesses at a time; None: 4"
    )

    @model_validator(mode="after")
    def _guesses_have_an_author(self) -> Self:
        if self.num_draft_tokens is not None and self.draft_model is None:
            raise ValueError("`num_draft_tokens` needs a `draft_model`")
        return self


class KeySettings(BaseModel):
    """One API key, without the key itself, and what it opens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", repr=False), AfterValidator(_of_a_key)]
    requests_per_minute: int | None = Field(None, ge=1, description="None: as many as it likes")
    tokens_per_minute: int | None = Field(
        None,
        ge=1,
        description="Of prompts and answers; what a request may take is held while it runs",
    )
    models: tuple[ModelName, ...] | None = Field(
        None, description="The only models that it may use; with these it can't manage the server"
    )
    cache_scope: str | None = Field(
        None, min_length=1, description="Keys of one scope share the prefix cache; None: its own"
    )


KeyName = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]
ApiKeys = dict[KeyName, KeySettings]


class ScriptSettings(BaseModel):
    """What the scripted backend says, how fast (delays in seconds), and when it breaks."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it may be a key
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    backend: Literal["mlx", "scripted"] = "mlx"
    available_models: Annotated[tuple[ModelRef, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (),
        description="Hub ids in the local cache, or folders; empty: the whole cache and the demo",
    )
    default_model: ModelName | None = Field(None, description="Used when a request names no model")
    models_dir: Path = Field(
        Path("~/.portico/models"), description="Models of your own, as `portico convert` writes"
    )
    memory_budget_gb: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="For all loaded models together; None: what the device allows",
    )
    max_cache_size_gb: float | None = Field(
        None, ge=0, le=1e6, description="MLX's own buffer cache"
    )
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
    models: dict[ModelName, ModelSettings] = Field(
        {}, description="What single models have of their own"
    )
    offline: bool = Field(False, description="Never look anything up on the hub")
    allow_pulls: bool | None = Field(
        None,
        description="Whether the API may download and delete models; None: on loopback only",
    )
    stall_timeout: float = Field(
        30.0, gt=0, description="Seconds without a byte after which a download has stalled"
    )
    api_key: Annotated[SecretStr | None, AfterValidator(_plain_key)] = Field(
        None, description="Asked for on every route but liveness, if set; it may do anything"
    )
    api_keys: ApiKeys = Field({}, description="More keys by name, as `portico key new` writes them")
    allowed_hosts: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_host_patterns)
    ] = Field((), description="Names that the server answers to, beyond its own")
    cors_origins: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_origins)
    ] = Field((), description="Web pages that may use the server, by their origins")
    ssl_certfile: Path | None = Field(None, description="Serve over TLS with this certificate")
    ssl_keyfile: Path | None = Field(None, description="Its key, unless it is in the same file")
    ssl_keyfile_password: SecretStr | None = Field(None, description="If the key is encrypted")
    max_choices: int = Field(8, ge=1, le=128, description="The most choices (n) of one prompt")
    max_prompt_chars: int = Field(
        2_000_000, ge=1, description="The longest prompt, before it is made into tokens"
    )
    max_schema_chars: int = Field(
        200_000, ge=1, description="The longest JSON schema or grammar of a request"
    )
    max_schema_depth: int = Field(64, ge=1, le=128, description="And how deep it may be nested")
    max_body_mb: float = Field(16.0, gt=0, le=1e5, description="The largest request body")
    max_body_values: int = Field(
        20_000,
        ge=100,
        description="The most objects, arrays and keys of a body; 25 items count as one",
    )
    max_header_kb: float = Field(16.0, ge=1, le=256, description="The largest request head")
    max_connections: int = Field(4096, ge=1, le=1_000_000, description="Open at one time")
    header_timeout: float = Field(
        10.0,
        gt=0,
        description="Seconds for TLS to be agreed on, and for the head of a request to come",
    )
    body_timeout: float = Field(
        30.0, gt=0, description="Seconds for a body to come, and one more for every 64 KiB"
    )
    write_timeout: float = Field(
        30.0, gt=0, description="Seconds for a client to take what it is sent, or 64 KiB of it"
    )
    keep_alive_timeout: float = Field(
        60.0, gt=0, description="Seconds that a connection may be idle between two requests"
    )
    request_timeout: float = Field(
        3600.0, gt=0, description="Seconds that a request may take, waiting included"
    )
    max_batch_size: int = Field(32, ge=1, le=1024, description="Requests that decode together")
    prefill_step_size: int | None = Field(
        None, ge=16, description="Prompt tokens between two chances to decode or cancel"
    )
    prefill_pace: float | None = Field(
        None,
        gt=0,
        description="Decode steps that a slice of prefill may take while others decode; None: 2; "
        "on a CPU up to 4, and 1.25 for long prompts",
    )
    prompt_lookup_tokens: int = Field(
        8,
        ge=0,
        le=16,
        description="The most tokens guessed at a time where a text repeats itself; 0: none",
    )
    prefix_cache: bool = Field(
        True, description="Keep states of prompts in memory, for those that begin alike"
    )
    prefix_cache_disk_gb: float = Field(
        0.0, ge=0, le=1e6, description="And on disk, up to so much; 0 is not at all"
    )
    prefix_cache_dir: Path = Field(Path("~/.portico/prefixes"), description="Where on disk")
    max_waiting: int = Field(
        1024, ge=1, description="Requests that may wait, for memory or for a place in a batch"
    )
    shutdown_grace: float = Field(30.0, ge=0, description="Seconds for streams to finish")
    first_event_patience: float = Field(
        5.0, gt=0, description="Seconds before a stream without a token says that it is waiting"
    )
    isolation: Literal["thread", "process"] = Field(
        "thread", description="Where engines run: in the server, or in a process for each model"
    )
    hang_timeout: float = Field(
        30.0, gt=0, description="Seconds of silence amid work after which an engine counts as hung"
    )
    load_timeout: float = Field(
        300.0,
        gt=0,
        description="Seconds after which a load counts as hung, and one more for 20 MB of weights",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: for people on a terminal, JSON anywhere else"
    )
    metrics: bool = Field(True, description="Whether `GET /metrics` tells Prometheus how it goes")
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        repr=False,  # it may hold a password
        description="Where traces go, over OTLP/HTTP: http://127.0.0.1:4318",
    )
    scripted: ScriptSettings = ScriptSettings()

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        digests = [key.sha256 for key in self.api_keys.values()]
        if len(set(digests)) < len(digests):
            raise ValueError("two names in `api_keys` have the same key")
        if self.api_key and DEFAULT_KEY in self.api_keys:
            raise ValueError(f"`api_key` is called `{DEFAULT_KEY}`, as is one of `api_keys`")
        if self.ssl_certfile is None and (self.ssl_keyfile or self.ssl_keyfile_password):
            raise ValueError("`ssl_keyfile` needs an `ssl_certfile`")
        return self

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the server."""
        return not is_loopback(self.host)

    @property
    def offers_pulls(self) -> bool:
        """Whether the API may download and delete models."""
        return not self.is_public if self.allow_pulls is None else self.allow_pulls

    @property
    def offered_default(self) -> str | None:
        """The model of requests that name none."""
        return self.default_model or (None if self.available_models else DEMO_MODEL)

    @property
    def pinned_models(self) -> tuple[str, ...]:
        """The models that are in memory from the start, and stay."""
        return tuple(name for name, own in self.models.items() if own.pinned)

    @property
    def traces(self) -> bool:
        """Whether they are sent: to `otlp_endpoint`, or where OpenTelemetry's own variables say."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        exporters = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
        if self.otlp_endpoint or exporters == "none":
            return bool(self.otlp_endpoint)
        named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        return exporters == "otlp" or any(os.environ.get(name) for name in named)

    @classmethod
    def unknown_variables(cls) -> list[str]:
        """Those of the environment that look like settings, and are none."""
        known = {name.upper() for name in cls.model_fields} | _NO_SETTINGS
        named = (name for name in os.environ if name.upper().startswith(_PREFIX))
        return sorted(n for n in named if n.upper()[len(_PREFIX) :].split("__")[0] not in known)

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
