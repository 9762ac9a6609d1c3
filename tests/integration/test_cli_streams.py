"""A command's streams, whatever they can take: no traceback, and nothing in them but its words."""

import json
import os
import subprocess
import sys

import pytest

# A command that does what the libraries under the real ones do, and what each of them does itself.
CODE = """
import sys, warnings
import mi_crow.cli.commands.config as config
from mi_crow.cli import main
from mi_crow.cli.streams import read_input
from mi_crow.cli.tables import Column, print_line, print_table
from mi_crow.cli.formatting import print_json

def run(options):
    print("noise of a library")
    warnings.warn("noise of a warning")
    warnings.simplefilter("always")
    warnings.warn("noise of a warning that cannot be overheard")
    text = read_input()
    if options.json:
        print_json({"text": text, "own": "caf\\u00e9 \\u65e5\\u672c"})
    else:
        print_line(f"caf\\u00e9 \\u65e5\\u672c {text}")
        print_table([Column("\\u00e9")], [["\\u65e5\\u672c"]])
    for _ in range(int(sys.argv[1])):
        print_line("x" * 100)
    return 0

config.run = run
sys.exit(main(["config", "path", *sys.argv[2:]]))
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(
    *arguments: str, lines: int = 0, shell: str = "", data: bytes = b"", **env: str
) -> tuple[int, bytes, bytes]:
    command = [sys.executable, "-c", CODE, str(lines), *arguments]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    environment = {**os.environ, **env}
    done = subprocess.run(command, input=data, capture_output=True, env=environment, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "env", [{}, ASCII, {"PYTHONIOENCODING": "latin-1"}], ids=["utf-8", "ascii", "latin-1"]
)
def test_an_object_survives_every_encoding(env):
    code, out, err = run("--json", data="ärger".encode(), **{"PYTHONUTF8": "1", **env})
    assert (code, err) == (0, b"")
    found = json.loads(out.decode("latin-1" if "PYTHONIOENCODING" in env else "utf-8"))
    assert found["own"] == "café 日本"
    if "PYTHONIOENCODING" not in env:
        assert found["text"] == "ärger"


@pytest.mark.slow
@pytest.mark.parametrize("env", [ASCII, {"PYTHONIOENCODING": "latin-1"}], ids=["ascii", "latin-1"])
def test_what_a_terminal_cannot_show_is_replaced(env):
    code, out, err = run(**env)
    assert (code, err) == (0, b"")
    assert b"?" in out
    assert b"noise" not in out


def test_input_that_is_not_utf8_is_read_all_the_same():
    code, out, err = run("--json", data="café".encode("latin-1"), PYTHONUTF8="1")
    assert (code, err) == (0, b"")
    assert json.loads(out)["text"] == "caf\ufffd"


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "| head -c 1"])
def test_a_closed_stream_is_no_fault(closed):
    _, _, err = run(lines=3000, shell=closed)
    assert err == b""


@pytest.mark.slow
def test_a_small_result_for_a_reader_that_left_is_no_fault():
    _, _, err = run(shell="| true")
    assert err == b""


@pytest.mark.slow
def test_debug_shows_what_libraries_say():
    code, out, err = run("--debug", "--json")
    assert code == 0
    assert json.loads(out)["own"] == "café 日本"
    assert b"noise of a library" in err
    assert b"noise of a warning" in err
