"""Asks a thread of its own for the memory profiles of models. No mlx here."""

import asyncio
import queue
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

from adapters.mlx.mailbox import MlxOptions
from domain.errors import DomainError, EngineFailed, ModelUnusable
from domain.memory import MemoryProfile
from domain.models import ModelCard

_REMEMBERED = 256  # profiles, of a few hundred bytes each


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    card: ModelCard
    kv_bits: int | None
    answer: "Future[MemoryProfile]"


class Prober:
    """Remembers what it was told, by card and kv_bits: a model's files don't change under it.

    The thread begins with the first question and waits for the next one as long as the process
    lives. Were it to end, an interpreter that exits soon after could abort (mlx 0.32).
    """

    def __init__(self, options: MlxOptions) -> None:
        self._options = options
        self._known: OrderedDict[tuple[ModelCard, int | None], MemoryProfile] = OrderedDict()
        self._asked: dict[tuple[ModelCard, int | None], Future[MemoryProfile]] = {}
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._working = False

    @property
    def busy(self) -> bool:
        """Until the thread waits again, which is a while after the answer was heard."""
        return self._working or not self._questions.empty()

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Raises InvalidRequest when the cache can't be kept at `kv_bits`, else EngineFailed."""
        key = (card, kv_bits)
        if key not in self._known:
            found = await asyncio.wrap_future(self._ask(card, kv_bits))
            self._known[key] = found
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return self._known[key]

    def _ask(self, card: ModelCard, kv_bits: int | None) -> "Future[MemoryProfile]":
        """Who asks what is being asked already gets the same answer."""
        self._asked = {key: asked for key, asked in self._asked.items() if not asked.done()}
        key = (card, kv_bits)
        if key not in self._asked:
            answer = self._asked[key] = Future()
            answer.set_running_or_notify_cancel()  # who asked may leave; the thread can't
            self._working = True
            self._questions.put(_Question(card, kv_bits, answer))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlx prober", daemon=True)
            self._thread.start()
        return self._asked[key]

    def _work(self) -> None:
        while True:
            question = self._questions.get()
            _answer(question, self._options)
            del question
            self._working = False


def mlx_missing(error: ImportError) -> EngineFailed:
    return EngineFailed(
        f"MLX can't be imported ({error}). On Linux install it with an extra: "
        "`portico-mlx[cpu]` or `portico-mlx[cuda]`."
    )


def _answer(question: _Question, options: MlxOptions) -> None:
    try:
        # As in the loader: mlx-lm takes seconds to import.
        from adapters.mlx.memory import profile

        found = profile(question.card, question.kv_bits, options)
    except ImportError as error:
        question.answer.set_exception(mlx_missing(error))
    except DomainError as error:
        question.answer.set_exception(error)
    except BaseException as error:  # noqa: BLE001 - this thread's boundary: see faults.py
        text = f"The model `{question.card.id}` could not be read: {error}"
        question.answer.set_exception(ModelUnusable(text))
    else:
        question.answer.set_result(found)
