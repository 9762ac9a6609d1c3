"""Threads beside the main one: order, errors handed over, nothing left behind."""

import threading
from collections.abc import Iterator

import pytest

from mi_crow.background import Stage, read_ahead


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_reading_ahead_keeps_the_order_and_ends_its_thread() -> None:
    assert list(read_ahead(range(100), 3, "ahead")) == list(range(100))
    assert "ahead" not in names()


def test_an_error_of_the_reading_thread_comes_after_what_was_read() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    found = read_ahead(items(), 3, "ahead")
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)
    assert "ahead" not in names()


def test_closing_early_ends_the_items_too() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            ended.set()

    found = read_ahead(endless(), 2, "ahead")
    next(found)
    found.close()
    assert ended.is_set()
    assert "ahead" not in names()


def test_a_stage_does_everything_in_order_before_its_block_ends() -> None:
    done: list[int] = []
    with Stage(done.append, 2, "stage") as stage:
        for item in range(50):
            stage.put(item)
    assert done == list(range(50))
    assert "stage" not in names()


def test_a_stages_error_is_raised_at_the_end_and_stops_its_work() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            raise OSError("disk full")
        done.append(item)

    def six() -> None:
        with Stage(work, 100, "stage") as stage:
            for item in range(6):
                stage.put(item)

    with pytest.raises(OSError, match="disk full"):
        six()
    assert done == [0, 1, 2]
    assert "stage" not in names()


def test_a_failing_block_abandons_what_waits() -> None:
    started, go = threading.Event(), threading.Event()
    done: list[int] = []

    def work(item: int) -> None:
        started.set()
        go.wait(60)
        done.append(item)

    def fail() -> None:
        with Stage(work, 100, "stage") as stage:
            for item in range(6):
                stage.put(item)
            started.wait(60)
            threading.Thread(target=lambda: stage._abandoned.wait(60) and go.set()).start()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(done) < 6
    assert "stage" not in names()
