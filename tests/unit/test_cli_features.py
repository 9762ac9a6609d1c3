"""`mi-crow features` and `feature` on the terminal: foreign text, dead features, bad indexes."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mi_crow.cli import main
from mi_crow.store.workspace import Workspace
from tests.helpers.awkward_index import (
    CONCEPT,
    DEAD,
    FEATURE,
    LABEL,
    LONG,
    SAE,
    TOKENS,
    make_awkward_index,
)
from tests.helpers.hostile_workspace import obeyed

REBUILD = f"mi-crow index --sae {SAE} builds it again; concepts stay"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    make_awkward_index(workspace)
    return workspace.root


@pytest.fixture
def spoiled(made: Path, tmp_path: Path) -> Path:
    """The index of a copy of the workspace, for a test to spoil."""
    return Workspace.open(shutil.copytree(made, tmp_path / "w")).index_path(SAE)


def printed(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> str:
    assert main([*words, "--workspace", str(root)]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["feature", str(FEATURE)],
        ["feature", str(FEATURE), "--json"],
        ["features", "--limit", "64"],
        ["features", "--limit", "64", "--json"],
        ["features", "--search", "esrever"],
        ["features", "--on-text", "esrever", "--json"],
    ],
    ids=" ".join,
)
def test_no_terminal_obeys_what_is_in_the_index(
    made: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    output = printed(capsys, made, *words)
    assert output.strip()
    assert obeyed(output) == []


def test_a_feature_shows_awkward_tokens_as_symbols_and_long_ones_cut(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    output = printed(capsys, made, "feature", str(FEATURE))
    for shown in (
        "␛]0;title␇[/]\ufffd name",
        "«␛[31mred␛[0m»[bold]keel[/bold]עוגן",
        "«🦜👩\u200d👩\u200d👧»␉a␍b␊",
        "␇␈\ufffd2J␡",
        "日本語",
    ):
        assert shown in output
    assert "x" * 40 + "…" in output
    assert "x" * 41 not in output
    assert len(output) < 10_000


def test_json_gives_every_text_as_it_is(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, made, "feature", str(FEATURE), "--json"))
    assert found["concept"] == CONCEPT
    assert found["examples"][0]["tokens"] == list(TOKENS)
    assert found["examples"][0]["text"] == "".join(TOKENS)
    assert LONG in [token["token"] for token in found["promoted"]]
    assert LABEL in [label["label"] for label in found["labels"]]


def test_a_feature_that_never_fires_is_dead(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(capsys, made, "feature", str(DEAD))
    assert "never on the indexed tokens (dead)" in output
    assert "«" not in output
    found = json.loads(printed(capsys, made, "feature", str(DEAD), "--json"))
    assert (found["fires"], found["examples"], found["coactivations"]) == (0, [], [])
    dead = json.loads(printed(capsys, made, "features", "--no-alive", "--json"))
    assert DEAD in [row["feature"] for row in dead]


def test_it_is_said_what_co_firing_was_counted_over(
    spoiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = spoiled.parents[2]

    def told() -> tuple[str, dict[str, Any]]:
        text = printed(capsys, root, "feature", str(FEATURE))
        found = json.loads(printed(capsys, root, "feature", str(FEATURE), "--json"))
        return text, found["cofiring"]

    text, found = told()
    total = found["total"]
    assert found == {"counted": total, "total": total, "over": f"all {total:,} tokens"}
    assert f"counted over all {total:,} tokens" in text
    with duckdb.connect(str(spoiled)) as connection:
        connection.execute("INSERT INTO meta VALUES ('coactivation_tokens', '1200')")
    text, found = told()
    words = f"a sample of 1,200 of {total:,} tokens"
    assert found == {"counted": 1200, "total": total, "over": words}
    assert f"counted over {words}" in text


def _older(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200_000])


def _overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = b"\xff" * third
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (_older, 2, "is of the older schema 1"),
        (_cut, 1, "is damaged"),
        (_overwritten, 1, "is damaged"),
        (lambda path: path.write_bytes(b""), 1, "is an empty file"),
        (lambda path: path.write_bytes(b"not a database" * 999), 1, "is damaged"),
    ],
    ids=["older", "cut", "overwritten", "empty", "foreign"],
)
def test_an_index_that_cannot_be_read_offers_to_build_it_again(
    spoiled: Path, capsys: pytest.CaptureFixture[str], spoil: Any, code: int, says: str
) -> None:
    spoil(spoiled)
    workspace = str(spoiled.parents[2])
    for words in (["feature", "3"], ["features", "--search", "mast"]):
        assert main([*words, "--workspace", workspace]) == code
        out, error = capsys.readouterr()
        assert out == ""
        assert len(error.splitlines()) == 1
        assert says in error
        assert error.rstrip().endswith(REBUILD)
        assert main([*words, "--workspace", workspace, "--json"]) == code
        told = json.loads(capsys.readouterr().err)
        assert says in told["error"]
        assert told["hint"] == REBUILD


def test_a_query_asks_as_the_filter_of_the_app_does(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(*words: str) -> list[int]:
        rows = json.loads(printed(capsys, made, "features", *words, "--limit", "64", "--json"))
        return [row["feature"] for row in rows]

    everything = found()
    assert 0 < len(found("fires>30")) < len(everything)
    assert set(found("fires>30")).isdisjoint(found("fires<=30"))
    assert found("max>0 sort:max") == found("max>0", "--sort", "max")


def test_a_mistake_in_a_query_is_told_with_its_place(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", "rain densty<1", "--workspace", str(made)]) == 2
    error = capsys.readouterr().err
    assert "'densty' is not a condition (character 6)" in error
    assert "density" in error
