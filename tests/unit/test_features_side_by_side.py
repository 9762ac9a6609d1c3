"""Features side by side, against a plain computation over the documents."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mi_crow.cli.entry import run_command_line
from mi_crow.cli.formatting import number
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features import comparing
from mi_crow.mechanistic.features.comparing import Comparison, compare_features
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.helpers.index_reference import Doc, coactivations, document_features, pooled

SAE = "fixture-sae"
DEAD = 33
Made = tuple[Workspace, list[Doc], torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    docs = make_index(workspace, SAE)
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    rows[5] = 0
    save_file({"W_dec": rows}, str(workspace.sae_dir(SAE) / "sae_weights.safetensors"))
    return workspace, docs, rows


def compared(made: Made, *features: int) -> Comparison:
    workspace = made[0]
    return compare_features(FeatureStore.open(workspace, SAE), features, workspace.sae_dir(SAE))


def test_cosines_are_those_of_the_decoder(made: Made) -> None:
    found = compared(made, 3, 17, 40, 5)
    assert [side.feature for side in found.sides] == [3, 17, 40, 5]
    assert [(one.first, one.second) for one in found.pairs] == list(combinations([3, 17, 40, 5], 2))
    rows = made[2].double()
    for pair in found.pairs:
        if pair.second == 5:
            assert pair.cosine is None  # it has no direction
        else:
            expected = torch.cosine_similarity(rows[pair.first], rows[pair.second], dim=0)
            assert pair.cosine == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.slow
def test_every_jaccard_index_is_counted_or_bounded(made: Made) -> None:
    docs = made[1]
    alike = {one: {b: j for b, _, j in coactivations(docs, one, 64)} for one in range(64)}
    seen = set()
    for features in (range(n, n + 4) for n in range(0, 64, 4)):
        for pair in compared(made, *features).pairs:
            truth = alike[pair.first].get(pair.second, 0.0)
            if pair.jaccard_is_bound:
                assert truth <= pair.jaccard + 1e-6
            else:
                assert truth == pytest.approx(pair.jaccard, abs=1e-6)
            seen.add((pair.jaccard_is_bound, pair.jaccard > 0))
    assert seen == {(True, True), (False, True), (False, False)}


def test_tokens_promoted_by_both_are_in_both_lists(made: Made, monkeypatch) -> None:
    found = compared(made, 3, 17, 40, 41)
    some = 0
    for pair, (a, b) in zip(found.pairs, combinations(found.sides, 2), strict=True):
        first, second = dict(a.detail.promoted), dict(b.detail.promoted)
        assert {one.token for one in pair.promoted} == first.keys() & second.keys()
        assert all(one[1:] == (first[one.token], second[one.token]) for one in pair.promoted)
        weaker = [min(one.first, one.second) for one in pair.promoted]
        assert weaker == sorted(weaker, reverse=True)
        some += len(weaker)
    assert some


@pytest.mark.parametrize("kept", [32, 6])
def test_a_text_of_one_alone_is_certain_or_bounded(
    made: Made, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    docs = {doc.document: doc for doc in made[1]}
    if kept < 32:  # an index that keeps fewer features of a document
        store_columns = comparing._listed

        def fewer(store, examples):
            found = store_columns(store, examples)
            for document in found:
                best = document_features(docs[document], kept)
                found[document] = comparing._Listed(
                    frozenset(feature for feature, *_ in best), best[-1][1]
                )
            return found

        monkeypatch.setattr(comparing, "_listed", fewer)
        monkeypatch.setattr(comparing, "STRONGEST", kept)
    sure = unsure = 0
    tops = FeatureStore.open(made[0], SAE).columns().max_act
    for features in ((3, 17, 40, 41), (2, 30, 50, 60)):
        for pair in compared(made, *features).pairs:
            for a, b, texts in (
                (pair.first, pair.second, pair.only_first),
                (pair.second, pair.first, pair.only_second),
            ):
                order = [-one.example.activation for one in texts]
                assert order == sorted(order)
                assert len({one.at_most > 0 for one in texts}) <= 1  # certain, or bounded
                for one in texts:
                    doc = docs[one.example.document]
                    assert pooled(doc, a) > 0
                    assert pooled(doc, b) <= one.at_most + 1e-6
                    assert one.at_most <= tops[b]
                    sure, unsure = sure + (one.at_most == 0), unsure + (one.at_most > 0)
    assert sure if kept == 32 else unsure


def test_only_texts_where_the_other_is_silent_are_listed_as_without_it(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [pair] = compared(made, 3, 17).pairs
    known = comparing._listed
    silent = {one.example.document for one in pair.only_first}

    def but_one(store, examples):
        """Of all but one text only a bound is known."""
        kept = sorted(silent)[:1]
        found = known(store, examples)
        rest = comparing._Listed(frozenset(range(100, 132)), 12.18)
        return {document: one if document in kept else rest for document, one in found.items()}

    assert len(silent) > 1
    monkeypatch.setattr(comparing, "_listed", but_one)
    [pair] = compared(made, 3, 17).pairs
    assert [one.at_most for one in pair.only_first] == [0]
    monkeypatch.setattr(comparing, "STRONGEST", 1)  # nothing is certain
    assert {one.at_most > 0 for one in compared(made, 3, 17).pairs[0].only_first} == {True}
    assert run(made, "3", "17") == 0
    printed = capsys.readouterr().out
    assert "#3 without #17: no text for certain" in printed
    top = float(FeatureStore.open(made[0], SAE).columns().max_act[17])
    assert f"(#17 at most {number(top, 2)})" in printed  # its maximum, below the bound


def test_a_dead_feature_compares_as_any_other(made: Made) -> None:
    [pair] = compared(made, 3, DEAD).pairs
    assert (pair.jaccard, pair.jaccard_is_bound, pair.only_second) == (0.0, False, ())
    assert pair.only_first


def test_without_weights_it_says_so(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    make_index(workspace, SAE)
    store, folder = FeatureStore.open(workspace, SAE), workspace.sae_dir(SAE)
    found = compare_features(store, [3, 17], folder)
    assert found.pairs[0].cosine is None
    assert "no weights" in found.no_cosine
    save_file({"W_dec": torch.zeros(8, 4)}, str(folder / "sae_weights.safetensors"))
    assert "8 features, the index 64" in compare_features(store, [3, 17], folder).no_cosine


@pytest.mark.parametrize(
    ("features", "words"),
    [((3,), "not 1"), ((3, 4, 5, 6, 7), "not 5"), ((3, 4, 3), "3 is given twice")],
)
def test_too_few_too_many_or_the_same_are_refused(made: Made, features, words: str) -> None:
    with pytest.raises(UserError, match=words):
        compared(made, *features)
    with pytest.raises(NotFoundError, match="feature 64 "):
        compared(made, 3, 64)


def run(made: Made, *words: str) -> int:
    return run_command_line(["feature", *words, "--sae", SAE, "--workspace", str(made[0].root)])


def test_the_command_prints_it(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(made, 3, 17)
    assert run(made, "3", "17") == 0
    output = capsys.readouterr().out
    assert f"{found.pairs[0].cosine:.3f}" in output
    assert "#3 without #17" in output
    assert run(made, "3", "17", "--json", "--examples", "2") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [one["feature"] for one in printed["features"]] == [3, 17]
    [pair] = printed["pairs"]
    assert pair["cosine"] == pytest.approx(found.pairs[0].cosine)
    assert len(pair["only_first"]) <= 2


@pytest.mark.parametrize(
    "words",
    [("3", "3"), ("1", "2", "3", "4", "5"), ("3", "4", "--similar-in", SAE)],
    ids=" ".join,
)
def test_bad_input_is_one_sentence(
    made: Made, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(made, *words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
