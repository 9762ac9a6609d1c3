"""Work on several pieces at once, in threads, with the results in the pieces' order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_order(
    work: Callable[[_In], _Out], given: Iterable[_In], at_once: int, threads: int = 1
) -> Generator[_Out, None, None]:
    """work(one) for each of `given` in order, `at_once` of them in threads of their own, each with
    `threads` of torch's.

    NumPy and torch work outside the interpreter's lock. Pieces that never wait for each other take
    less time than operations whose threads wait for each other after every one, the more so where
    another process has a core. `given` is asked for its next by whoever reads the results, and who
    may stop reading closes the generator.
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
