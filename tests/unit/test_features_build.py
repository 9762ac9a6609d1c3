"""The index job: what it writes equals a plain recomputation, for any activations."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index import encode_pass
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.features.index.codes import Chunk, CodedTokens
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers import index_reference as reference
from tests.helpers.index_paths import arithmetic
from tests.helpers.index_reference import Doc
from tests.helpers.index_runs import WIDTH, documents, identity_sae, save_run, save_sae

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

__all__ = ["arithmetic"]
TEXTS = (
    "The ferry left the harbour before dawn.",
    "“Naïve?” he asked. “No — 12 €, and a smile 🙂.”",
    "a",
    "\x1b[31mred\x1b[0m [bold]not bold[/bold]\x00\ttab",
    "שלום \u202eabc\u202c emoji 👩‍👩‍👧 zero\u200bwidth",
    "The ferry left the harbour before dawn.",
    "x" * 300,
)
LABELS = ("sea", "land", None, "air")
# Few distinct values, so that ties are the rule.
LEVELS = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.5, 7.25, 1e-4])

SMALL: dict[str, Any] = {
    "top_examples": 3,
    "window": 4,
    "coactivations": 3,
    "band_examples": 2,
}


@st.composite
def corpora(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Documents as plain data: activations on a few features, label, split, outliers."""
    found = []
    for _ in range(draw(st.integers(1, 7))):
        rows = draw(st.lists(st.lists(LEVELS, min_size=5, max_size=5), min_size=0, max_size=6))
        found.append(
            {
                "text": draw(st.sampled_from(TEXTS)),
                "rows": rows,
                "label": draw(st.sampled_from(LABELS)),
                "split": draw(st.sampled_from(["train", "train", "heldout"])),
                "outlier": draw(st.lists(st.booleans(), min_size=6, max_size=6)),
            }
        )
    return found


def as_docs(corpus: list[dict[str, Any]], tokenizer: Any, start: int = 0) -> list[Doc]:
    acts = []
    for one in corpus:
        rows = np.zeros((len(one["rows"]), WIDTH), dtype=np.float32)
        if len(rows):
            rows[:, [0, 1, 2, 9, WIDTH - 1]] = one["rows"]
        acts.append(rows)
    docs = documents(tokenizer, [one["text"] for one in corpus], acts)
    for doc, one in zip(docs, corpus, strict=True):
        doc.document += start
        doc.label, doc.split = one["label"], one["split"]
        doc.outlier = [one["outlier"][n % 6] and doc.acts[n, 0] == 0 for n in range(len(doc.kept))]
    return docs


@pytest.fixture
def place() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder)


def build(
    place: Path, docs: list[Doc], lm: "LanguageModel", part_documents: int = 3, **config: Any
) -> tuple[Workspace, duckdb.DuckDBPyConnection]:
    workspace = Workspace.open(place / "workspace")
    save_run(workspace, docs, lm.tokenizer_hash, part_documents=part_documents)
    save_sae(workspace, identity_sae(lm.tokenizer_hash))
    build_index(workspace, IndexConfig("sae", device="cpu", **config), lm=lm)
    return workspace, duckdb.connect(str(workspace.index_path("sae")), read_only=True)


def near(value: float | None) -> Any:
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.slow
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    corpus=corpora(), part_documents=st.sampled_from([1, 2, 4, 9]), batch=st.sampled_from([1, 2048])
)
@pytest.mark.usefixtures("arithmetic")
def test_every_figure_equals_a_recomputation(
    tiny_lm: "LanguageModel", corpus: list[dict[str, Any]], part_documents: int, batch: int
) -> None:
    docs = as_docs(corpus, tiny_lm.tokenizer)
    if not any(len(doc.kept) for doc in docs):
        return
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setitem(encode_pass._BATCH, "cpu", batch)
        patch.setitem(encode_pass._BATCH_CELLS, "cpu", 0)
        patch.setattr(encode_pass, "_LEAST_TOKENS", batch)  # with 1, parts are cut among threads
        _, index = build(Path(place), docs, tiny_lm, part_documents, **SMALL)
        check_all(index, docs, tiny_lm)
        index.close()


@pytest.mark.slow
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=st.lists(corpora(), min_size=2, max_size=3), part_documents=st.integers(1, 4))
def test_runs_that_are_added_one_by_one_equal_a_recomputation(
    tiny_lm: "LanguageModel", runs: list[list[dict[str, Any]]], part_documents: int
) -> None:
    docs: list[Doc] = []
    with TemporaryDirectory() as place:
        workspace = Workspace.open(Path(place) / "workspace")
        save_sae(workspace, identity_sae(tiny_lm.tokenizer_hash))
        for number, corpus in enumerate(runs):
            some = as_docs(corpus, tiny_lm.tokenizer, len(docs))
            if not any(len(doc.kept) for doc in some):
                continue
            name = f"run{number}"
            save_run(workspace, some, tiny_lm.tokenizer_hash, name, part_documents)
            config = IndexConfig("sae", name, append=bool(docs), device="cpu", **SMALL)
            build_index(workspace, config, lm=tiny_lm)
            docs += some
        if not docs:
            return
        index = duckdb.connect(str(workspace.index_path("sae")), read_only=True)
        check_all(index, docs, tiny_lm)
        index.close()


