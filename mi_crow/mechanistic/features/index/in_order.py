"""A map over several threads whose results come in the order of its inputs."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_in_order(
    work: Callable[[_In], _Out], given: Iterable[_In], at_once: int, threads: int = 1
) -> Generator[_Out, None, None]:
    """work(one) for each of `given` in order, `at_once` of them at a time in threads of their own,
    each with `threads` torch threads.

    NumPy and torch release the interpreter's lock. Inputs that never wait for each other take less
    time than operations whose threads synchronise after every one, the more so where another
    process uses a core. `given` advances in the thread that reads the results; a reader that may
    stop early closes the generator.
    """
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    waiting: deque[Future[_Out]] = deque()
    try:
        with ThreadPoolExecutor(at_once) as workers:
            for one in given:
                waiting.append(workers.submit(work, one))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(own)
