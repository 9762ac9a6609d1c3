"""events.jsonl survives torn and foreign lines, and never carries a secret."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.jobs.events import (
    EventReader,
    append_event,
    end_torn_line,
    read_events,
    read_last_events,
    redact,
)
from mi_crow.jobs.rate import RateMeter
from mi_crow.jobs.watch import tail_log
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import FakeJobs


def names(events: list[dict[str, object]]) -> list[object]:
    return [event["event"] for event in events]


def test_bad_lines_are_skipped(tmp_path: Path) -> None:
    append_event(tmp_path, "queued")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n{"event": 3}\n\nnot json\n')
    append_event(tmp_path, "started")
    assert names(read_events(tmp_path)) == ["queued", "started"]
    assert names(read_last_events(tmp_path)) == ["queued", "started"]


def test_a_torn_line_is_ended_so_that_the_next_event_stands_alone(tmp_path: Path) -> None:
    append_event(tmp_path, "queued")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"t": 1, "event": "prog')
    end_torn_line(tmp_path)
    append_event(tmp_path, "resumed")
    assert names(read_events(tmp_path)) == ["queued", "resumed"]


def test_ending_a_whole_line_or_no_file_changes_nothing(tmp_path: Path) -> None:
    end_torn_line(tmp_path)
    assert not (tmp_path / "events.jsonl").exists()
    append_event(tmp_path, "queued")
    before = (tmp_path / "events.jsonl").read_bytes()
    end_torn_line(tmp_path)
    assert (tmp_path / "events.jsonl").read_bytes() == before


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(1, 40), max_size=30), texts=st.lists(st.text(), max_size=6))
def test_a_reader_gives_each_event_once_however_the_file_grows(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], texts: list[str]
) -> None:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for text in texts:
        append_event(source, "log", message=text)
    data = (source / "events.jsonl").read_bytes() if texts else b""
    reader = EventReader(target)
    seen = list(reader.read_new())
    with (target / "events.jsonl").open("ab") as file:
        for cut in [*cuts, len(data)]:
            piece, data = data[:cut], data[cut:]
            file.write(piece)
            file.flush()
            seen += reader.read_new()
    whole = read_events(source)
    assert [event["message"] for event in seen] == [e["message"] for e in whole][: len(seen)]
    assert data or len(seen) == len(whole)


def test_the_last_events_leave_out_the_line_that_the_window_cuts(tmp_path: Path) -> None:
    for number in range(50):
        append_event(tmp_path, "log", message=f"{number:03d}" + "x" * 60)
    found = read_last_events(tmp_path, window=500)
    assert found
    assert found == read_events(tmp_path)[-len(found) :]


def test_tokens_and_secret_variables_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "correct-horse-battery")
    text = redact("401 for hf_abcdefghijklmnopqrst with correct-horse-battery at /home")
    assert "hf_abc" not in text
    assert "horse" not in text
    assert "401" in text
    assert "/home" in text


def test_a_log_shows_only_the_last_state_of_a_progress_bar(workspace_with_log: Workspace) -> None:
    job = workspace_with_log.jobs_dir.iterdir().__next__().name
    assert tail_log(workspace_with_log, job) == ["first", "100%", "last"]
    assert tail_log(workspace_with_log, job, 1) == ["last"]


@pytest.fixture
def workspace_with_log(tmp_path: Path) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    FakeJobs(workspace).add("finished", log="first\n  0%\r 50%\r100%\nlast\n")
    return workspace


def test_the_rate_is_steady_and_starts_anew_when_the_work_goes_back() -> None:
    meter = RateMeter()
    assert meter.add(0.0, 0, "step") is None
    assert meter.add(1.0, 10, "step") == pytest.approx(10)
    assert meter.add(2.0, 20, "step") == pytest.approx(10)
    assert meter.add(2.01, 21, "step") == pytest.approx(10)
    slower = meter.add(4.0, 22, "step")
    assert slower is not None
    assert 1 < slower < 10
    assert meter.add(5.0, 5, "step") is None
    assert meter.add(6.0, 6, "token") is None