def check_all(index: duckdb.DuckDBPyConnection, docs: list[Doc], lm: "LanguageModel") -> None:
    """Of an index that was built with SMALL."""
    check_features(index, docs)
    check_top_examples(index, docs, 3, 4)
    check_bands(index, docs, 2)
    check_labels(index, docs)
    check_relations(index, docs, 3)
    check_documents(index, docs, lm.tokenizer)


def check_features(index: duckdb.DuckDBPyConnection, docs: list[Doc]) -> None:
    meta = dict(index.execute("SELECT key, value FROM meta").fetchall())
    edges = json.loads(meta["histogram_edges"])
    assert int(meta["n_tokens"]) == reference.n_tokens(docs)
    assert int(meta["n_outliers"]) == sum(sum(doc.outlier) for doc in docs)
    rows = index.execute(
        "SELECT feature, fires, density, max_act, mean_act, std_act, histogram FROM features"
    ).fetchall()
    assert [row[0] for row in rows] == list(range(WIDTH))
    for feature, fires, density, max_act, mean_act, std_act, histogram in rows:
        expected = reference.facts(docs, feature)
        assert (fires, max_act) == (expected.fires, expected.max_act)
        assert density == near(expected.density)
        assert mean_act == near(expected.mean_act)
        assert std_act == near(expected.std_act)
        assert histogram == reference.histogram(docs, feature, edges)


def check_top_examples(
    index: duckdb.DuckDBPyConnection, docs: list[Doc], count: int, reach: int
) -> None:
    by_number = {doc.document: doc for doc in docs}
    for feature in range(WIDTH):
        rows = index.execute(
            "SELECT rank, activation, document, position, window_start, acts FROM examples "
            "WHERE feature = ? AND band = 0",
            [feature],
        ).fetchall()
        assert [row[0] for row in rows] == list(range(len(rows)))
        assert [row[1:4] for row in rows] == reference.top_examples(docs, feature, count)
        for _, _, document, position, start, acts in rows:
            assert (start, acts) == reference.window(by_number[document], feature, position, reach)


