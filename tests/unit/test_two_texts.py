"""Two texts and two sets of them: aligned tokens, features by difference, the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.errors import MachineError, UserError
from mi_crow.language_model.chat import chat_text, read_conversation
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.explain.two_texts import aligned, compare_texts
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.known import KnownFeatures
from mi_crow.mechanistic.steering.loading import join
from mi_crow.mechanistic.steering.ranking import Ranking
from mi_crow.mechanistic.text_memory import naming_a_length
from mi_crow.store.workspace import Workspace
from tests.helpers.other_user import read_only
from tests.helpers.session_fixture import add_tiny_sae
from tests.helpers.steering_fixture import TEXT, tiny_sae

OTHER = "The ferry left the village after dawn."


def test_equal_tokens_stand_beside_each_other() -> None:
    assert aligned([1, 2, 3, 4], [1, 9, 8, 3, 4]) == [[0, 0], [1, 1], [None, 2], [2, 3], [3, 4]]
    assert aligned([1, 2], [1, 7, 2]) == [[0, 0], [None, 1], [1, 2]]
    assert aligned([], [5]) == [[None, 0]]


def test_features_come_by_how_differently_they_fire(tiny_lm, tmp_path: Path) -> None:
    known, loaded = KnownFeatures(Workspace.open(tmp_path / "w")), join("tiny", tiny_lm, tiny_sae())
    found = compare_texts(known, loaded, TEXT, OTHER, top=200)
    one, other = (
        {row["feature"]: row for row in inspect(loaded, text, 200)["features"]}
        for text in (TEXT, OTHER)
    )
    assert {row["feature"] for row in found["features"]} <= one.keys() | other.keys()
    sizes = [abs(row["difference"]) for row in found["features"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0
    for row in found["features"]:
        here, there = (side.get(row["feature"]) for side in (one, other))
        assert row["first"] == pytest.approx(here["max_act"] if here else 0)
        assert row["second_acts"] == pytest.approx(
            there["acts"] if there else [0.0] * len(found["second"]["tokens"])
        )
        assert row["difference"] == pytest.approx(row["first"] - row["second"], abs=1e-6)
        assert row["first_count"] == (here["count"] if here else 0)
    turned = compare_texts(known, loaded, OTHER, TEXT, top=200)
    assert {r["feature"]: -r["difference"] for r in turned["features"]} == pytest.approx(
        {r["feature"]: r["difference"] for r in found["features"]}
    )
    assert compare_texts(known, loaded, TEXT, TEXT)["features"] == []
    with pytest.raises(UserError, match="cannot be compared by first"):
        compare_texts(known, loaded, TEXT, OTHER, ranking=Ranking("first"))


def test_a_longer_text_does_not_count_for_more(tiny_lm, tmp_path: Path) -> None:
    known, loaded = KnownFeatures(Workspace.open(tmp_path / "w")), join("tiny", tiny_lm, tiny_sae())
    found = compare_texts(known, loaded, TEXT, OTHER, ranking=Ranking("count"))
    for row in found["features"]:
        shares = [
            row[f"{side}_count"] / (len(found[side]["tokens"]) - sum(found[side]["special"]))
            for side in ("first", "second")
        ]
        assert row["difference"] == pytest.approx(shares[0] - shares[1], abs=1e-6)


def test_out_of_memory_names_a_length_that_would_fit(tiny_lm) -> None:
    with (
        pytest.raises(MachineError, match="for reading 900 tokens") as told,
        naming_a_length(tiny_lm, "reading", 900, lambda tokens: tokens),
    ):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    assert "about 450 tokens would fit" in told.value.hint
    with (
        pytest.raises(RuntimeError, match="shape"),
        naming_a_length(tiny_lm, "reading", 9, lambda tokens: tokens),
    ):
        raise RuntimeError("shape mismatch")


def test_a_conversation_is_read_from_lines_or_json() -> None:
    said = [{"role": "user", "content": "Hello\nthere"}, {"role": "assistant", "content": "Hi"}]
    assert read_conversation("user: Hello\nthere\nAssistant: Hi") == said
    assert read_conversation(json.dumps(said)) == said
    assert read_conversation("Hello") == [{"role": "user", "content": "Hello"}]
    for wrong in ("user:", '[{"role": "user"}]'):
        with pytest.raises(UserError, match="conversation is"):
            read_conversation(wrong)


class _Template:
    """A tokenizer with a template that marks each message."""

    is_fast = True

    def get_chat_template(self) -> str:
        return ""

    def apply_chat_template(
        self, messages: list[dict[str, str]], add_generation_prompt: bool, **_: object
    ) -> str:
        text = "".join(f"<{one['role']}>{one['content']}</>" for one in messages)
        return text + "<assistant>" * add_generation_prompt


def test_after_a_question_the_answer_begins() -> None:
    asked = read_conversation("user: a")
    assert chat_text(_Template(), asked) == "<user>a</><assistant>"
    answered = read_conversation("user: a\nassistant: b")
    assert chat_text(_Template(), answered) == "<user>a</><assistant>b</>"


# The command line.


@pytest.fixture
def mi_crow(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> Callable[..., tuple[int, str]]:
    """Runs a command in a workspace with two SAEs of one model; its code and what it printed."""
    workspace = Workspace.open(tmp_path / "w")
    add_tiny_sae(workspace, tiny_model_dir, "tiny")
    add_tiny_sae(workspace, tiny_model_dir, "second")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))

    def call(*arguments: str) -> tuple[int, str]:
        code = main(list(arguments))
        told = capsys.readouterr()
        return code, told.out + told.err

    return call


def test_two_texts_are_compared_and_saved(mi_crow, tmp_path: Path) -> None:
    two = ("inspect", "--sae", "tiny", TEXT, "--against", OTHER)
    code, out = mi_crow(*two, "--save", "ferries")
    assert code == 0
    for words in ("difference", "above 0 more on the first text", "saved as 'ferries'"):
        assert words in out
    saved = Annotations(tmp_path / "w" / "annotations.sqlite").inspection("ferries")
    assert (saved.kind, saved.text, saved.sae_ids) == ("compare", TEXT, ("tiny",))
    assert saved.results["second"]["text"] == OTHER
    code, out = mi_crow("inspect", "--sae", "tiny", TEXT, "--against", OTHER * 40)
    assert (code, "the first: read" in out) == (0, False)
    assert re.search(r"the second: read \d+ of \d+ tokens.*--windows reads it all", out)
    code, out = mi_crow(*two, "--save", "ferries")
    assert code == 2
    assert "there is an inspection 'ferries' already" in out


def test_what_cannot_be_saved_is_refused_first_or_printed(mi_crow, tmp_path, monkeypatch) -> None:
    one = ("inspect", "--sae", "tiny", TEXT)
    with read_only(tmp_path / "w"):
        for more in (("--save", "ro"), ("--against", OTHER, "--tag", "x")):
            code, out = mi_crow(*one, *more)
            assert code == 2
            assert "nothing can be named or saved: 'annotations.sqlite' cannot be written" in out
            assert "fires on" not in out
    monkeypatch.setattr("mi_crow.mechanistic.concepts.annotations_inspections._MOST", 10)
    code, out = mi_crow(*one, "--save", "big")
    assert (code, "can be saved" in out) == (2, True)
    assert re.search(r"read \d+ of \d+ tokens", out)
    code, out = mi_crow(*one, "--against", OTHER, "--tag", "x")
    assert (code, "none of these features has a name" in out) == (2, True)
    assert "above 0 more on the first text" in out


@pytest.mark.parametrize(
    ("kind", "command", "expected"),
    [
        (
            "inspect",
            ("inspect", "--sae", "tiny", TEXT, "--sort", "raw", "--top", "7", "--bos", "no"),
            {"sort": "raw", "top": 7, "bos": "no"},
        ),
        (
            "attribute",
            (
                *("attribute", "--sae", "tiny", TEXT, "--token", "0", "--prune", "0"),
                *("--seed", "0", "--steps", "2", "--top", "3"),
            ),
            {"token": 0, "prune": 0, "seed": 0, "steps": 2, "top": 3, "bos": "auto"},
        ),
        (
            "lens",
            ("lens", "--sae", "tiny", TEXT, "--token", "0", "--top", "2", "--windows"),
            {"token": 0, "top": 2, "windows": True, "bos": "auto"},
        ),
        (
            "patch",
            (
                *("patch", "--sae", "tiny", "abc", "abd", "--target", "e", "--against", "a"),
                *("--feature", "0", "--token", "-1"),
            ),
            {"feature": 0, "token": -1, "target": "e", "against": "a", "corrupted": "abd"}
            | {"bos": "auto"},
        ),
    ],
)
def test_every_setting_is_saved_also_those_of_value_0(
    mi_crow, tmp_path: Path, kind, command, expected
) -> None:
    code, out = mi_crow(*command, "--save", "kept")
    assert code == 0, out
    saved = Annotations(tmp_path / "w" / "annotations.sqlite").inspection("kept")
    assert (saved.kind, saved.settings) == (kind, expected)


def test_sets_get_the_test_on_other_texts_and_bad_sets_are_told(mi_crow, tmp_path: Path) -> None:
    sea = [f"The ferry left harbour number {n} before dawn with gulls." for n in range(8)]
    bread = [f"Bread needs {n} hours of flour, water and warm salt." for n in range(8)]
    code, out = mi_crow("inspect", "--sae", "tiny", *sea, "--against", *bread, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["texts_for"], found["texts_against"], found["sae_id"]) == (8, 8, "tiny")
    assert all(row["name"] is None for row in found["features"])
    for arguments, words in (
        ((*sea[:2], "--against", *bread), "has 2 texts, too few"),
        ((*sea,), "8 texts were given; quote the text, or give --against a text"),
        ((TEXT, "--tag", "x"), "--tag is for two texts or sets"),
        ((TEXT, "--against", OTHER, "--tag", "x"), "none of these features has a name"),
        ((TEXT, "--against", OTHER, "--sort", "first"), "cannot be compared by first"),
        ((TEXT, "--against", OTHER, "--vector", "v"), "--vector is for one text"),
        ((TEXT, "--chat"), "has no chat template"),
        ((TEXT, "--run", "nope"), "--run is for labels and documents of a run"),
        ((TEXT, "--against", OTHER, "--run", "nope"), "--run is for labels"),
        ((*sea, "--against", *bread, "--run", "nope"), "--run is for labels"),
        ((TEXT, "--texts", "5"), "--texts is for sets of texts"),
        ((TEXT, "--against", OTHER, "--texts", "5"), "--texts is for sets of texts"),
        ((TEXT, "--against", OTHER, "--seed", "0"), "--seed is for sets of texts"),
    ):
        code, out = mi_crow("inspect", "--sae", "tiny", *arguments)
        assert (code, words in out) == (2, True), out


def test_without_a_name_all_saes_of_the_model_read_the_text(mi_crow) -> None:
    code, out = mi_crow("inspect", TEXT, "--json")
    assert code == 0
    assert {one["sae_id"] for one in json.loads(out)["saes"]} == {"second", "tiny"}


def test_one_damaged_sae_or_index_is_named_and_the_others_read_the_text(
    mi_crow, tmp_path: Path
) -> None:
    folder = tmp_path / "w" / "saes" / "second"
    index = folder / "features.duckdb"
    index.write_bytes(b"garbage" * 1000)
    for break_ in (lambda: None, lambda: _truncate_weights(folder)):
        break_()
        code, out = mi_crow("inspect", TEXT, "--json")
        assert code == 0, out
        found = json.loads(out)
        assert found["sae_id"] == "tiny"
        assert "left out 'second'" in found["notes"][0]
        assert mi_crow("inspect", "--sae", "second", TEXT)[0] == 1
        index.unlink(missing_ok=True)


def _truncate_weights(folder: Path) -> None:
    [weights] = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:200])


def test_a_damaged_index_takes_only_the_names_from_an_answer(mi_crow, tmp_path: Path) -> None:
    (tmp_path / "w" / "saes" / "tiny" / "features.duckdb").write_bytes(b"garbage" * 1000)
    code, out = mi_crow("attribute", "--sae", "tiny", TEXT, "--top", "2", "--json")
    assert code == 0, out
    found = json.loads(out)
    assert "names of features are missing" in found["notes"][0]
    assert len(found["saes"][0]["causes"]) == 2
