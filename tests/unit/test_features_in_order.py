"""Pieces worked on in threads: results in order, few at once, torch's threads given back."""

import threading
from collections.abc import Iterator

import pytest
import torch

from mi_crow.mechanistic.features.index.in_order import map_in_order


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_results_come_in_the_order_of_what_was_given(at_once: int) -> None:
    later = threading.Event()

    def work(number: int) -> int:
        if number == 0 and at_once > 1:
            assert later.wait(60)  # the first is the last to end
        if number == at_once - 1:
            later.set()
        return number * number

    assert list(map_in_order(work, range(9), at_once)) == [n * n for n in range(9)]


def test_no_more_are_begun_than_may_wait() -> None:
    begun: list[int] = []
    found = map_in_order(lambda n: n, (begun.append(n) or n for n in range(50)), 2)
    assert next(found) == 0
    assert len(begun) <= 3
    found.close()
    assert len(begun) <= 3


def test_what_goes_wrong_comes_out_where_results_are_read() -> None:
    def work(number: int) -> int:
        return 6 // (2 - number)

    found = map_in_order(work, range(4), 1)
    assert [next(found), next(found)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_each_has_the_threads_that_it_was_given(own_threads: int) -> None:
    torch.set_num_threads(3)
    assert list(map_in_order(lambda _: torch.get_num_threads(), range(3), 2, threads=1)) == [
        1,
        1,
        1,
    ]
    assert torch.get_num_threads() == 3
    torch.set_num_threads(own_threads)
