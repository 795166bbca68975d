"""Blocking work, off the loop, in threads that hold nobody up."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """What `work` returns or raises. Cancelling the future lets go of the thread.

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

    threading.Thread(target=run, name="portico-hub", daemon=True).start()
    return future
