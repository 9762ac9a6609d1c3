"""The questions about an index: table, filters, search, one feature, concepts, errors."""

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.queries import SORTS, FeatureFilter, FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import EDGES, TOPICS, make_index
from tests.helpers.index_reference import Doc, facts, histogram, top_examples, window

SAE = "fixture-sae"
WORDS = [word for words in TOPICS.values() for word in words]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Doc]]:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    return workspace, make_index(workspace, SAE)


@pytest.fixture
def copied(indexed: tuple[Workspace, list[Doc]], tmp_path: Path) -> Workspace:
    """A copy of the indexed workspace that a test may spoil."""
    return Workspace.open(shutil.copytree(indexed[0].root, tmp_path / 'it\'s; "w"'))


@pytest.fixture
def docs(indexed: tuple[Workspace, list[Doc]]) -> list[Doc]:
    return indexed[1]


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return Annotations(tmp_path / "annotations.sqlite")


@pytest.fixture
def store(indexed: tuple[Workspace, list[Doc]], annotations: Annotations) -> FeatureStore:
    return FeatureStore.open(indexed[0], SAE, annotations)


def test_meta_tells_what_was_indexed(store: FeatureStore, docs: list[Doc]) -> None:
    meta = store.meta()
    assert (meta.sae_id, meta.n_features, meta.n_documents) == (SAE, 64, len(docs))
    assert meta.labels == tuple(TOPICS)
    assert meta.edges == tuple(EDGES)
    assert meta.sources[0]["run_id"] == "fixture"


def test_rows_are_what_the_documents_say(store: FeatureStore, docs: list[Doc]) -> None:
    for row in store.rows([3, 0, 33]):
        expected = facts(docs, row.feature)
        assert (row.fires, row.density) == (expected.fires, expected.density)
        assert row.max_act == pytest.approx(expected.max_act)
        assert row.mean_act == pytest.approx(expected.mean_act)
    assert [row.feature for row in store.rows([3, 0, 33])] == [3, 0, 33]
    assert store.rows([]) == []


def test_a_feature_that_never_fires_is_a_row_like_any_other(store: FeatureStore) -> None:
    [row] = store.rows([33])
    assert (row.fires, row.density, row.max_act, row.top_label) == (0, 0.0, 0.0, None)
    detail = store.detail(33)
    assert sum(detail.histogram) == 0
    assert detail.coactivations == ()
    assert store.examples(33) == []


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("descending", [True, False])
def test_every_order_sorts_all_features(
    store: FeatureStore, annotations: Annotations, sort: str, descending: bool
) -> None:
    for feature, name in ((5, "beta"), (9, "Alpha"), (2, "gamma")):
        annotations.set_concept(SAE, feature, name)
    store.refresh_concepts()
    rows = store.rows(store.ids(sort, descending))
    assert sorted(row.feature for row in rows) == list(range(64))
    values = [getattr(row, sort) for row in rows]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known, "those without a value come last"
    if sort == "concept":
        known = [value.lower() for value in known]
    assert known == sorted(known, reverse=descending)


def test_equal_features_stand_in_order_of_their_number(store: FeatureStore) -> None:
    for descending in (True, False):
        dead = [i for i in store.ids("fires", descending) if store.rows([i])[0].fires == 0]
        assert dead == sorted(dead)
        assert len(dead) > 1


def test_an_unknown_order_is_a_user_error(store: FeatureStore) -> None:
    with pytest.raises(UserError, match="'size'"):
        store.ids("size")


def test_pages_cover_the_order(store: FeatureStore) -> None:
    ids = store.ids("max_act").tolist()
    pages = [
        row.feature for at in range(0, 64, 10) for row in store.page("max_act", offset=at, limit=10)
    ]
    assert pages == ids
    assert store.page(offset=1000) == []


