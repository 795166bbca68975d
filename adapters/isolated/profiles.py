"""The memory profiles of models, looked up in processes: native code reads the files, and a file
that is made to break it breaks a process that has nothing else to do.
"""

import asyncio
import logging

from adapters.isolated.messages import MakeLoader, Profile, Profiled
from adapters.isolated.opening import first_report, started
from application.refusals import FilesUnread
from application.remembered import Remembered
from domain.memory import MemoryProfile
from domain.models import ModelCard

_REMEMBERED = 256  # profiles, of a few hundred bytes each
_AT_ONCE = 2  # processes; each imports mlx-lm

_Key = tuple[ModelCard, int | None]


class Profiles:
    """Remembered by card and kv_bits: a model's files don't change under it.

    timeout: seconds. Whoever asks may have given up before; this one ends the process.
    """

    def __init__(self, make_loader: MakeLoader, timeout: float) -> None:
        self._make_loader = make_loader
        self._timeout = timeout
        self._known: Remembered[_Key, MemoryProfile] = Remembered(_REMEMBERED)
        self._asked: dict[_Key, asyncio.Task[MemoryProfile]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def ask(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Who asks what is being asked already gets the same answer. Raises what the loader in the
        process does, and EngineFailed.
        """
        key = (card, kv_bits)
        known = self._known.get(key)
        if known is None:
            if key not in self._asked:
                task = asyncio.get_running_loop().create_task(self._look(card, kv_bits))
                self._asked[key] = task
                task.add_done_callback(lambda done: self._answered(key, done))
            return await asyncio.shield(self._asked[key])
        return known

    def _answered(self, key: _Key, done: "asyncio.Task[MemoryProfile]") -> None:
        del self._asked[key]
        if not done.cancelled() and done.exception() is None:
            self._known.put(key, done.result())

    async def _look(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        async with self._places:
            process = await started(card)
            level = logging.getLogger("portico").getEffectiveLevel()
            process.channel.send(Profile(self._make_loader, card, kv_bits, level))
            try:
                async with asyncio.timeout(self._timeout):
                    amid = "while it looked at the model's files"
                    return (await first_report(card, process, Profiled, amid)).profile
            except TimeoutError:
                raise FilesUnread(card.id, self._timeout) from None
            finally:
                await process.end()
