"""Dictionaries in and out: rules for conflicts, dry runs, bad rows, Neuronpedia's files."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.exchange.dictionary_rows import bad_rows, read_rows
from mi_crow.mechanistic.concepts.exchange.importing import Rule, import_concepts
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import copy_index

SAE = "s"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    TopKSae(16, 4, 2).save(workspace.saes_dir / SAE)
    return workspace


@pytest.fixture
def annotations(workspace: Workspace) -> Annotations:
    found = Annotations(workspace.annotations_path)
    found.set_concept(SAE, 1, "rain", 0.5, "mine", ("wet",))
    found.set_concept(SAE, 2, "sea", 0.9)
    return found


def said(annotations: Annotations) -> set[tuple[int, str, float, str, tuple[str, ...]]]:
    return {(c.feature, c.name, c.confidence, c.note, c.tags) for c in annotations.concepts(SAE)}


MINE = {(1, "rain", 0.5, "mine", ("wet",)), (2, "sea", 0.9, "", ())}
RAIN = (1, "rain", 0.8, "mine\ntheirs", ("wet", "sky"))


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("keep", {*MINE, (3, "new", 1.0, "", ())}),
        (
            "replace",
            {
                (1, "rain", 0.8, "theirs", ("sky",)),
                (2, "lake", 0.4, "", ()),
                (3, "new", 1.0, "", ()),
            },
        ),
        (
            "both",
            {RAIN, (2, "sea", 0.9, "", ()), (2, "lake", 0.4, "", ()), (3, "new", 1.0, "", ())},
        ),
        (
            "higher",
            {
                (1, "rain", 0.8, "theirs", ("sky",)),
                (2, "sea", 0.9, "", ()),
                (3, "new", 1.0, "", ()),
            },
        ),
    ],
)
def test_a_rule_says_what_becomes_of_features_that_have_a_name(
    workspace: Workspace, annotations: Annotations, tmp_path: Path, rule: Rule, left: set[Any]
) -> None:
    rows = [
        {"feature": 1, "name": "rain", "confidence": 0.8, "note": "theirs", "tags": ["sky"]},
        {"feature": 2, "name": "lake", "confidence": 0.4},
        {"feature": 3, "name": "new"},
    ]
    path = tmp_path / "c.json"
    path.write_text(json.dumps(rows))
    planned = import_concepts(workspace, annotations, path, sae_id=SAE, rule=rule, dry_run=True)
    assert said(annotations) == MINE
    done = import_concepts(workspace, annotations, path, sae_id=SAE, rule=rule)
    assert said(annotations) == left
    assert (planned.added, planned.replaced, planned.removed, planned.kept) == (
        done.added,
        done.replaced,
        done.removed,
        done.kept,
    )
    annotations.undo()
    assert said(annotations) == MINE


def test_bad_rows_are_named_by_line_and_left_out_when_asked(
    workspace: Workspace,
    annotations: Annotations,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "c.csv"
    lines = ["sae_id,feature,name,confidence,note", "s,3,ok,0.5,", "s,99,far,0.5,", "s,3,ok,0.5,"]
    lines += ["s,4,bad,much,", f"s,5,long,1,{'x' * (10 << 20)}", "s,x,word,1,", "s,6,fine,,"]
    path.write_text("\n".join(lines))
    assert main(["concepts", "import", str(path)]) == 2
    told = capsys.readouterr().err
    assert "row 2 (line 3)" in told
    assert "also wrong: row 3 (line 4): it repeats row 1 (line 2): “ok” of feature 3;" in told
    assert "; row 4 (line 5): its confidence 'much' is not a number;" in told
    assert "; row 6 (line 7): its feature 'x' is not a whole number; --skip-bad" in told
    assert said(annotations) == MINE
    assert main(["concepts", "import", str(path), "--skip-bad", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["added"], found["skipped"]) == (2, 5)
    assert [one.partition(":")[0] for one in found["troubles"]] == [
        f"row {n} (line {n + 1})" for n in (2, 3, 4, 5, 6)
    ]
    assert {c.feature for c in annotations.concepts(SAE)} == {1, 2, 3, 6}


def test_a_comma_without_quotes_does_not_shorten_a_name(
    workspace: Workspace,
    annotations: Annotations,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "c.csv"
    path.write_text("feature,name\n3,rain, and snow\n4,fog, ,\n")
    assert main(["concepts", "import", str(path), "--sae", SAE]) == 2
    assert "row 1 (line 2)" in (told := capsys.readouterr().err)
    assert "quote a text that has commas" in told
    assert "also wrong" not in told  # cells that say nothing are nothing
    assert said(annotations) == MINE


@pytest.mark.parametrize("name", ["out.json", "out.csv", "out.jsonl", "out.jsonl.gz"])
def test_a_round_trip_loses_nothing(
    workspace: Workspace, annotations: Annotations, tmp_path: Path, name: str
) -> None:
    annotations.set_concept(SAE, 1, "=1+1", 0.25, 'a "note"\nof two lines', ("a b", "ü"), "auto")
    before = annotations.concepts(SAE)
    path = tmp_path / name
    assert main(["concepts", "export", str(path), "--sae", SAE]) == 0
    annotations.apply([(one, None) for one in before])
    assert main(["concepts", "import", str(path), "--sae", SAE]) == 0
    assert annotations.concepts(SAE) == before


def write_batches(folder: Path, rows: list[Any]) -> Path:
    batches = folder / "explanations"
    batches.mkdir(parents=True)
    for number, some in enumerate((rows[:2], rows[2:])):
        text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in some)
        (batches / f"batch-{number}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def explanation(index: object, description: object, layer: str = "10-res-jb") -> dict[str, Any]:
    return {
        "modelId": "gpt2-small",
        "layer": layer,
        "index": index,
        "description": description,
        "authorId": "a",
        "typeName": "oai_token-act-pair",
        "notes": None,
    }


def test_explanations_are_read_from_batches_by_source(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        explanation("3", "words about rain"),
        explanation("4", " tides "),
        explanation("5", "x", "9-res-jb"),
    ]
    folder = write_batches(tmp_path / "10-res-jb", rows)
    assert main(["neuronpedia", "import", str(folder)]) == 2
    assert "--source-id 10-res-jb" in capsys.readouterr().err
    assert main(["neuronpedia", "import", str(folder), "--source-id", "10-res-jb"]) == 0
    found = Annotations(workspace.annotations_path).concepts(SAE)
    assert [(one.feature, one.name, one.source) for one in found] == [
        (3, "words about rain", "neuronpedia"),
        (4, "tides", "neuronpedia"),
    ]
    assert main(["neuronpedia", "import", str(folder), "--source-id", "1-x"]) == 2
    assert "there is 10-res-jb, 9-res-jb" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["{", "[1]", explanation("x", "y"), explanation("3", None)])
def test_a_bad_explanation_is_named(workspace: Workspace, tmp_path: Path, bad: Any) -> None:
    folder = write_batches(tmp_path / "b", [explanation("1", "fine"), bad])
    error = str(bad_rows(folder, [row for row in read_rows(folder, SAE) if row.trouble]))
    assert error.startswith("row 2 of")


def test_the_dashboard_set_has_what_the_index_has(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TopKSae(160, 4, 2).save(workspace.saes_dir / "indexed")
    copy_index(workspace, "indexed", n_features=160, n_documents=24)
    assert main(["concepts", "set", "--sae", "indexed", "3", "sails", "--tag", "sea"]) == 0
    folder = tmp_path / "out"
    asked = ["neuronpedia", "export", "--sae", "indexed", str(folder), "--source-id", "2-mine"]
    capsys.readouterr()
    assert main([*asked, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)

    def lines(kind: str) -> list[dict[str, Any]]:
        data = b"".join(
            gzip.decompress(one.read_bytes()) for one in sorted((folder / kind).iterdir())
        )
        return [json.loads(line) for line in data.splitlines()]

    assert {kind: len(lines(kind)) for kind in ("features", "activations", "explanations")} == {
        kind: counts[kind] for kind in ("features", "activations", "explanations")
    }
    [named] = lines("explanations")
    assert (named["index"], named["layer"], named["description"]) == ("3", "2-mine", "sails")
    feature = lines("features")[3]
    mine = [one for one in lines("activations") if one["index"] == "3"]
    assert feature["maxActApprox"] == pytest.approx(max(one["maxValue"] for one in mine))
    assert all(len(one["tokens"]) == len(one["values"]) for one in mine)
    for name in ("release", "model", "sourceset", "source"):
        assert len((folder / f"{name}.jsonl").read_text().splitlines()) == 1
    assert main(asked) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["neuronpedia", "import", str(folder), "--sae", "indexed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 1


def test_all_that_a_query_finds_are_named_at_once(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    TopKSae(160, 4, 2).save(workspace.saes_dir / "indexed")
    copy_index(workspace, "indexed", n_features=160, n_documents=24)
    line = "weather words #auto ~0.5 -- by label"
    assert main(["concepts", "tag", "--sae", "indexed", "label:weather", line]) == 0
    annotations = Annotations(workspace.annotations_path)
    found = annotations.concepts("indexed")
    assert len(found) > 1
    assert {(c.name, c.tags, c.confidence, c.note) for c in found} == {
        ("weather words", ("auto",), 0.5, "by label")
    }
    assert len(annotations.past_changes()) == 1
    annotations.undo()
    assert annotations.concepts("indexed") == []