def check_bands(index: duckdb.DuckDBPyConnection, docs: list[Doc], count: int) -> None:
    """Bands cut each feature's activations at quantiles; equal activations share a band."""
    for feature in range(WIDTH):
        values = sorted(value for value, _, _ in reference.firings(docs, feature))
        known = {(d, p): value for value, d, p in reference.firings(docs, feature)}
        edges = [values[len(values) * step // 4] for step in (1, 2, 3)] if values else []
        band_of = {key: 4 - sum(value >= e for e in edges) for key, value in known.items()}
        for band in range(1, 5):
            rows = index.execute(
                "SELECT document, position, activation FROM examples "
                "WHERE feature = ? AND band = ?",
                [feature, band],
            ).fetchall()
            inside = {document for (document, _), b in band_of.items() if b == band}
            assert len(rows) == min(count, len(inside))
            assert len({document for document, _, _ in rows}) == len(rows)
            for document, position, activation in rows:
                assert known[document, position] == activation
                assert band_of[document, position] == band


def check_labels(index: duckdb.DuckDBPyConnection, docs: list[Doc]) -> None:
    labels = sorted({doc.label for doc in docs if doc.label is not None})
    counts = [(label, sum(doc.label == label for doc in docs)) for label in labels]
    assert index.execute("SELECT * FROM labels").fetchall() == counts
    rows = index.execute(
        "SELECT feature, label, auroc, auroc_heldout, mean_act, lift FROM feature_labels"
    ).fetchall()
    assert [row[:2] for row in rows] == [(f, label) for f in range(WIDTH) for label in labels]
    best: dict[int, float] = {}
    for feature, label, auroc, heldout, mean_act, lift in rows:
        expected = reference.auroc(docs, feature, label, "train")
        assert auroc == near(expected)
        assert heldout == near(reference.auroc(docs, feature, label, "heldout"))
        mean, expected_lift = reference.label_mean_and_lift(docs, feature, label)
        assert mean_act == near(mean)
        assert lift == near(expected_lift)
        if expected is not None:
            best[feature] = max(best.get(feature, 0.0), expected)
    for feature, fires, label, auroc in index.execute(
        "SELECT feature, fires, top_label, top_auroc FROM features"
    ).fetchall():
        assert auroc == (near(best.get(feature)) if fires else None)
        assert (label is None) == (auroc is None)


def check_relations(index: duckdb.DuckDBPyConnection, docs: list[Doc], count: int) -> None:
    for feature in range(WIDTH):
        rows = index.execute(
            "SELECT other, count, jaccard FROM coactivations WHERE feature = ? ORDER BY rank",
            [feature],
        ).fetchall()
        expected = reference.coactivations(docs, feature, count)
        assert [row[:2] for row in rows] == [row[:2] for row in expected]
        assert [row[2] for row in rows] == pytest.approx([row[2] for row in expected])


def check_documents(index: duckdb.DuckDBPyConnection, docs: list[Doc], tokenizer: Any) -> None:
    rows = index.execute("SELECT * FROM documents").fetchall()
    assert [row[:5] for row in rows] == [
        (doc.document, doc.text, doc.label, doc.split, doc.token_ids) for doc in docs
    ]
    for row, doc in zip(rows, docs, strict=True):
        assert len(row[5]) == len(doc.token_ids)
        assert row[5][0] == "<s>"
        assert "".join(row[5][1:]) == doc.text
        found = index.execute(
            "SELECT feature, max_act, fires FROM document_features WHERE document = ?",
            [doc.document],
        ).fetchall()
        assert found == reference.document_features(doc, 32)


def test_the_order_of_the_rows_is_that_of_the_features(
    place: Path, tiny_lm: "LanguageModel"
) -> None:
    docs = random_docs(tiny_lm, 30)
    _, index = build(place, docs, tiny_lm, 7)
    for table in (
        "features",
        "examples",
        "feature_labels",
        "logits",
        "neighbours",
        "coactivations",
    ):
        features = [row[0] for row in index.execute(f"SELECT feature FROM {table}").fetchall()]
        assert features == sorted(features)
        assert len(set(features)) >= WIDTH - 1
    for table in ("documents", "document_features"):
        numbers = [row[0] for row in index.execute(f"SELECT document FROM {table}").fetchall()]
        assert numbers == sorted(numbers)


def random_docs(lm: "LanguageModel", count: int, seed: int = 0) -> list[Doc]:
    """Documents with activations in which one feature, number 5, never fires."""
    rng = np.random.default_rng(seed)
    texts = [f"{rng.choice(TEXTS)} {n}" for n in range(count)]
    acts = []
    for _ in texts:
        rows = rng.exponential(size=(8, WIDTH)).astype(np.float32)
        rows[rng.random(rows.shape) < 0.8] = 0
        rows[:, 5] = 0
        acts.append(rows)
    docs = documents(lm.tokenizer, texts, acts)
    for doc in docs:
        doc.label = str(rng.choice(["sea", "land"]))
        doc.split = "heldout" if rng.random() < 0.2 else "train"
    return docs


def test_what_is_built_can_be_asked(place: Path, tiny_lm: "LanguageModel") -> None:
    docs = random_docs(tiny_lm, 20)
    workspace, _ = build(place, docs, tiny_lm)
    store = FeatureStore.open(workspace, "sae")
    assert store.meta().n_tokens == reference.n_tokens(docs)
    assert store.meta().sources[0]["run_id"] == "run"
    detail = store.detail(3)
    assert len(detail.promoted) == len(detail.suppressed) == 20
    assert detail.decoder_norm == pytest.approx(1.0)
    assert detail.encoder_decoder_cosine == pytest.approx(1.0)
    example = store.examples(3)[0]
    assert "".join(example.tokens[1:]) in example.text
    assert store.rows([5])[0].fires == 0
    assert store.examples(5) == []
    assert store.search("harbour")


def test_activations_that_are_not_finite_end_the_job_and_leave_no_index(
    tiny_lm: "LanguageModel", place: Path
) -> None:
    acts = np.ones((6, WIDTH), dtype=np.float32)
    spoilt = acts.copy()
    spoilt[2, 1] = np.inf
    docs = documents(tiny_lm.tokenizer, ["The ferry left the harbour."] * 2, [acts, spoilt])
    workspace = Workspace.open(place / "workspace")
    save_run(workspace, docs, tiny_lm.tokenizer_hash)
    sae = identity_sae(tiny_lm.tokenizer_hash)
    sae.metadata = replace(sae.metadata, outlier_norm=None)  # with one they would be left out
    save_sae(workspace, sae)
    with pytest.raises(CorruptDataError, match="not finite"):
        build_index(workspace, IndexConfig("sae", device="cpu", **SMALL), lm=tiny_lm)
    assert not workspace.index_path("sae").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part_documents", "least", "wanted"), [(1000, 4, 4), (6, 4, 8), (1, 4, 12), (6, 1000, 2)]
)
def test_parts_are_cut_so_that_all_threads_work_to_the_end(
    tiny_lm: "LanguageModel",
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    part_documents: int,
    least: int,
    wanted: int,
) -> None:
    """Each of four threads could have an equal piece of every part, unless that is too little or
    one document; with fewer threads the pieces are the same."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(encode_pass, "_LEAST_TOKENS", least)
    cut: list[int] = []
    make_chunk = encode_pass.make_chunk

    def counting(tokens: CodedTokens, *rest: int) -> Chunk:
        cut.append(len(tokens.document))
        return make_chunk(tokens, *rest)

    monkeypatch.setattr(encode_pass, "make_chunk", counting)
    acts = np.ones((6, WIDTH), dtype=np.float32)
    docs = documents(
        tiny_lm.tokenizer, ["The ferry left the harbour before dawn."] * 12, [acts] * 12
    )
    _, index = build(place, docs, tiny_lm, part_documents, **SMALL)
    index.close()
    assert sum(cut) == sum(len(doc.kept) for doc in docs)
    assert len(cut) == wanted
