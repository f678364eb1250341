"""Computations beside a loop that has other things to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class Beside(Executor):
    """Each in a thread of its own, at once.

    Unlike a pool's, the threads are no reason for a process to go on: what nobody waits for any more, such
    as a fit of minutes when the walltime ends, ends with it.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # for whoever asks for the result
                future.set_exception(error)

        threading.Thread(target=work, name="beside", daemon=True).start()
        return future
