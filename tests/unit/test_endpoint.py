"""What a server that is hostile or broken makes of a question to a chat endpoint."""

import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from mi_crow.errors import MachineError, UserError
from mi_crow.language_model.endpoint import KEYS, Endpoint, RubbishError, check_endpoint
from tests.helpers.local_server import Answers, LocalServer, served

SECRET = "sk-secret/123"
FINE = json.dumps({"choices": [{"message": {"content": "Fine."}}]}).encode()


class Hostile(LocalServer):
    """Answers with what `faults` write, one a question; then as a chat does."""

    def __init__(self) -> None:
        super().__init__(_Hostile)
        self.faults: list[Callable[[Answers], None]] = []
        self.asked = 0


class _Hostile(Answers):
    server: Hostile  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        self.body()
        self.server.asked += 1
        if self.server.faults:
            self.server.faults.pop(0)(self)
        else:
            self.send(200, FINE)


def raw(data: bytes) -> Callable[[Answers], None]:
    """Writes these bytes and hangs up."""

    def answer(to: Answers) -> None:
        to.wfile.write(data)
        to.wfile.flush()
        to.connection.shutdown(socket.SHUT_RDWR)
        to.close_connection = True

    return answer


CUT = {
    "nothing": b"",
    "no HTTP": b"HELLO WORLD\r\n\r\n",
    "a short body": b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choi',
    "a short chunk": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{"choi',
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 500 + b"\r\n",
}


@pytest.fixture
def server(monkeypatch) -> Iterator[Hostile]:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with served(Hostile()) as found:
        yield found


@pytest.fixture
def endpoint(server) -> Endpoint:
    return Endpoint(server.url, "m", 5.0, lambda seconds: None)


@pytest.mark.parametrize("what", CUT)
def test_a_cut_connection_is_asked_again(server, endpoint, what):
    server.faults = [raw(CUT[what])] * 2
    assert endpoint.ask("?") == "Fine."
    assert server.asked == 3
    server.faults = [raw(CUT[what])] * 5
    with pytest.raises(MachineError, match=r"broke off .*, 5 times"):
        endpoint.ask("?")


def test_an_answer_that_drips_is_late(server):
    waited_for = []

    def drip(to: Answers) -> None:
        to.send_response(200)
        to.end_headers()
        try:
            for _ in range(3000):
                to.wfile.write(b" ")
                to.wfile.flush()
                time.sleep(0.01)
        except OSError:
            return  # it hung up, as it should
        waited_for.append(drip)

    server.faults = [drip] * 5
    with pytest.raises(MachineError, match=r"gave no whole answer within 0\.05 s, 5 times"):
        Endpoint(server.url, "m", 0.05, lambda seconds: None).ask("?")
    assert not waited_for


def test_an_error_that_breaks_off_is_told_by_its_status(server, endpoint):
    cut = b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\nab"
    server.faults = [raw(cut)]
    with pytest.raises(UserError, match="answered 400"):
        endpoint.ask("?")


@pytest.mark.parametrize("data", [b"[" * 100_000, b" " * (2 << 20), FINE.replace(b'"Fine."', b"3")])
def test_what_is_no_answer_is_rubbish(server, endpoint, data):
    server.faults = [lambda to: to.send(200, data)]
    with pytest.raises(RubbishError):
        endpoint.ask("?")


def test_one_that_has_answered_as_a_chat_may_answer_rubbish(server, endpoint):
    endpoint.ask("?")
    server.faults = [lambda to: to.send(200, b"<html>")] * 9
    for _ in range(9):
        with pytest.raises(RubbishError):
            endpoint.ask("?")
    assert endpoint.ask("?") == "Fine."


def test_the_key_is_shown_by_nobody(server, endpoint, monkeypatch):
    monkeypatch.setenv("MI_CROW_LLM_KEY", f"{SECRET}\n")  # as `$(cat file)` in quotation marks
    keys = []

    def echo(to: Answers) -> None:
        keys.append(to.headers["Authorization"])
        to.send(400, f"wrong: {keys[-1]} sk-secret\\/123 sk-secret%2F123".encode())

    server.faults = [echo]
    with pytest.raises(UserError, match=r"answered 400: .*wrong: Bearer \*\*\*") as refused:
        endpoint.ask("?")
    assert keys == [f"Bearer {SECRET}"]
    assert "sk-" not in str(refused.value)
    # Not even where the sentence is shortened in the middle of it.
    server.faults = [lambda to: to.send(400, b"x" * 150 + SECRET.encode())]
    with pytest.raises(UserError) as refused:
        endpoint.ask("?")
    assert "sk-" not in str(refused.value)
    server.faults = [lambda to: to.send(200, FINE.replace(b"Fine.", SECRET.encode()))]
    assert endpoint.ask("?") == "***"


@pytest.mark.parametrize("bad", ["sk\n123", "sk\r123", "ключ", "sk\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_before_anything_is_asked(
    server, endpoint, monkeypatch, bad
):
    monkeypatch.setenv("MI_CROW_LLM_KEY", bad)
    with pytest.raises(UserError, match="the key in MI_CROW_LLM_KEY contains") as refused:
        check_endpoint(server.url)
    assert bad not in f"{refused.value} {refused.value.hint}"
    with pytest.raises(UserError, match="the key in MI_CROW_LLM_KEY contains"):
        endpoint.ask("?")
    assert not server.asked


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/v1 x", "http://127.0.0.1:9/vé", "http://é/"]
)
def test_an_address_with_other_characters_is_none(address):
    with pytest.raises(UserError, match="is not a web address"):
        check_endpoint(address)


def test_a_server_that_has_answered_may_be_starting_again():
    with served(Hostile()) as server:
        waits: list[float] = []
        endpoint = Endpoint(server.url, "m", 5.0, waits.append)
        assert endpoint.ask("?") == "Fine."
    with pytest.raises(MachineError, match=r"cannot be reached any more \(.*\), 5 times"):
        endpoint.ask("?")
    assert waits == [1, 2, 4, 8]
    with pytest.raises(UserError, match="cannot be reached"):  # an address that never was right
        Endpoint(server.url, "m", 5.0, waits.append).ask("?")
    assert len(waits) == 4
