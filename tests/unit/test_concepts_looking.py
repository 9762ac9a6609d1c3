"""What the names of an SAE are worth: coverage, conflicts, merges, values, checks on texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mi_crow.cli import main
from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.conflicts import (
    SameName,
    find_conflicts,
    merge_names,
    same_name,
)
from mi_crow.mechanistic.concepts.coverage import FactsOf, coverage_of
from mi_crow.mechanistic.explain.check_result import Check
from mi_crow.mechanistic.explain.checking import check_feature, marked
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.similar import DecoderRows
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.steering.loading import join
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import copy_index
from tests.helpers.steering_fixture import TEXT, activations, tiny_sae

SAE = "s"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    torch.manual_seed(0)
    TopKSae(160, 64, 2).save(workspace.saes_dir / SAE)
    copy_index(workspace, SAE, n_features=160, n_documents=24)
    return workspace


@pytest.fixture
def annotations(workspace: Workspace) -> Annotations:
    return Annotations(workspace.annotations_path)


def opened(workspace: Workspace, annotations: Annotations) -> FeatureStore:
    return FeatureStore.open(workspace, SAE, annotations)


def test_coverage_is_the_share_of_firings_and_texts(
    workspace: Workspace, annotations: Annotations
) -> None:
    store = opened(workspace, annotations)
    assert coverage_of(store).firings == 0
    fires = store.columns().fires
    best = np.argsort(-fires)[:3].tolist()
    for feature in best[1:]:
        annotations.set_concept(SAE, feature, f"name {feature}")
    store.refresh_concepts()
    found = coverage_of(store)
    assert found.firings == pytest.approx(fires[best[1:]].sum() / fires.sum())
    assert [one.names for one in found.curve] == [1, 2]
    assert found.curve[-1].share == pytest.approx(found.firings)
    assert found.curve[0].possible == pytest.approx(fires[best[0]] / fires.sum())
    with_some = store.connection.rows(
        "SELECT count(DISTINCT document) FROM idx.document_features WHERE feature IN (?, ?)",
        best[1:],
    )[0][0]
    assert found.documents == pytest.approx(with_some / store.meta().n_documents)
    assert found.strongest <= found.documents
    for feature in np.flatnonzero(fires).tolist():
        annotations.set_concept(SAE, feature, "all")
    store.refresh_concepts()
    everything = coverage_of(store)
    assert (everything.firings, everything.strongest) == (pytest.approx(1), pytest.approx(1))
    facts = FactsOf(store, [best[0], 10**6])
    assert facts[best[0]].covers == everything.curve[0].share
    assert list(facts) == [best[0]]
    assert facts.get(10**6) is None


def test_few_changes_are_read_without_all_the_others(
    workspace: Workspace, annotations: Annotations
) -> None:
    store = opened(workspace, annotations)
    for feature in (3, 4):
        annotations.set_concept(SAE, feature, "sails")
        store.refresh_concepts()
    annotations.remove_concept(SAE, 3, "sails")
    annotations.set_concept(SAE, 4, "keel", 0.5)
    assert store.refresh_concepts()
    assert {f: [c.name for c in some] for f, some in store.concepts().items()} == {
        4: ["sails", "keel"]
    }
    assert [row.feature for row in store.search("keel")][:1] == [4]
    assert 3 not in [row.feature for row in store.search("sails")]


def test_names_that_contradict_each_other_are_found_and_merged(
    workspace: Workspace, annotations: Annotations
) -> None:
    store = opened(workspace, annotations)
    [(one, other, cosine)] = store.connection.rows(
        "SELECT feature, other, cosine FROM idx.neighbours WHERE other != feature "
        "ORDER BY cosine DESC, feature LIMIT 1"
    )
    annotations.set_concept(SAE, one, "tide", 0.4, "low", ("sea",))
    annotations.set_concept(SAE, other, "flood", 0.9, "high", ("water",))
    annotations.set_concept(SAE, 0, "same")
    annotations.set_concept(SAE, 1, "Same")
    store.refresh_concepts()
    decoder = DecoderRows.open(workspace.sae_dir(SAE), SAE)
    found = find_conflicts(store, decoder, far=0.9, near=cosine - 1e-6)
    alike = [one for one in found if one.kind == "alike"]
    assert [set(conflict.features) for conflict in alike][:1] == [{one, other}]
    assert {frozenset(c.features) for c in found if c.kind == "apart"} == {frozenset((0, 1))}
    assert merge_names(annotations, SAE, (one, other), "tide") == 2
    said = {c.feature: c for c in annotations.concepts(SAE) if c.feature in (one, other)}
    assert {(c.name, c.confidence if c.feature == other else 0.9) for c in said.values()} == {
        ("tide", 0.9)
    }
    assert set(said[one].tags) == {"sea", "water"}
    store.refresh_concepts()
    assert not [c for c in find_conflicts(store, None, near=cosine - 1e-6) if c.kind == "alike"]
    annotations.undo()
    assert {c.name for c in annotations.concepts(SAE)} == {"tide", "flood", "same", "Same"}


def test_a_name_that_other_features_have_is_said_with_how_near_they_are(
    workspace: Workspace, annotations: Annotations, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace.sae_dir(SAE)
    decoder = DecoderRows.open(folder, SAE).rows(0, 3)
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    assert same_name(annotations, folder, SAE, 0, "tide") is None
    assert main(["concepts", "set", "1", "tide"]) == 0
    assert capsys.readouterr().out.rstrip() == "feature 1 of s is now “tide”"
    assert main(["concepts", "set", "0", "Tide"]) == 0
    apart = f"far apart (cosine {unit[0] @ unit[1]:.2f})"
    assert f"is now “Tide”; so is feature 1, {apart}" in capsys.readouterr().out
    assert main(["concepts", "set", "2", "tide", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_name"] == [0, 1]
    found = same_name(annotations, folder, SAE, 2, "tide")
    assert found is not None
    assert found.cosine == pytest.approx(max(unit[2] @ unit[0], unit[2] @ unit[1]), abs=1e-6)
    assert found.words.startswith("so are feature 0 and 1 more, the nearest far apart (cosine ")
    assert main(["concepts", "set", "2", "tide #wet"]) == 0  # not a new name
    assert "so are" not in capsys.readouterr().out
    (folder / "sae_weights.safetensors").unlink()
    without = same_name(annotations, folder, SAE, 0, "tide")
    assert without == SameName((1, 2), None)
    assert SameName((1, 2), None).words == "so are feature 1 and 1 more"


def test_the_next_to_name_fires_often_and_is_unknown(
    workspace: Workspace, annotations: Annotations, capsys: pytest.CaptureFixture[str]
) -> None:
    store = opened(workspace, annotations)
    columns = store.columns()
    nameable = [f for f in range(160) if columns.fires[f] and columns.density[f] <= 0.2]
    best = max(nameable, key=lambda f: (columns.fires[f], -f))
    assert main(["concepts", "next", "--limit", "1", "--json"]) == 0
    assert [one["feature"] for one in json.loads(capsys.readouterr().out)] == [best]
    annotations.set_concept(SAE, best, "known")
    assert main(["concepts", "next", "--limit", "1", "--json"]) == 0
    assert [one["feature"] for one in json.loads(capsys.readouterr().out)] != [best]
    for action in ("coverage", "conflicts"):
        assert main(["concepts", action, "--json"]) == 0
        json.loads(capsys.readouterr().out)
    assert main(["concepts", "merge", "3", "--name", "x"]) == 2
    assert "two features or more" in capsys.readouterr().err


def test_marks_are_taken_out_of_a_text() -> None:
    assert marked("[[a]] b [[c d]]") == ("a b c d", [(0, 1), (4, 7)])
    assert marked("a [[ b") == ("a [[ b", [])


def test_a_check_counts_places_and_texts(tiny_lm: LanguageModel) -> None:
    sae = tiny_sae()
    loaded = join("sae", tiny_lm, sae)
    x, special = activations(tiny_lm, TEXT)
    acts = sae.encode(x[~special])
    often = (acts > 0).sum(0)
    feature = int(((often > 0) & (often < len(acts))).nonzero()[0])
    plain = check_feature(loaded, feature, [TEXT])
    assert (plain.hits, plain.expected, plain.recall) == (1, 1, 1.0)
    assert (plain.precision, plain.f1) == (None, None)  # nothing could be a false alarm
    assert len(plain.places) == int(often[feature])
    assert plain.places[0].activation == pytest.approx(float(acts[:, feature].max()), rel=1e-4)
    against = check_feature(loaded, feature, [], [TEXT])
    assert (against.false_alarms, against.precision, against.recall) == (1, 0.0, None)
    whole = check_feature(loaded, feature, [f"[[{TEXT}]]"])
    assert (whole.expected, whole.hits, whole.false_alarms, whole.precision) == (1, 1, 0, 1.0)
    token = plain.places[0].token
    silent = next(word for word in TEXT.split() if word not in token and token not in word)
    missed = check_feature(loaded, feature, [TEXT.replace(silent, f"[[{silent}]]")])
    assert missed.expected == 1
    assert missed.hits + sum(one.activation == 0 for one in missed.places) == 1
    assert missed.false_alarms > 0


def test_a_check_refuses_what_it_cannot_do(tiny_lm: LanguageModel) -> None:
    loaded = join("sae", tiny_lm, tiny_sae())
    with pytest.raises(NotFoundError, match="feature 10000 is not in SAE"):
        check_feature(loaded, 10_000, [TEXT])
    with pytest.raises(UserError, match="1 to 2,000 texts"):
        check_feature(loaded, 1, [])


def test_a_check_has_a_threshold_and_knows_the_best(tiny_lm: LanguageModel) -> None:
    sae = tiny_sae()
    loaded = join("sae", tiny_lm, sae)
    x, special = activations(tiny_lm, TEXT)
    acts = sae.encode(x[~special])
    feature = int((acts > 0).sum(0).argmax())
    strongest = float(acts[:, feature].max())
    token = check_feature(loaded, feature, [TEXT]).places[0].token.strip()
    marked_once = TEXT.replace(token, f"[[{token}]]", 1)
    found = check_feature(loaded, feature, [marked_once])
    assert found.false_alarms > 0
    best = found.at(found.best_threshold)
    assert best.f1 == max(found.at(one).f1 or 0.0 for one in found.thresholds)
    above = check_feature(loaded, feature, [marked_once], threshold=strongest)
    assert (above.hits, above.false_alarms, above.expected) == (0, 0, 1)
    assert above.places[0].activation <= strongest
    assert Check.from_json(json.loads(json.dumps(found.as_json()))) == found
