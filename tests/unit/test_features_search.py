"""Search: how matches are ranked, and that what is typed is text and never a pattern."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features import search
from mi_crow.mechanistic.features.columns import ordered
from mi_crow.mechanistic.features.connection import IndexConnection, connect
from mi_crow.mechanistic.features.queries import FeatureFilter, FeatureStore
from mi_crow.mechanistic.features.search import search_words
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.helpers.index_reference import Doc, document_features, facts

SAE = "fixture-sae"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Doc]]:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    return workspace, make_index(workspace, SAE)


@pytest.fixture
def docs(indexed: tuple[Workspace, list[Doc]]) -> list[Doc]:
    return indexed[1]


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return Annotations(tmp_path / "annotations.sqlite")


@pytest.fixture
def store(indexed: tuple[Workspace, list[Doc]], annotations: Annotations) -> FeatureStore:
    return FeatureStore.open(indexed[0], SAE, annotations)


@pytest.fixture
def connection(indexed: tuple[Workspace, list[Doc]]) -> IndexConnection:
    return connect(indexed[0].index_path(SAE), SAE)


def found(store: FeatureStore, text: str) -> list[int]:
    return [row.feature for row in store.search(text, limit=64)]


Holding = Callable[[str], set[int]]


@pytest.fixture(scope="module")
def holding(indexed: tuple[Workspace, list[Doc]]) -> Holding:
    """Features with a top example in a document that holds a text."""
    workspace, docs = indexed
    store = FeatureStore.open(workspace, SAE)
    shown = {f: {one.document for one in store.examples(f)} for f in range(64)}

    def features(text: str) -> set[int]:
        numbers = {doc.document for doc in docs if text in doc.text.lower()}
        return {f for f, documents in shown.items() if numbers & documents}

    return features


def test_a_name_beats_a_note_beats_a_promoted_token_beats_an_example(
    store: FeatureStore, annotations: Annotations, holding: Holding
) -> None:
    word = "harbour"
    by_text = holding(word)
    by_token = {
        f
        for f in range(64)
        if word in [token.strip().lower() for token, _ in store.detail(f).promoted]
    }
    assert by_text
    assert by_token
    exact, part, note = sorted(set(range(64)) - by_token)[:3]
    annotations.set_concept(SAE, exact, "Harbour", confidence=0.1)
    annotations.set_concept(SAE, part, "old harbours", confidence=1.0)
    annotations.set_concept(SAE, note, "boats", note="in the harbour")
    store.refresh_concepts()
    order = found(store, word)
    assert order[:3] == [exact, part, note]
    rest = order[3:]
    places = {feature: place for place, feature in enumerate(rest)}
    last_token = max(places[f] for f in by_token)
    only_text = by_text - by_token - {exact, part, note}
    assert only_text <= set(rest)
    assert last_token < min(places[f] for f in only_text)


def test_more_matching_examples_come_first(store: FeatureStore, docs: list[Doc]) -> None:
    numbers = {doc.document for doc in docs if "harbour" in doc.text.lower()}
    order = store.ids(search="near harbour").tolist()
    numbers &= {doc.document for doc in docs if "near" in doc.text.lower()}
    counts = [sum(one.document in numbers for one in store.examples(f)) for f in order]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("text", ["%", "_", "\\", "%%", "h_rbour", "harb%", "\\%", "*", "har.our"])
def test_wildcards_stand_for_themselves(store: FeatureStore, holding: Holding, text: str) -> None:
    assert set(found(store, text)) == holding(text)


@pytest.mark.parametrize(
    "text", ["' OR 1=1 --", "'; DROP TABLE idx.features; --", '") UNION SELECT 1 --', "$1", "?"]
)
def test_sql_in_a_search_finds_nothing_and_does_nothing(store: FeatureStore, text: str) -> None:
    before = store.page()
    assert found(store, text if text != "?" else "?harbour?") == []
    assert store.page() == before


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_an_empty_search_is_no_search(store: FeatureStore, text: str) -> None:
    assert store.search(text) == []
    assert store.ids(search=text).tolist() == store.ids().tolist()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["🦜", "עוגן", "esrever", "\u202e"])
def test_emoji_and_right_to_left_text_are_found(
    store: FeatureStore, holding: Holding, text: str
) -> None:
    expected = holding(text)
    assert expected
    promoting = {
        f for f in range(64) if any(text in token.lower() for token, _ in store.detail(f).promoted)
    }
    assert expected <= set(found(store, text)) <= expected | promoting


def test_a_search_of_ten_thousand_characters_is_answered(
    store: FeatureStore, holding: Holding, annotations: Annotations
) -> None:
    assert found(store, "x" * 10_000) == []
    numbers = " ".join(str(n) for n in range(1000, 3000))
    assert len(numbers) == 9_999
    assert found(store, numbers) == []
    annotations.set_concept(SAE, 8, "all of them", note=numbers)
    store.refresh_concepts()
    assert found(store, numbers) == [8]
    assert found(store, f"{numbers} 3000") == []
    assert set(found(store, "harbour " * 1250)) >= holding("harbour")


def test_words_within_others_are_looked_for_once() -> None:
    assert search_words("Sail sailing a SAILING mast") == ["sailing", "mast"]


def test_threads_that_search_first_agree(indexed: tuple[Workspace, list[Doc]]) -> None:
    store = FeatureStore.open(indexed[0], SAE)
    answers: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(found(store, "mast"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert answers[0]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("kind", ["documents", "tokens"])
def test_postings_read_in_parts_are_those_read_at_once(
    store: FeatureStore, connection: IndexConnection, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    read, features = getattr(search.Postings, kind), store.meta().n_features
    whole = read(connection, features)
    monkeypatch.setattr(search, "_FEATURES_AT_ONCE", 5)
    parts = read(connection, features)
    assert len(whole.ids) == whole.starts[-1] > features
    for name in ("starts", "ids", "ranks"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_features_on_a_text_are_those_strong_in_its_documents(
    store: FeatureStore, docs: list[Doc]
) -> None:
    text = "harbour near"
    chosen = [doc for doc in docs if all(word in doc.text.lower() for word in text.split())]
    expected: dict[int, list[float]] = {}
    for doc in chosen:
        for feature, max_act, _ in document_features(doc, 32):
            expected.setdefault(feature, []).append(max_act / facts(docs, feature).max_act)
    matching, some = store.on_text(text, limit=64)
    assert matching == len(chosen) > 0
    assert {one.row.feature: one.documents for one in some} == {
        feature: len(shares) for feature, shares in expected.items()
    }
    for one in some:
        strength = sum(expected[one.row.feature]) / matching
        assert one.strength == pytest.approx(strength, rel=1e-5)
    strengths = [one.strength for one in some]
    assert strengths == sorted(strengths, reverse=True)
    assert store.on_text("zzzz") == (0, [])
    assert store.on_text(" ") == (0, [])


def test_the_order_by_one_label_is_that_of_its_auroc(store: FeatureStore) -> None:
    def auroc(feature: int) -> float | None:
        detail = store.detail(feature)
        scores = {score.label: score.auroc for score in detail.labels}
        return scores["sailing"] if detail.row.fires else None

    values = [auroc(int(feature)) for feature in store.ids("auroc:sailing")]
    known = [value for value in values if value is not None]
    assert len(known) < 64, "features that never fire have none"
    assert values[: len(known)] == known == sorted(known, reverse=True)
    with pytest.raises(UserError, match="sailin"):
        store.ids("auroc:sailin")
    with pytest.raises(UserError) as caught:
        store.ids("size")
    assert "top_auroc" in caught.value.hint
    assert "auroc:LABEL" in caught.value.hint


def test_all_bands_at_once_are_what_each_is_alone(store: FeatureStore) -> None:
    bands = store.all_examples(3, limit=4)
    assert set(bands) == set(range(5))
    assert bands == {band: store.examples(3, band, limit=4) for band in bands}
    assert store.all_examples(33) == {}


@pytest.mark.parametrize("descending", [True, False])
def test_places_are_those_of_a_stable_sort(descending: bool) -> None:
    rng = np.random.default_rng(0)
    key = rng.integers(0, 50, 1000).astype(np.float64)
    key[rng.random(1000) < 0.1] = np.nan
    key[:20] = -0.0
    expected = sorted(
        range(1000), key=lambda n: (np.isnan(key[n]), -key[n] if descending else key[n], n)
    )
    known = int((~np.isnan(key)).sum())
    expected = [*expected[:known], *sorted(expected[known:])]
    assert ordered(key, descending).tolist() == expected
    assert ordered(key[:0], descending).tolist() == []


@pytest.mark.parametrize("descending", [True, False])
def test_keys_that_differ_in_their_last_bits_are_told_apart(descending: bool) -> None:
    rng = np.random.default_rng(1)
    near = 0.5 + np.spacing(0.5) * rng.integers(0, 9, 300)  # some of them equal
    key = np.concatenate([near, -near, rng.normal(size=400), np.repeat(-near[:5], 3)])
    expected = sorted(range(len(key)), key=lambda n: (-key[n] if descending else key[n], n))
    assert ordered(key, descending).tolist() == expected


def test_a_search_keeps_to_the_filter(store: FeatureStore, docs: list[Doc]) -> None:
    flt = FeatureFilter(label="sailing")
    within = store.ids(search="harbour", flt=flt).tolist()
    assert within == [f for f in found(store, "harbour") if f in store.ids(flt=flt)]
    assert store.ids(search="harbour", flt=replace(flt, tag="none")).tolist() == []


def test_what_a_search_reads_is_given_back_when_no_other_comes(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    postings = search.Postings.documents
    monkeypatch.setattr(
        search.Postings, "documents", lambda *given: reads.append("read") or postings(*given)
    )
    found = store.ids(search="harbour").tolist()
    store.rest()
    assert store.ids(search="harbour").tolist() == found
    assert len(reads) == 1
    monkeypatch.setattr(search, "REST_S", 0.0)
    store.rest()
    store.rest()
    assert store.ids(search="harbour").tolist() == found
    assert len(reads) == 2
