"""Asks a thread of its own for the memory profiles of models. No mlx here."""

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

from adapters.mlx.faults import unusable, without_paths
from adapters.mlx.mailbox import MlxOptions
from application.remembered import Remembered
from domain.errors import DomainError, EngineFailed
from domain.memory import MemoryProfile
from domain.models import ModelCard

_MOST_THREADS = 4  # a question that is never answered costs one for good
_REMEMBERED = 256  # profiles, of a few hundred bytes each

_Key = tuple[ModelCard, int | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    card: ModelCard
    kv_bits: int | None
    answer: "Future[MemoryProfile]"


class Prober:
    """Remembers what it was told, by card and kv_bits: a model's files don't change under it.

    The thread begins with the first question and waits for the next one as long as the process
    lives. Were it to end, an interpreter that exits soon after could abort (mlx 0.32). Another one
    helps out once all have been at one question for `patience` seconds, as when a disk hangs.
    """

    def __init__(self, options: MlxOptions, patience: float = 10.0) -> None:
        self._options = options
        self._patience = patience
        self._known: Remembered[_Key, MemoryProfile] = Remembered(_REMEMBERED)
        self._asked: dict[_Key, Future[MemoryProfile]] = {}
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._threads = 0
        self._begun: dict[int, float] = {}  # by thread, when it began what it is at

    @property
    def busy(self) -> bool:
        """Until the threads wait again, which is a while after the answer was heard."""
        asked = list(self._asked.values())
        return bool(self._begun) or not all(answer.done() for answer in asked)

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Raises InvalidRequest when the cache can't be kept at `kv_bits`, else EngineFailed."""
        key = (card, kv_bits)
        found = self._known.get(key)
        if found is None:
            asked = asyncio.wrap_future(self._ask(card, kv_bits))
            try:
                while not (await asyncio.wait((asked,), timeout=self._patience))[0]:
                    self._help_out()
            finally:
                asked.cancel()  # who asked has left, unless it is answered
            found = asked.result()
            self._known.put(key, found)
        return found

    def _ask(self, card: ModelCard, kv_bits: int | None) -> "Future[MemoryProfile]":
        """Who asks what is being asked already gets the same answer."""
        self._asked = {key: asked for key, asked in self._asked.items() if not asked.done()}
        key = (card, kv_bits)
        if key not in self._asked:
            answer = self._asked[key] = Future()
            answer.set_running_or_notify_cancel()  # who asked may leave; the thread can't
            self._questions.put(_Question(card, kv_bits, answer))
        self._help_out()
        return self._asked[key]

    def _help_out(self) -> None:
        """With a thread, where there is none or all of them are stuck."""
        late = time.monotonic() - self._patience
        stuck = [begun for begun in list(self._begun.values()) if begun <= late]
        if len(stuck) == self._threads < _MOST_THREADS:
            self._threads += 1
            threading.Thread(
                target=self._work, args=(self._threads,), name="mlx prober", daemon=True
            ).start()

    def _work(self, number: int) -> None:
        while True:
            question = self._questions.get()
            self._begun[number] = time.monotonic()
            _answer(question, self._options)
            del question
            del self._begun[number]


def mlx_missing(error: ImportError) -> EngineFailed:
    return EngineFailed(
        f"MLX can't be imported ({without_paths(str(error))}). On Linux install it with an extra: "
        "`portico-mlx[cpu]` or `portico-mlx[cuda]`."
    )


def _answer(question: _Question, options: MlxOptions) -> None:
    try:
        # Here, as in threads.py: mlx-lm takes seconds to import.
        from adapters.mlx.memory import profile

        found = profile(question.card, question.kv_bits, options)
    except ImportError as error:
        question.answer.set_exception(mlx_missing(error))
    except DomainError as error:
        question.answer.set_exception(error)
    except BaseException as error:  # noqa: BLE001 - this thread's boundary: see faults.py
        question.answer.set_exception(unusable(question.card, "read", error))
    else:
        question.answer.set_result(found)