def test_filters_hold_together(store: FeatureStore, annotations: Annotations) -> None:
    annotations.set_concept(SAE, 5, "beta", note="why", tags=["sea"])
    annotations.set_concept(SAE, 9, "alpha")
    store.refresh_concepts()

    def found(**wanted: object) -> set[int]:
        return set(store.ids(flt=FeatureFilter(**wanted)).tolist())  # type: ignore[arg-type]

    rows = store.rows(range(64))
    assert found(alive=True) == {row.feature for row in rows if row.fires}
    assert found(alive=False) == {row.feature for row in rows if not row.fires}
    assert found(named=True) == {5, 9}
    assert found(named=False) == set(range(64)) - {5, 9}
    assert found(has_note=True) == {5}
    assert found(tag="sea") == {5}
    assert found(tag="land") == set()
    assert found(label="sailing") == {r.feature for r in rows if r.top_label == "sailing"}
    assert found(min_auroc=0.9) == {r.feature for r in rows if (r.top_auroc or 0) >= 0.9}
    dense = found(min_density=0.005, max_density=0.02, min_max_act=5.0)
    assert dense == {r.feature for r in rows if 0.005 <= r.density <= 0.02 and r.max_act >= 5.0}
    assert found(named=True, tag="sea", alive=True) == {5}
    with pytest.raises(UserError, match="sailin"):
        found(label="sailin")


def test_detail_holds_everything(store: FeatureStore, docs: list[Doc]) -> None:
    detail = store.detail(12)  # fires on "harbour"
    assert detail.row == store.rows([12])[0]
    assert list(detail.histogram) == histogram(docs, 12, EDGES)
    assert sum(detail.histogram) == detail.row.fires
    assert len(detail.edges) == len(detail.histogram) + 1
    assert detail.labels[0].label == detail.row.top_label == "sailing"
    assert detail.labels[0].auroc == detail.row.top_auroc
    others = [score.auroc or 0 for score in detail.labels[1:]]
    assert others == sorted(others, reverse=True)
    assert len(detail.promoted) == len(detail.suppressed) == 10
    assert detail.promoted[0][1] > detail.promoted[-1][1] > 0 > detail.suppressed[0][1]
    assert len(detail.neighbours) == 10
    assert 12 not in [other.feature for other in detail.neighbours]
    assert all(0 < other.jaccard <= 1 and other.count > 0 for other in detail.coactivations)
    assert detail.std_act > 0


def test_the_best_labels_of_many_are_those_of_each(store: FeatureStore) -> None:
    features = [12, 3, 33, 40]  # 33 never fires
    found = store.best_labels(features)
    assert found == {f: store.detail(f).labels[0] for f in (12, 3, 40)}
    assert store.best_labels([]) == {}
    with pytest.raises(NotFoundError, match="feature 64"):
        store.best_labels([3, 64])


def test_examples_come_strongest_first_with_their_window(
    store: FeatureStore, docs: list[Doc]
) -> None:
    feature = WORDS.index("harbour")
    examples = store.examples(feature)
    expected = top_examples(docs, feature, 20)
    found = [(one.activation, one.document, one.position) for one in examples]
    assert found == expected
    for one in examples:
        doc = docs[one.document]
        start, acts = window(doc, feature, one.position, 32)
        assert (one.window_start, one.acts) == (start, acts)
        assert one.tokens == doc.token_texts[start : start + len(acts)]
        assert one.text == doc.text
        assert one.label == doc.label
        assert one.acts[one.position - start] == one.activation
    assert store.examples(feature, limit=3) == examples[:3]


def test_bands_reach_down_the_range(store: FeatureStore) -> None:
    means = []
    for band in range(1, store.meta().bands + 1):
        some = store.examples(WORDS.index("mast"), band=band)
        assert 0 < len(some) <= 5
        means.append(sum(one.activation for one in some) / len(some))
    assert means == sorted(means, reverse=True)
    assert store.examples(0, band=17) == []


def test_awkward_text_passes_unharmed(store: FeatureStore, docs: list[Doc]) -> None:
    texts = {one.text for f in range(64) for one in store.examples(f)}
    for number in (5, 11):
        assert docs[number].text in texts
        assert "".join(docs[number].token_texts) == docs[number].text


def test_search_finds_by_text_token_label_name_and_number(
    store: FeatureStore, annotations: Annotations, docs: list[Doc]
) -> None:
    annotations.set_concept(SAE, 40, "Tall ships", note="rigging", tags=["sea life"])
    store.refresh_concepts()
    assert store.search("tall ships")[0].feature == 40
    assert store.search("SEA ships")[0].feature == 40
    assert store.search("41")[0].feature == 41
    assert store.search("#7")[0].feature == 7
    labelled = store.search("sailing")
    assert labelled[0].top_label == "sailing"
    assert labelled[0].top_auroc == max(r.top_auroc or 0 for r in labelled)
    by_text = {row.feature for row in store.search("harbour", limit=64)}
    holding = {doc.document for doc in docs if "harbour" in doc.text}
    for feature in range(64):
        if any(one.document in holding for one in store.examples(feature)):
            assert feature in by_text
    assert store.search("zzzz") == []
    assert store.search("  ") == []
    assert store.search("harbour zzzz") == []


