"""The composition root: which adapter stands behind which port."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

from dependency_injector import containers, providers
from huggingface_hub import constants

from adapters.http.request_facts import RequestFacts, RequestObserver
from adapters.huggingface.catalog import HuggingFaceCatalog
from adapters.huggingface.deferred import DeferredSource
from adapters.huggingface.pull_journal import FilePullJournal
from adapters.mlx import demo
from adapters.mlx.converter import MlxConverter
from adapters.mlx.drafting import DraftChoice, DraftingLoader
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from adapters.scripted.engine import Script, ScriptedLoader
from adapters.settings import DEMO_MODEL, ModelSettings, Settings
from application.answer import Watch
from application.complete_chat import CompleteChat
from application.complete_text import CompleteText
from application.list_models import GetModel, ListModels
from application.manage_models import (
    DeleteModel,
    DescribeModels,
    PreloadModels,
    SearchModels,
)
from application.model_pool import ModelPool
from application.pool_state import PoolLimits
from application.ports import EngineLoader, ModelCatalog, ModelConverter, ModelSource, PullJournal
from application.pull_models import PullModels
from application.record import Observer, Observers
from application.refuse_when_full import RefuseWhenFull
from domain.errors import InvalidRequest
from domain.memory import ModelPolicy
from domain.models import ModelId

if TYPE_CHECKING:
    from adapters.http.request_log import RequestSeen
    from adapters.telemetry.metrics import Metrics
    from adapters.telemetry.tracing import Tracing

logger = logging.getLogger("portico.container")

_DRAFT_TOKENS = 4  # guesses at a time, where nothing is set

_Number = TypeVar("_Number", int, float)


def _loader(settings: Settings, catalog: ModelCatalog) -> EngineLoader:
    loader = _plain_loader(settings)
    drafts = {
        ModelId.parse(name): DraftChoice(ModelId.parse(model.draft_model), _guesses(model))
        for name, model in settings.models.items()
        if model.draft_model
    }
    if not drafts or settings.backend == "scripted":
        return loader
    names = tuple(str(choice.model) for choice in drafts.values())
    not_offered = _local_models(settings, names)  # to clients; a draft need not be
    return DraftingLoader(loader, (catalog, not_offered), drafts)


def _guesses(model: ModelSettings) -> int:
    return model.num_draft_tokens or _DRAFT_TOKENS


def _plain_loader(settings: Settings) -> EngineLoader:
    make_loader = _make_loader(settings)
    own = _isolation(settings)

    def in_a_process(model: ModelId) -> bool:
        return (own.get(model) or settings.isolation) == "process"

    if "process" not in {settings.isolation, *own.values()}:
        return make_loader()
    isolated = import_module("adapters.isolated.loader")
    loader: EngineLoader = isolated.IsolatingLoader(
        make_loader(), make_loader, in_a_process, settings.hang_timeout, settings.load_timeout
    )
    return loader


def _isolation(settings: Settings) -> dict[ModelId, str]:
    """What is said of single models. The files of a draft are looked at where its model is, unless
    it has a word of its own.
    """
    of_drafts = {
        ModelId.parse(model.draft_model): model.isolation
        for model in settings.models.values()
        if model.draft_model and model.isolation
    }
    own = {
        ModelId.parse(name): model.isolation
        for name, model in settings.models.items()
        if model.isolation
    }
    return {**of_drafts, **own}


def _make_loader(settings: Settings) -> Callable[[], EngineLoader]:
    """Picklable, so that an engine process can call it, too."""
    if settings.backend == "scripted":
        script = Script(**settings.scripted.model_dump())
        return partial(ScriptedLoader, replace(script, slots=_slots(settings)))
    return partial(
        MlxEngineLoader,
        MlxOptions(
            max_batch_size=settings.max_batch_size,
            prefill_step_size=settings.prefill_step_size,
            prefill_pace=settings.prefill_pace,
            prefix_cache=settings.prefix_cache,
            prompt_lookup_tokens=settings.prompt_lookup_tokens,
            prefix_dir=settings.prefix_cache_dir.expanduser(),
            prefix_disk_bytes=_bytes(settings.prefix_cache_disk_gb) or 0,
            max_cache_bytes=_bytes(settings.max_cache_size_gb),
        ),
    )


def _catalog(settings: Settings) -> ModelCatalog:
    return _local_models(settings, settings.available_models)


def _local_models(settings: Settings, offered: tuple[str, ...]) -> ModelCatalog:
    return HuggingFaceCatalog(
        offered, {DEMO_MODEL: demo.FOLDER}, models_dir=settings.models_dir.expanduser()
    )


def _source(settings: Settings, catalog: ModelCatalog) -> ModelSource:
    def make() -> ModelSource:
        hub = import_module("adapters.huggingface.source")
        options = hub.HubOptions(offline=settings.offline, stall_timeout=settings.stall_timeout)
        source: ModelSource = hub.HuggingFaceSource(options, catalog.invalidate)
        return source

    return DeferredSource(make)


def _journal(settings: Settings) -> PullJournal:
    claims = settings.offers_pulls and not (settings.offline or constants.HF_HUB_OFFLINE)
    return FilePullJournal(claims=claims)


def _limits(settings: Settings, loader: EngineLoader) -> PoolLimits:
    return PoolLimits(
        _bytes(settings.memory_budget_gb) or loader.memory,
        max_waiting=settings.max_waiting,
        hang_timeout=settings.hang_timeout,
        load_timeout=settings.load_timeout,
        slots=_slots(settings),
        policy=_policy(settings, ModelSettings()),
        policies={
            ModelId.parse(name): _policy(settings, own) for name, own in settings.models.items()
        },
    )


def _slots(settings: Settings) -> int:
    """Requests of one model that run at once."""
    if settings.backend == "scripted":
        return min(settings.scripted.slots, settings.max_batch_size)
    return settings.max_batch_size


def _policy(settings: Settings, own: ModelSettings) -> ModelPolicy:
    return ModelPolicy(
        pinned=own.pinned,
        idle_ttl=_own(own.idle_ttl, settings.idle_ttl),
        context_length=_own(own.context_length, settings.context_length),
        concurrency=_own(own.kv_concurrency, settings.kv_concurrency),
        kv_bits=_own(own.kv_bits, settings.kv_bits),
    )


def _own(own: _Number | None, general: _Number | None) -> _Number | None:
    """What a model has of its own, if it says; 0 is none, whatever is set for all."""
    return general if own is None else own or None


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 1e9)


def _metrics(settings: Settings, models: ModelPool) -> "Metrics | None":
    if not settings.metrics:
        return None
    telemetry = import_module("adapters.telemetry.metrics")
    metrics: Metrics = telemetry.Metrics(models.snapshot, version("portico-mlx"), time.monotonic)
    models.watch(metrics.pool_event)
    return metrics


def _request_seen(metrics: "Metrics | None") -> "RequestSeen":
    """Who counts requests: those of the application, and those that never come that far."""

    def seen(facts: RequestFacts) -> None:
        if metrics:
            asked = facts.method, facts.handler
            metrics.request(*asked, facts.status, facts.known_model, facts.code)

    return seen


def _tracing(settings: Settings) -> "Tracing | None":
    """Raises InvalidRequest when traces are asked for, and can't be made."""
    if not settings.traces:
        return None
    try:
        telemetry = import_module("adapters.telemetry.tracing")
    except ModuleNotFoundError as error:
        missing = "Traces need OpenTelemetry: install portico-mlx[otel]."
        if settings.otlp_endpoint:
            raise InvalidRequest(missing, "otlp_endpoint") from error
        logger.warning(missing)  # the environment's variables may be meant for others
        return None
    tracing: Tracing = telemetry.over_otlp(settings.otlp_endpoint)
    return tracing


