"""Ranks that are threads of one process: what several ranks do together, without starting any."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any, TypeVar

from mi_crow.ranks import RankLostError, Ranks

_Out = TypeVar("_Out")


class _Shared:
    def __init__(self, world: int) -> None:
        self.barrier = Barrier(world, timeout=60)
        self.word = ""
        self.first: set[str] = set()


class ThreadRank:
    """One of `world` threads."""

    def __init__(self, rank: int, world: int, shared: _Shared) -> None:
        self.rank = rank
        self.world = world
        self._shared = shared

    def agree(self, value: Any) -> Any:
        if self.rank == 0:
            self._shared.word = json.dumps(value)
        self.wait()
        found = json.loads(self._shared.word)
        self.wait()
        return found

    def wait(self) -> None:
        try:
            self._shared.barrier.wait()
        except BrokenBarrierError as error:
            raise RankLostError("another rank has failed") from error

    def is_first(self, what: str) -> bool:
        new = what not in self._shared.first
        self._shared.first.add(what)
        return new


def in_threads(work: Callable[[Ranks], _Out], world: int = 2) -> list[_Out]:
    """What `work` gives to each rank. Raises what the first rank that failed by itself raised."""
    shared = _Shared(world)

    def one(rank: int) -> _Out:
        try:
            return work(ThreadRank(rank, world, shared))
        except BaseException:
            shared.barrier.abort()
            raise

    with ThreadPoolExecutor(world) as threads:
        running = [threads.submit(one, rank) for rank in range(world)]
    errors = [found.exception() for found in running]
    for error in sorted((e for e in errors if e), key=lambda e: isinstance(e, RankLostError)):
        raise error
    return [found.result() for found in running]
