"""Why a job of several processes ended: the cause is told, not its consequences."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from mi_crow.errors import CancelledError, MiCrowError, UserError
from mi_crow.jobs.distributed import rank as rank_module
from mi_crow.jobs.distributed.exchange import Exchange
from mi_crow.jobs.distributed.rank import RankProgress, _record_failure
from mi_crow.jobs.distributed.ranked import RankFailedError, _result
from mi_crow.ranks import RankLostError


def outcome(
    folder: Path,
    endings: dict[int, dict[str, Any]],
    deaths: list[tuple[int, int]] = [],  # noqa: B006
    *,
    agent: int = 1,
    stopping: bool = False,
) -> dict[str, Any]:
    exchange = Exchange(folder)
    for rank, ending in endings.items():
        exchange.end(rank, **ending)
    if deaths:
        exchange.leave_deaths([{"rank": r, "exit_code": c, "t": 1.0} for r, c in deaths])
    return _result(Exchange(folder), 2, agent, stopping, "job-1")


def failed(error: str, cause: str, exit_code: int = 1) -> dict[str, Any]:
    return {"outcome": "failed", "error": error, "cause": cause, "exit_code": exit_code}


FINISHED = {"outcome": "finished"}
LOST = failed("another process has ended", "lost")
CANCELLED = {"outcome": "cancelled", "resumable": True}


def test_the_result_is_rank_0s_when_all_finished(tmp_path: Path) -> None:
    endings = {0: FINISHED | {"result": {"tokens": 3}}, 1: FINISHED}
    assert outcome(tmp_path, endings, agent=0) == {"tokens": 3}


def test_one_that_never_finished_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match=r"rank 1 of 2 ended \(exit code 7\)"):
        outcome(tmp_path, {0: FINISHED | {"result": {}}}, [(1, 7)])


@pytest.mark.parametrize(
    ("endings", "deaths", "says"),
    [
        ({0: LOST}, [(1, -9)], r"^rank 1 of 2 was killed \(signal 9\)$"),
        ({}, [(1, -9), (0, -15)], r"^rank 1 of 2 was killed \(signal 9\)$"),
        ({}, [(0, -15)], r"^rank 0 of 2 was killed \(signal 15\)$"),
        ({0: LOST, 1: failed("no text", "known", 2)}, [(1, 2), (0, 1)], "^no text$"),
        ({1: failed("no text", "known", 2)}, [(1, 2), (0, -15)], "^no text$"),
        ({1: failed("no text", "known", 2)}, [(1, 2), (0, -6)], "^no text$"),
        ({0: failed("reset by peer", "crashed")}, [(0, 1), (1, -11)], "^rank 1 of 2 was killed"),
        ({0: failed("index 7", "crashed"), 1: LOST}, [(0, 1), (1, 1)], "^rank 0 of 2: index 7$"),
        ({0: LOST}, [(0, 1)], "^another process has ended$"),
    ],
)
def test_the_first_cause_is_what_the_job_says(
    tmp_path: Path, endings: dict[int, Any], deaths: list[tuple[int, int]], says: str
) -> None:
    with pytest.raises(RankFailedError, match=says) as caught:
        outcome(tmp_path, endings, deaths)
    assert caught.value.exit_code == (2 if "no text" in says else 1)


def test_of_two_that_failed_the_first_is_told(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path)
    exchange.end(1, **failed("first", "known", 2))
    exchange.end(0, **failed("second", "known", 2))
    with pytest.raises(RankFailedError, match="first"):
        _result(exchange, 2, 1, False, "job-1")


@pytest.mark.parametrize(
    ("endings", "deaths"),
    [
        ({0: CANCELLED, 1: CANCELLED}, []),
        ({0: CANCELLED, 1: LOST}, [(1, 1)]),
        ({0: CANCELLED, 1: FINISHED}, []),
        ({}, [(0, -15), (1, -15)]),  # the machine is shut down: everybody is asked to end
    ],
)
def test_who_was_asked_to_stop_and_did_is_cancelled(
    tmp_path: Path, endings: dict[int, Any], deaths: list[tuple[int, int]]
) -> None:
    with pytest.raises(CancelledError) as caught:
        outcome(tmp_path, endings, deaths, stopping=True)
    assert caught.value.resumable


def test_a_fault_while_stopping_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match="disk is full"):
        outcome(tmp_path, {0: CANCELLED, 1: failed("disk is full", "crashed")}, stopping=True)


def test_torchrun_itself_can_die(tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match=r"torchrun was killed \(signal 9\)"):
        outcome(tmp_path, {}, agent=-9)


@pytest.mark.parametrize(
    ("error", "cause", "exit_code"),
    [
        (UserError("no text", hint="give some"), "known", 2),
        (MiCrowError("disk full"), "known", 1),
        (RankLostError("gone"), "lost", 1),
        (ValueError("hf_abcdefghijklmnopqrstuvwxyz"), "crashed", 1),
        (SystemExit(0), "crashed", 1),
    ],
)
def test_a_rank_leaves_word_of_its_failure_without_secrets(
    tmp_path: Path, error: BaseException, cause: str, exit_code: int
) -> None:
    code = None
    try:
        raise error
    except BaseException as caught:
        code = _record_failure(Exchange(tmp_path), 1, caught)
    assert code == exit_code
    ending = Exchange(tmp_path).endings(2)[1]
    assert (ending.cause, ending.exit_code) == (cause, exit_code)
    assert type(error).__name__ in ending.traceback
    assert "hf_abc" not in json.dumps(ending.__dict__)
    assert ending.hint == getattr(error, "hint", "")


def test_reports_come_whole_and_in_order_and_the_last_reading_is_not_lost(tmp_path: Path) -> None:
    exchange, progress = Exchange(tmp_path), RankProgress(Exchange(tmp_path), 0)
    assert list(exchange.new_reports()) == []
    for done in range(1, 8):
        progress.update(done, 8, "document", {"tokens_s": float(done)})
    first = list(exchange.new_reports())
    assert [report["done"] for report in first] == [1]  # the rest came too fast
    progress.checkpoint("part-1")
    progress.log("ü")
    with (tmp_path / "reports.jsonl").open("ab") as file:
        file.write(b'{"call": "lo')  # still being written
    reports = list(exchange.new_reports())
    assert [report["call"] for report in reports] == ["update", "checkpoint", "log"]
    assert reports[0]["done"] == 7
    assert reports[2]["message"] == "ü"


def test_a_checkpoint_of_another_thread_does_not_take_the_reading_that_is_being_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, progress = Exchange(tmp_path), RankProgress(Exchange(tmp_path), 0)
    writers: list[threading.Thread] = []

    def read_memory() -> dict[str, float]:
        if not writers:  # a part is written while the reading is on its way
            writers.append(threading.Thread(target=progress.checkpoint, args=("part-1",)))
            writers[0].start()
            writers[0].join(0.2)
        return {}

    monkeypatch.setattr(rank_module, "memory_readings", read_memory)
    progress.update(1, 8, "document")
    writers[0].join()
    assert [report["call"] for report in exchange.new_reports()] == ["update", "checkpoint"]


def test_only_rank_0_reports_and_all_see_the_wish_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = Exchange(tmp_path)
    ranks = [RankProgress(Exchange(tmp_path), rank) for rank in range(2)]
    ranks[1].update(1, 2, "step")
    ranks[1].checkpoint("part-1")
    ranks[1].log("hello")
    assert list(exchange.new_reports()) == []
    assert capsys.readouterr().err == "rank 1: hello\n"
    exchange.ask_stop()
    assert all(progress.should_stop() for progress in ranks)
