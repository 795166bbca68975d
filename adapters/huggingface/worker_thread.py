"""Blocking work, off the loop, in threads that hold nobody up."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
Run = Callable[[], None]


class KeptThreads:
    """Threads that take the next work when they are done with one: to hand it over keeps the loop
    for a third of the time that it takes to make a thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: deque[queue.SimpleQueue[Run]] = deque()

    def start(self, run: Run) -> None:
        try:
            runs = self._idle.pop()
        except IndexError:
            runs = queue.SimpleQueue()
            _start(lambda: self._go_on(runs), self._name)
        runs.put(run)

    def _go_on(self, runs: "queue.SimpleQueue[Run]") -> None:
        while True:
            runs.get()()
            self._idle.append(runs)


def _start(run: Run, name: str = "portico-hub") -> None:
    threading.Thread(target=run, name=name, daemon=True).start()


def in_thread(work: Callable[[], T], start: Callable[[Run], None] = _start) -> "asyncio.Future[T]":
    """What `work` returns or raises. Cancelling the future lets go of the thread. start: has a
    thread run what it is given.

    Not asyncio.to_thread: a loop that ends waits for those threads, and so does the interpreter,
    however long the hub leaves them without an answer.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(report: Callable[[], None]) -> None:
        if not future.done():
            report()

    def post(report: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, report)

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - carried over to whoever awaits it
            failure = error
            post(lambda: future.set_exception(failure))
        else:
            post(lambda: future.set_result(result))

    start(run)
    return future