def test_a_promoted_token_is_found(store: FeatureStore) -> None:
    token = store.detail(20).promoted[0][0].strip()
    assert 20 in [row.feature for row in store.search(token, limit=64)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["'; DROP TABLE x; --", '"', "%", "_", "\\", "\x00", "\udcff", "🦜", "["]
)
def test_a_search_is_data_and_never_a_statement(store: FeatureStore, text: str) -> None:
    assert all(isinstance(row.feature, int) for row in store.search(text))


def test_search_and_filter_hold_together(store: FeatureStore) -> None:
    everything = store.ids(search="the")
    alive = store.ids(search="the", flt=FeatureFilter(label="weather"))
    rows = store.rows(alive)
    assert {row.top_label for row in rows} == {"weather"}
    assert set(alive.tolist()) < set(everything.tolist())


def test_concepts_appear_when_they_are_read_again(
    store: FeatureStore, annotations: Annotations
) -> None:
    assert store.refresh_concepts() is False
    other = Annotations(annotations.path)
    other.set_concept(SAE, 4, "sure", confidence=0.9)
    other.set_concept(SAE, 4, "unsure", confidence=0.4)
    other.set_concept("another-sae", 5, "elsewhere")
    other.set_concept(SAE, 4000, "out of range")
    assert store.rows([4])[0].concept is None
    assert store.refresh_concepts() is True
    assert store.rows([4, 5]) == [store.detail(4).row, store.detail(5).row]
    assert store.rows([4])[0].concept == "sure"
    assert [one.name for one in store.detail(4).concepts] == ["sure", "unsure"]
    assert store.rows([5])[0].concept is None


@pytest.mark.parametrize("feature", [-1, 64, 10**9])
def test_a_feature_out_of_range_is_not_found(store: FeatureStore, feature: int) -> None:
    for ask in (store.detail, store.examples, lambda f: store.rows([f])):
        with pytest.raises(NotFoundError, match=f"feature {feature}") as caught:
            ask(feature)
        assert "0 to 63" in caught.value.hint


@pytest.mark.slow
def test_threads_may_ask_at_the_same_time(store: FeatureStore) -> None:
    problems: list[BaseException] = []

    def ask(thread: int) -> None:
        try:
            for n in range(15):
                feature = (thread * 15 + n) % 64
                assert store.detail(feature).row.feature == feature
                store.examples(feature)
                store.search("mast")
                store.refresh_concepts()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.slow
def test_a_search_while_names_come_and_go_finds_what_stays(
    store: FeatureStore, annotations: Annotations
) -> None:
    annotations.set_concept(SAE, 63, "evergreen oak")
    store.refresh_concepts()
    done = threading.Event()

    def searches() -> list[list[int]]:
        answers = []
        while not done.is_set():
            answers.append([row.feature for row in store.search("evergreen", limit=1)])
        return answers

    writer = Annotations(annotations.path)
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(searches)
        try:
            for _ in range(10):
                for change in (writer.set_concept, writer.remove_concept):
                    with writer.one_change():
                        for feature in range(20):
                            change(SAE, feature, "passing")
                    store.refresh_concepts()
        finally:
            done.set()
    assert answers.result()
    assert all(answer == [63] for answer in answers.result())


@pytest.mark.slow
def test_a_rebuilt_index_is_noticed_and_opened(tmp_path: Path, annotations: Annotations) -> None:
    workspace = Workspace.open(tmp_path / "w")
    make_index(workspace, SAE)
    annotations.set_concept(SAE, 3, "kept")
    store = FeatureStore.open(workspace, SAE, annotations)
    assert not store.changed_on_disk()
    make_index(workspace, SAE, n_features=80, seed=1)
    assert store.changed_on_disk()
    assert store.meta().n_features == 64
    store.reopen()
    assert not store.changed_on_disk()
    assert store.meta().n_features == 80
    assert store.rows([3])[0].concept == "kept"
    assert store.search("kept")[0].feature == 3
    assert store.detail(79).row.feature == 79