def _watch(*observers: Observer | None) -> Watch:
    return Watch(Observers(*(observer for observer in observers if observer)))


class Container(containers.DeclarativeContainer):
    """Made with `Container(settings=Settings.load())`.

    Override one provider to swap what is behind it: `container.loader.override(...)`.
    """

    settings = providers.Dependency(instance_of=Settings)

    catalog: providers.Provider[ModelCatalog] = providers.Singleton(_catalog, settings)
    loader: providers.Provider[EngineLoader] = providers.Singleton(_loader, settings, catalog)
    source: providers.Provider[ModelSource] = providers.Singleton(_source, settings, catalog)
    converter: providers.Provider[ModelConverter] = providers.Singleton(MlxConverter)
    limits = providers.Factory(_limits, settings, loader)
    models = providers.Singleton(
        ModelPool, catalog, loader, providers.Object(time.monotonic), limits
    )

    metrics = providers.Singleton(_metrics, settings, models)
    tracing = providers.Singleton(_tracing, settings)
    request_seen = providers.Singleton(_request_seen, metrics)
    watch = providers.Singleton(_watch, providers.Factory(RequestObserver), metrics, tracing)

    complete_chat = providers.Factory(CompleteChat, models, watch)
    complete_text = providers.Factory(CompleteText, models, watch)
    refuse_when_full = providers.Factory(RefuseWhenFull, models, watch)
    list_models = providers.Factory(ListModels, catalog, models)
    get_model = providers.Factory(GetModel, catalog, models)
    describe_models = providers.Factory(DescribeModels, catalog, models)
    preload_models = providers.Factory(PreloadModels, models)
    search_models = providers.Factory(SearchModels, source, catalog)
    journal: providers.Provider[PullJournal] = providers.Singleton(_journal, settings)
    pulls = providers.Singleton(PullModels, source, journal)
    delete_model = providers.Factory(DeleteModel, catalog, models, pulls)
