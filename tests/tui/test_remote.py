"""The open app driven by another program, over its real socket."""

import asyncio
import json
import os
import signal
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mi_crow.cli.commands import remote
from mi_crow.cli.entry import run_command_line
from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.remote import client
from mi_crow.remote.client import OpenApp, ask, open_apps, pick_app
from mi_crow.remote.place import bind_socket, sockets
from mi_crow.store.json_object import JsonObject
from mi_crow.store.runtime_folder import runtime_folder
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.helpers.jobs_fixture import wait_until
from tests.helpers.pseudo_terminal import PROGRAM, PseudoTerminal
from tests.tui.driving import press, screen_text, settle
from tui.app import MiCrowApp
from tui.remote import server
from tui.remote.commands import RemoteCommands
from tui.remote.server import RemoteControl
from tui.screens.features.screen import FeaturesScreen
from tui.widgets.lists.feature_table import FeatureTable

SAE = "fixture-sae"
OTHER = "other-sae"

Drive = Callable[..., AbstractAsyncContextManager[tuple[Pilot, OpenApp]]]


@pytest.fixture(autouse=True)
def _own_sockets(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> Iterator[None]:
    """No app of the user is found, and a socket's path is short enough."""
    with tempfile.TemporaryDirectory(prefix="mc-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setattr("mi_crow.store.runtime_folder.gettempdir", lambda: folder)
        yield


@asynccontextmanager
async def opened(
    workspace: Workspace, sae_id: str | None = None
) -> AsyncIterator[tuple[Pilot, OpenApp]]:
    """An app with its socket, and how another program sees it."""
    app = MiCrowApp(workspace, sae_id)
    control = RemoteControl(app, RemoteCommands(app).answer)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        control.start()
        await settle(pilot)
        found = await asyncio.to_thread(open_apps)
        yield pilot, next(one for one in found.found if one.path == control.path)
        control.close()


@pytest.fixture
def drive(empty_workspace: Workspace) -> Drive:
    @asynccontextmanager
    async def run(sae_id: str | None = SAE) -> AsyncIterator[tuple[Pilot, OpenApp]]:
        make_index(empty_workspace, SAE)
        async with opened(empty_workspace, sae_id) as both:
            yield both

    return run


async def asked(app: OpenApp, do: str, **arguments: Any) -> dict[str, Any]:
    return await asyncio.to_thread(ask, app, do, **arguments)


async def said(app: OpenApp, data: bytes) -> dict[str, Any]:
    """The answer to bytes that no client of ours would send."""
    reader, writer = await asyncio.open_unix_connection(str(app.path), limit=1 << 20)
    await reader.readline()
    writer.write(data)
    writer.write_eof()
    answer = await reader.readline()
    writer.close()
    return json.loads(answer)


async def test_a_feature_is_opened_and_told(drive: Drive) -> None:
    async with drive() as (pilot, app):
        opened = await asked(app, "open-feature", sae=SAE, feature=17)
        assert opened == {"screen": "features", "sae": SAE, "feature": 17}
        assert "#17 " in screen_text(pilot)
        state = await asked(app, "state")
        assert (state["screen"], state["sae"], state["feature"]) == ("features", SAE, 17)
        assert state["workspace"] == app.greeting.workspace
        assert state["pid"] == os.getpid()
        await asked(app, "open-feature", sae=SAE, feature=3)
        await press(pilot, "backspace")
        assert (await asked(app, "state"))["feature"] == 17


@pytest.mark.slow
async def test_another_sae_is_opened_for_its_feature(
    drive: Drive, empty_workspace: Workspace
) -> None:
    make_index(empty_workspace, OTHER)
    async with drive() as (_, app):
        await asked(app, "open-feature", sae=OTHER, feature=9)
        assert (await asked(app, "state"))["feature"] == 9


REFUSED = (
    ({"sae": SAE, "feature": 640}, "its features are 0 to 63"),
    ({"sae": "nobody", "feature": 1}, "nobody"),
    ({"sae": "../../etc", "feature": 1}, "etc"),
    ({"sae": SAE, "feature": -1}, "feature"),
    ({"sae": SAE, "feature": 2**40}, "feature"),
    ({"sae": SAE, "feature": "7"}, "feature"),
    ({"sae": SAE, "feature": True}, "feature"),
    ({"sae": SAE}, "feature"),
    ({"sae": SAE, "feature": 1, "code": "x"}, "takes no 'code'"),
)


async def test_what_cannot_be_opened_is_refused_in_a_sentence(drive: Drive) -> None:
    async with drive() as (pilot, app):
        for arguments, words in REFUSED:
            with pytest.raises(UserError) as refused:
                await asked(app, "open-feature", **arguments)
            assert words in refused.value.sentence
        assert pilot.app.is_running


@pytest.mark.slow
async def test_an_sae_without_an_index_says_how_to_build_one(
    drive: Drive, empty_workspace: Workspace
) -> None:
    make_index(empty_workspace, OTHER)
    (empty_workspace.saes_dir / OTHER / "features.duckdb").unlink()
    async with drive() as (_, app):
        with pytest.raises(UserError, match="no feature index") as refused:
            await asked(app, "open-feature", sae=OTHER, feature=1)
        assert "mi-crow index" in refused.value.hint


async def test_a_filter_finds_and_a_mistake_is_pointed_at(drive: Drive) -> None:
    async with drive() as (pilot, app):
        found = await asked(app, "filter", query="mast")
        assert 0 < found["shown"] < found["total"] == 64
        screen = pilot.app.screen
        assert isinstance(screen, FeaturesScreen)
        assert found["features"] == list(screen.table.shown_ids)[:20]
        with pytest.raises(UserError, match="character"):
            await asked(app, "filter", query="mast max>many")
        with pytest.raises(UserError, match="not in the index"):
            await asked(app, "filter", query="sort:auroc:nothing")
        assert (await asked(app, "filter", query=""))["shown"] > found["shown"]


@pytest.mark.slow
async def test_screens_and_actions_by_name(drive: Drive) -> None:
    async with drive() as (pilot, app):
        await asked(app, "show", screen="concepts")
        assert pilot.app.current_mode == "concepts"
        await asked(app, "open-feature", sae=SAE, feature=5)
        offered = {one["action"]: one for one in (await asked(app, "actions"))["actions"]}
        assert offered["features.map"]["possible"] is True
        assert offered["steer.presets"]["possible"] is None  # on another screen
        assert not {name for name in offered if name.startswith("popup.")}
        done = await asked(app, "do", action="features.map")
        assert "Map of" in done["popup"]
        with pytest.raises(UserError, match="is open over the screen") as covered:
            await asked(app, "show", screen="runs")
        assert "popup.close" in covered.value.hint
        with pytest.raises(UserError, match="is open over the screen"):
            await asked(app, "do", action="features.reverse")
        assert (await asked(app, "do", action="map.more"))["popup"]
        assert (await asked(app, "do", action="popup.close"))["popup"] == ""
        done = await asked(app, "do", action="features.mark_all")
        assert len(pilot.app.screen.query_one(FeatureTable).marks) > 0


async def test_a_picture_of_a_popup_can_be_asked_for(drive: Drive) -> None:
    async with drive() as (pilot, app):
        await press(pilot, "2", "question_mark")
        done = await asked(app, "do", action="app.picture")
        assert done["popup"] == "Save a picture"


@pytest.mark.slow
async def test_what_an_action_tells_is_in_the_answer(drive: Drive) -> None:
    async with drive() as (_, app):
        done = await asked(app, "do", action="app.undo")
        assert [one["said"] for one in done["told"]]
        with pytest.raises(UserError, match="not possible"):
            await asked(app, "do", action="runs.cancel")


async def test_only_rows_of_the_action_table_are_done(drive: Drive) -> None:
    async with drive() as (_, app):
        for name in ("app.exit", "__class__", "push_screen", "features.filter('x')"):
            with pytest.raises(UserError, match="no action"):
                await asked(app, "do", action=name)


HOSTILE = (
    (b"\n", "not valid JSON"),
    (b"{}\n", "do"),
    (b'{"do": "state"', "cut off"),
    (b"[1]\n", "not a JSON object"),
    (b'{"do": 3}\n', "do"),
    (b'{"do": "exec", "code": "1"}\n', "can be asked for"),
    (b'{"do": "state", "do": "quit"}\n', "twice"),
    (b'{"do": "show", "screen": ' + b"[" * 5000 + b"\n", "not valid JSON"),
    (b'{"do": "show", "screen": "\xff"}\n', "UTF-8"),
    (b'{"do": "show", "screen": "\x1b]0;x\x07"}\n', "not valid JSON"),
    (b'{"do": "show", "screen": "\\u001b]0;x\\u0007"}\n', "no screen"),
    (b"x" * 70_000 + b"\n", "too long"),
    (b"x" * 200_000, "too long"),
)


async def test_damaged_and_hostile_requests_are_refused(drive: Drive) -> None:
    async with drive(None) as (pilot, app):
        for data, words in HOSTILE:
            answer = await said(app, data)
            assert words in answer["error"], data[:80]
            assert answer["error"].isprintable()
            assert answer["code"] == 2
        assert (await asked(app, "state"))["pid"] == os.getpid()
        assert pilot.app.is_running


@pytest.mark.slow
async def test_clients_that_hang_or_crowd_hold_up_nobody(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.5)
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 8)
    async with drive(None) as (pilot, app):
        quiet = [await asyncio.open_unix_connection(str(app.path)) for _ in range(30)]
        await press(pilot, "5")
        assert pilot.app.current_mode == "concepts"
        ends = [await reader.read() for reader, _ in quiet]
        waited = [one for one in ends if b"no request came" in one]
        assert len(waited) <= server.MOST_CONNECTIONS
        assert all(b"the app is busy" in one for one in ends if one not in waited)
        for _, writer in quiet:
            writer.close()
        assert (await asked(app, "state"))["screen"] == "concepts"


async def test_one_call_too_many_is_told_that_the_app_is_busy(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with drive(None) as (_, app):
        monkeypatch.setattr(server, "MOST_CONNECTIONS", 0)
        assert not (await asyncio.to_thread(open_apps)).silent
        with pytest.raises(MiCrowError, match="the app is busy"):
            await asked(app, "state")


@pytest.mark.slow
async def test_quit_ends_the_app(drive: Drive) -> None:
    async with drive(None) as (pilot, app):
        reader, writer = await asyncio.open_unix_connection(str(app.path))
        await reader.readline()
        writer.write(b'{"do": "quit"}\n')
        assert json.loads(await reader.readline())["result"]["quit"] is True
        await pilot.pause()
        assert pilot.app._exit
        writer.close()


async def test_what_quitting_by_the_action_answers_is_printed(
    empty_workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    request = JsonObject({"do": "do", "action": "app.quit"}, "request")
    answer = await RemoteCommands(MiCrowApp(empty_workspace)).answer(request)
    remote._print("do", answer, app_on("/texts", 1.0))
    assert capsys.readouterr().out == "the app on /texts has ended\n"


def test_the_socket_is_the_users_own() -> None:
    listening, path = bind_socket()
    with listening:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert path.parent == runtime_folder()
        assert sockets() == [path]


def test_a_folder_with_a_long_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with pytest.raises(MiCrowError, match="too long"):
        bind_socket()
    assert not list((folder / "mi-crow").iterdir())


def test_what_a_dead_app_left_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    listening, path = bind_socket()
    listening.close()
    (path.parent / "app-note.sock").write_text("not a socket")
    assert run_command_line(["app", "state"]) == 2
    assert not path.exists()
    assert (path.parent / "app-note.sock").exists()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "no app is open; mi-crow opens one\n"


def test_an_app_that_is_stopped_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "GREETING_S", 0.2)
    listening, path = bind_socket()  # the system accepts, and nobody answers
    with listening:
        assert run_command_line(["app", "quit"]) == 2
        assert "does not answer" in capsys.readouterr().err
        assert path.exists()


def test_what_is_not_an_app_is_not_believed() -> None:
    import threading

    listening, _ = bind_socket()

    def lie() -> None:
        connection, _ = listening.accept()
        connection.sendall(b'{"pid": "1; rm", "workspace": 3}\n')
        connection.close()

    with listening:
        thread = threading.Thread(target=lie)
        thread.start()
        assert open_apps() == client.Apps((), 1)
        thread.join()


def test_somebody_else_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = socket.socketpair(socket.AF_UNIX)
    with first, second:
        assert client.is_of_this_user(first)
        monkeypatch.setattr(os, "getuid", lambda: 54_321)
        assert not client.is_of_this_user(first)


def app_on(workspace: str, started: float) -> OpenApp:
    return OpenApp(Path(f"/{started}"), client.Greeting(1, "0", workspace, started))


def test_the_app_on_this_workspace_is_meant_then_the_newest() -> None:
    apps = client.Apps((app_on("/b", 3.0), app_on("/a", 2.0), app_on("/a", 1.0)))
    assert pick_app(apps, Path("/a"), required=False).greeting.started == 2.0
    assert pick_app(apps, Path("/c"), required=False).greeting.started == 3.0
    with pytest.raises(NotFoundError, match="'/c'") as none:
        pick_app(apps, Path("/c"), required=True)
    assert none.value.hint == "one is open on /a, /b"
    with pytest.raises(UserError, match="do not answer"):
        pick_app(client.Apps((), 2), Path("/a"), required=False)


async def mi_crow(*words: str) -> tuple[int, str, str]:
    """What the command line gives: exit code, output, error."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_line_drives_the_app(drive: Drive, empty_workspace: Workspace) -> None:
    async with drive() as (pilot, _):
        opened = await mi_crow("app", "open-feature", SAE, "42")
        assert opened == (0, "feature 42 of fixture-sae is open\n", "")
        assert "#42 " in screen_text(pilot)
        assert json.loads((await mi_crow("app", "state", "--json"))[1])["feature"] == 42
        assert "of 64 features match" in (await mi_crow("app", "filter", "mast"))[1]
        elsewhere = str(empty_workspace.root.parent / "no")
        code, _, told = await mi_crow("app", "--workspace", elsewhere, "state")
        assert (code, told.count("\n")) == (2, 1)
        assert "no app is open on workspace" in told


@pytest.mark.slow
async def test_every_answer_is_printed(drive: Drive) -> None:
    async with drive() as (_, app):
        assert "features.map" in (await mi_crow("app", "actions"))[1]
        assert "Steer is shown" in (await mi_crow("app", "show", "steer"))[1]
        assert "done: steer.prompt" in (await mi_crow("app", "do", "steer.prompt"))[1]
        for words in ((), ("state",), ("list",), ("list", "--json")):
            code, out, _ = await mi_crow("app", *words)
            assert code == 0
            assert str(os.getpid()) in out  # of the app
        code, _, told = await mi_crow("app", "do", "popup.close")
        assert code == 2
        assert "not possible" in told
        assert (await asked(app, "state"))["screen"] == "steer"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["quit", "q", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_the_socket_goes_with_the_app(empty_workspace: Workspace, end: str) -> None:
    command = [*PROGRAM, "--workspace", str(empty_workspace.root)]
    with PseudoTerminal(command, columns=80, rows=24) as terminal:
        terminal.wait_for("\x1b[?1049h", "quit")
        [path] = wait_until(sockets)
        if end == "quit":
            app = pick_app(open_apps(), empty_workspace.root, required=True)
            assert app.path == path
            with ThreadPoolExecutor() as pool:  # the terminal is read meanwhile
                answer = pool.submit(ask, app, "quit")
                assert terminal.wait_for_end() == 0
                assert answer.result()["pid"] == terminal.process.pid
        elif end == "q":
            terminal.press("q")
            assert terminal.wait_for_end() == 0
        else:
            terminal.process.send_signal(signal.Signals[end])
            terminal.wait_for_end()
    assert path.exists() == (end == "SIGKILL")
    assert open_apps() == client.Apps(())
    assert not path.exists()


async def test_without_a_socket_the_app_works_and_the_list_of_messages_says_so(
    empty_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("mi_crow.store.runtime_folder.gettempdir", lambda: str(tmp_path / "file"))
    app = MiCrowApp(empty_workspace)
    with RemoteControl(app, RemoteCommands(app).answer) as control:
        async with app.run_test() as pilot:
            await settle(pilot)
            assert control.path is None
            await press(pilot, "exclamation_mark")
            assert "cannot reach this app" in screen_text(pilot)
