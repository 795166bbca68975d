"""The composition root: which adapter stands behind which port."""

import time

from dependency_injector import containers, providers

from adapters.huggingface.catalog import HuggingFaceCatalog
from adapters.mlx import demo
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from adapters.scripted.engine import Script, ScriptedLoader
from adapters.settings import DEMO_MODEL, Settings
from application.complete_chat import CompleteChat
from application.complete_text import CompleteText
from application.list_models import GetModel, ListModels
from application.model_pool import ModelPool, PoolLimits
from application.ports import EngineLoader, ModelCatalog


def _loader(settings: Settings) -> EngineLoader:
    if settings.backend == "scripted":
        return ScriptedLoader(Script(**settings.scripted.model_dump()))
    return MlxEngineLoader(
        MlxOptions(
            max_batch_size=settings.max_batch_size,
            prefill_step_size=settings.prefill_step_size,
            max_cache_bytes=_bytes(settings.max_cache_size_gb),
        )
    )


def _catalog(settings: Settings) -> ModelCatalog:
    return HuggingFaceCatalog(settings.available_models, {DEMO_MODEL: demo.FOLDER})


def _limits(settings: Settings) -> PoolLimits:
    return PoolLimits(
        memory_budget=_bytes(settings.memory_budget_gb) or 0, max_waiting=settings.max_waiting
    )


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 1e9)


class Container(containers.DeclarativeContainer):
    """Made with `Container(settings=Settings.load())`.

    Override one provider to swap what is behind it: `container.loader.override(...)`.
    """

    settings = providers.Dependency(instance_of=Settings)

    loader: providers.Provider[EngineLoader] = providers.Singleton(_loader, settings)
    catalog: providers.Provider[ModelCatalog] = providers.Singleton(_catalog, settings)
    limits = providers.Factory(_limits, settings)
    models = providers.Singleton(
        ModelPool, catalog, loader, providers.Object(time.monotonic), limits
    )

    complete_chat = providers.Factory(CompleteChat, models)
    complete_text = providers.Factory(CompleteText, models)
    list_models = providers.Factory(ListModels, catalog, models)
    get_model = providers.Factory(GetModel, catalog, models)