@pytest.mark.slow
@pytest.mark.parametrize("fewer", [True, False])
def test_a_rebuilt_index_of_another_size_has_the_concepts_of_its_features(
    indexed: tuple[Workspace, list[Doc]], tmp_path: Path, annotations: Annotations, fewer: bool
) -> None:
    large = Workspace.open(tmp_path / "large")
    make_index(large, SAE, n_features=72, n_documents=8)
    before, after = (large, indexed[0]) if fewer else (indexed[0], large)
    workspace = Workspace.open(shutil.copytree(before.root, tmp_path / "w"))
    annotations.set_concept(SAE, 3, "low")
    annotations.set_concept(SAE, 70, "high")
    store = FeatureStore.open(workspace, SAE, annotations)
    path = workspace.index_path(SAE)
    path.unlink()
    shutil.copy(after.index_path(SAE), path)
    store.reopen()
    named = [3] if fewer else [70, 3]
    assert store.ids("concept", descending=False)[: len(named)].tolist() == named
    assert store.ids("feature", flt=FeatureFilter(named=True)).tolist() == sorted(named)[::-1]
    assert [row.feature for row in store.search("high")] == named[:-1]


def test_without_an_index_the_hint_says_how_to_build_it(copied: Workspace) -> None:
    (copied.saes_dir / SAE / "features.duckdb").unlink()
    with pytest.raises(NotFoundError) as caught:
        FeatureStore.open(copied, SAE)
    assert "mi-crow index --sae fixture-sae" in caught.value.sentence
    with pytest.raises(NotFoundError, match="SAE 'none'"):
        FeatureStore.open(copied, "none")


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000], ids=["empty", "foreign"])
def test_a_damaged_index_is_told(copied: Workspace, content: bytes) -> None:
    path = copied.saes_dir / SAE / "features.duckdb"
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(CorruptDataError) as caught:
        FeatureStore.open(copied, SAE)
    assert "mi-crow index --sae fixture-sae" in caught.value.sentence
    assert path.read_bytes() == content


def test_a_cut_index_is_told(copied: Workspace) -> None:
    path = copied.saes_dir / SAE / "features.duckdb"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: len(whole) // 3])

    def read_all() -> None:
        store = FeatureStore.open(copied, SAE)
        for feature in range(64):
            store.detail(feature)
            store.examples(feature)

    with pytest.raises(CorruptDataError):
        read_all()


@pytest.mark.parametrize(("version", "says"), [("0", "older"), ("99", "newer"), ("x", "older")])
def test_an_index_of_another_schema_is_told(copied: Workspace, version: str, says: str) -> None:
    import duckdb

    with duckdb.connect(str(copied.saes_dir / SAE / "features.duckdb")) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [version])
    with pytest.raises(UserError, match=says):
        FeatureStore.open(copied, SAE)


def test_no_query_reaches_another_file(store: FeatureStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    with pytest.raises(UserError, match="beyond the index"):
        store._held[0].connection.rows("SELECT * FROM read_text(?)", [str(secret)])


def test_quotes_in_the_path_are_harmless(copied: Workspace) -> None:
    assert "'" in str(copied.root)
    assert '"' in str(copied.root)
    assert FeatureStore.open(copied, SAE).meta().n_features == 64


def test_reading_costs_no_torch(indexed: tuple[Workspace, list[Doc]]) -> None:
    code = (
        "import sys\n"
        "from mi_crow.mechanistic.features.queries import FeatureStore\n"
        "from mi_crow.mechanistic.concepts.annotations import Annotations\n"
        "from mi_crow.store.workspace import Workspace\n"
        "assert 'duckdb' not in sys.modules\n"
        "w = Workspace.open(sys.argv[1])\n"
        "store = FeatureStore.open(w, sys.argv[2], Annotations(w.annotations_path))\n"
        "store.page(); store.detail(1); store.examples(1); store.ids(search='the harbour')\n"
        "heavy = {'torch', 'transformers', 'datasets', 'polars', 'numpy.ma'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    arguments = [sys.executable, "-c", code, str(indexed[0].root), SAE]
    assert subprocess.run(arguments, check=False).returncode == 0
