"""The doctor names what would get in the way, and never fails itself."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from mi_crow.cli import doctor_checks
from mi_crow.cli.doctor_checks import CheckResult, ask, examine, kill_user_processes


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what each program answers; every other one is missing."""

    def say(**known: str) -> None:
        def fake(*command: str, timeout: float = 10) -> str | None:
            line = " ".join(command)
            return next((v for k, v in known.items() if k.replace("_", "-") in line), None)

        monkeypatch.setattr(doctor_checks, "ask", fake)

    return say


def about(topic: str, found: list[CheckResult]) -> list[CheckResult]:
    return [result for result in found if result.topic == topic]


def test_devices_are_listed_with_their_memory(answers: Callable[..., None], tmp_path: Path) -> None:
    gpu = '{"device": "cuda:0", "name": "H100", "memory": 85000000000}'
    answers(_c=f'a warning\n[{{"device": "cpu", "name": "2", "memory": null}}, {gpu}]')
    [cpu, cuda] = about("device", examine(tmp_path))
    assert cpu.found == "cpu: 2"
    assert cuda.found == "cuda:0: H100, 85.0 GB"


def test_a_torch_that_does_not_start_is_a_warning(
    answers: Callable[..., None], tmp_path: Path
) -> None:
    answers()
    [result] = about("devices", examine(tmp_path))
    assert result.level == "warning"


def test_tmux_settings_that_hurt_are_named(
    answers: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX", "/tmp/x")
    answers(tmux__V="tmux 3.3a", escape_time="500", set_clipboard="off", default_terminal="screen")
    monkeypatch.setattr(
        doctor_checks,
        "ask",
        lambda *c, timeout=10: {
            "-V": "tmux 3.3a",
            "escape-time": "500",
            "set-clipboard": "off",
            "default-terminal": "screen",
        }.get(c[-1]),
    )
    found = about("tmux", examine(tmp_path))
    advice = " ".join(result.advice for result in found)
    assert "escape-time 10" in advice
    assert "set-clipboard external" in advice
    assert "tmux-256color" in advice


def test_a_quiet_tmux_has_no_complaints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", "/tmp/x")
    known = {"-V": "tmux 3.5", "escape-time": "10", "default-terminal": "tmux-256color"}
    monkeypatch.setattr(doctor_checks, "ask", lambda *c, timeout=10: known.get(c[-1], ""))
    assert [result.level for result in about("tmux", examine(tmp_path))] == ["ok"]


@pytest.mark.parametrize(
    ("term", "colours", "no_color", "says"),
    [
        ("", "", "", "no terminal"),
        ("xterm-256color", "truecolor", "", "16 million"),
        ("xterm-256color", "", "", "256 colours"),
        ("vt100", "", "", "16 colours"),
        ("xterm-256color", "truecolor", "1", "without colour"),
    ],
)
def test_the_terminals_colours(
    answers: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    term: str,
    colours: str,
    no_color: str,
    says: str,
) -> None:
    answers()
    for name, value in (("TERM", term), ("COLORTERM", colours), ("NO_COLOR", no_color)):
        monkeypatch.setenv(name, value)
    assert says in about("terminal", examine(tmp_path))[0].found


def test_the_published_distribution_beside_this_one_is_a_warning(
    answers: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers()

    def version(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError
        return "1.0"

    monkeypatch.setattr(doctor_checks, "version", version)
    found = examine(tmp_path)
    [clash] = about("packages", found)
    assert clash.level == "warning"
    assert "pip uninstall" in clash.advice
    assert any(f.level == "warning" and "torch" in f.found for f in about("versions", found))


def test_a_small_disk_is_a_warning(
    answers: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers()
    monkeypatch.setattr(doctor_checks, "_LEAST_FREE", 10**30)
    [disk] = about("disk", examine(tmp_path / "not" / "yet"))
    assert disk.level == "warning"


def test_logind_settings_are_read_the_last_one_deciding(tmp_path: Path) -> None:
    first, second = tmp_path / "logind.conf", tmp_path / "10-x.conf"
    assert kill_user_processes([first]) is None
    first.write_text("[Login]\n#KillUserProcesses=no\n")
    assert kill_user_processes([first]) is None
    first.write_text("[Login]\nKillUserProcesses=yes\n")
    assert kill_user_processes([first]) is True
    second.write_text("[Login]\nKillUserProcesses = no\n")
    assert kill_user_processes([first, second]) is False


def test_asking_a_program_that_is_missing_or_fails_gives_none() -> None:
    assert ask("no-such-program-at-all") is None
    assert ask("false") is None
    assert ask("echo", "yes") == "yes"


def test_a_missing_numba_is_noted(
    answers: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers()
    real = doctor_checks.version

    def missing(package: str) -> str:
        if package == "numba":
            raise PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(doctor_checks, "version", missing)
    [result] = about("numba", examine(tmp_path))
    assert result.level == "note"
    assert "[fast]" in result.advice
