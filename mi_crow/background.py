"""Background threads: reading ahead of a consumer, and a stage that consumes what is produced.

Both raise an error of their thread in the caller and end then; neither outlives its block.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")
_END = object()
_POLL_S = 0.1


def read_ahead(items: Iterable[Item], depth: int, name: str) -> Generator[Item, None, None]:
    """`items`, produced by a thread that stays at most `depth` ahead. Close it to stop early."""
    ready: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as error:  # handed to the reader, which raises it
            failure.append(error)
        finally:
            if isinstance(items, Generator):
                items.close()  # in the thread that ran it: files and processes end with it
            put(_END)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()


class Stage(Generic[Item]):
    """A thread that calls `function` on each item put, in order, with at most `depth` queued.

    A context manager: at the end of the block it finishes all items, unless the block or the thread
    failed. The thread's first error is raised by the next `put` or at the end.
    """

    def __init__(self, function: Callable[[Item], None], depth: int, name: str) -> None:
        self._function = function
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def put(self, item: Item) -> None:
        """Waits for room in the queue. Raises what the thread raised."""
        while True:
            self.check()
            try:
                return self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue

    def __enter__(self) -> "Stage[Item]":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        if error is not None:
            self._abandoned.set()
        self._queue.put(_END)  # the thread empties the queue to its end, whatever happened
        self._thread.join()
        if error is None:
            self.check()

    def check(self) -> None:
        """Raises what the thread raised."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._error is None and not self._abandoned.is_set():
                try:
                    self._function(item)  # type: ignore[arg-type]
                except BaseException as error:  # raised by the next put
                    self._error = error
