"""The session's client against a process that plays the session: order, errors, death, restart."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.session.client import SessionClient
from mi_crow.session.operations import TextBatcher
from mi_crow.session.protocol import (
    Request,
    SessionDied,
    decode_line,
    encode_line,
    error_event,
    error_from_event,
)
from tests.helpers.session_fixture import puppet_command


@pytest.fixture
def client(workspace) -> Iterator[SessionClient]:
    client = SessionClient(workspace, command=puppet_command())
    yield client
    client.close()


def test_the_process_starts_with_the_first_request(client):
    assert not client.alive
    assert client.call("ping")["op"] == "ping"
    assert client.alive


def test_events_come_in_order_and_the_last_is_the_result(client):
    events = list(client.request("chatter", count=50))
    assert [event["text"] for event in events[:-1]] == [str(number) for number in range(50)]
    assert events[-1]["event"] == "result"
    assert client.call("chatter", count=2) == {"said": 2}


def test_many_threads_get_each_their_own_answer(client):
    answers: dict[int, dict] = {}

    def ask(number: int) -> None:
        answers[number] = client.call("echo", number=number)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: answer["number"] for number, answer in answers.items()} == {
        number: number for number in range(12)
    }
    assert len({answer["pid"] for answer in answers.values()}) == 1  # one process for all


@pytest.mark.parametrize("kind", [UserError, NotFoundError, CorruptDataError, MiCrowError])
def test_an_error_comes_back_as_its_own_kind(client, kind):
    with pytest.raises(MiCrowError) as caught:
        client.call("fail", kind=kind.__name__)
    assert type(caught.value) is kind
    assert caught.value.sentence == "it failed; try"
    assert client.call("ping")["op"] == "ping"


def test_an_interrupt_reaches_a_running_request(client):
    events = client.request("hold")
    client.interrupt()
    assert next(events)["stopped"] is True


def test_leaving_an_answer_early_interrupts_it(client):
    events = client.request("chatter", count=3)
    next(events)
    events.close()  # type: ignore[attr-defined]
    # The puppet remembers the interrupt, so this one does not wait.
    assert client.call("hold")["stopped"] is True


def test_a_process_that_dies_says_how_and_the_next_request_starts_another(client):
    client.call("load", sae_id="a", device="cpu")
    first = client.call("ping")["pid"]
    with pytest.raises(SessionDied) as caught:
        client.call("die")
    assert "exit status 3" in str(caught.value)
    assert "out of memory, said the puppet" in str(caught.value)
    assert "restarts it" in caught.value.hint
    assert not client.alive
    assert client.call("ping")["pid"] != first


def test_after_a_restart_the_same_sae_is_loaded_before_anything_else(workspace, tmp_path):
    seen = tmp_path / "seen"
    script = puppet_command()[2].replace(
        "    op, params =", f"    open({str(seen)!r}, 'a').write(line)\n    op, params ="
    )
    client = SessionClient(workspace, command=(*puppet_command()[:2], script))
    client.call("load", sae_id="a", device="cpu")
    with pytest.raises(SessionDied):
        client.call("die")
    client.call("ping")
    client.close()
    requests = [Request.from_line(line) for line in seen.read_bytes().splitlines()]
    assert [request.op for request in requests] == ["load", "die", "load", "ping"]
    assert requests[2].params == {"sae_id": "a", "device": "cpu"}
    assert len({request.id for request in requests}) == 4


def test_everything_that_waits_learns_of_a_kill(client):
    pid = client.call("ping")["pid"]
    waiting = [client.request("hold") for _ in range(3)]
    os.kill(pid, signal.SIGKILL)
    for events in waiting:
        with pytest.raises(SessionDied, match="SIGKILL"):
            next(events)


def test_close_ends_the_process_its_log_and_what_waits(client):
    pid = client.call("ping")["pid"]
    log = client.log_path
    assert log is not None
    assert log.exists()
    events = client.request("hold")
    client.close()
    with pytest.raises(SessionDied) as caught:
        next(events)
    assert caught.value.hint == ""
    assert not log.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(SessionDied, match="closed"):
        client.call("ping")


def test_a_log_that_was_asked_for_stays(workspace, tmp_path: Path):
    log = tmp_path / "session.log"
    client = SessionClient(workspace, log, command=puppet_command())
    with pytest.raises(SessionDied):
        client.call("die")
    client.close()
    assert "said the puppet" in log.read_text()


# The protocol.


def test_no_text_can_end_a_line_early():
    request = Request("r1", "inspect", {"text": "a\nb\r\u2028 “c” \x00 🙂"})
    line = request.as_line()
    assert line.count(b"\n") == 1
    assert Request.from_line(line) == request


@pytest.mark.parametrize("line", [b"", b"hello\n", b"[1]\n", b'{"op": "x"}\n', b"\xff\n"])
def test_what_is_no_request_is_refused(line):
    with pytest.raises(CorruptDataError):
        Request.from_line(line)


def test_an_unexpected_error_becomes_one_sentence():
    event = decode_line(encode_line(error_event("r1", ValueError("first line\nsecond line"))))
    error = error_from_event(event)
    assert type(error) is MiCrowError
    assert str(error) == "ValueError: first line"


def test_streamed_text_goes_out_in_batches_and_whole():
    now = [0.0]
    sent: list[dict] = []
    stream = TextBatcher(sent.append, clock=lambda: now[0])
    for number in range(100):
        now[0] = number / 100  # a hundred tokens in a second
        stream.push("baseline", 0, f"{number} ")
    stream.push("steered", 1, "x")
    stream.flush()
    baseline = [event["text"] for event in sent if event["side"] == "baseline"]
    assert "".join(baseline) == "".join(f"{number} " for number in range(100))
    assert 5 <= len(baseline) <= 11
    assert baseline[0] == "0 "  # the first token shows at once
    assert sent[-1] == {"event": "token", "side": "steered", "sample": 1, "text": "x"}
