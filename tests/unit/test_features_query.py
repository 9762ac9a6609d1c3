"""The query language: what a line of text asks of the features, and which of them it finds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.connection import connect
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import (
    REFERENCE,
    Condition,
    QueryError,
    completions,
    parse_query,
)
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import TOPICS, make_index

SAE = "fixture-sae"
WORDS = [word for words in TOPICS.values() for word in words]  # feature n fires on the n-th

Find = Callable[[str], list[int]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    workspace = Workspace.open(tmp_path_factory.mktemp("query") / "workspace")
    make_index(workspace, SAE)
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept(SAE, 3, "Oven heat", note="warm", tags=["to check"])
    annotations.set_concept(SAE, 5, "spice", tags=["sure"], source="auto:label")
    annotations.set_concept(SAE, 20, "oven: a guess", confidence=0.4)
    return FeatureStore.open(workspace, SAE, annotations)


@pytest.fixture(scope="module")
def find(store: FeatureStore) -> Find:
    return lambda text: store.find(parse_query(text)).tolist()


def test_an_sae_that_is_gone_is_not_one_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="SAE 'old' is gone"):
        connect(tmp_path / "old" / "features.duckdb", "old")
    (tmp_path / "old").mkdir()
    with pytest.raises(NotFoundError, match="SAE 'old' has no feature index"):
        connect(tmp_path / "old" / "features.duckdb", "old")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("rain label!=weather", "-label:weather"),
        ("rain label:!weather", "-label:weather"),
        ("rain fires<>0", "-fires=0"),
        ("rain named!=", "-named:.."),
    ],
)
def test_unequal_is_told_as_an_exclusion(text: str, meant: str) -> None:
    with pytest.raises(QueryError, match="no sign means 'not equal'") as caught:
        parse_query(text)
    assert caught.value.hint.endswith(f": {meant}")
    assert text[caught.value.start : caught.value.end] == text.removeprefix("rain ")


def test_the_reference_begins_with_what_a_narrow_line_has_room_for() -> None:
    assert REFERENCE[:50].startswith("words -not density< label: tag: on: like: sort: ")
    assert {*REFERENCE.split()} >= {"fires>", "token:", "named:", "source:"}


def test_a_line_is_words_conditions_and_an_order() -> None:
    query = parse_query('rain density<1% -tag:"to check" like:#42 "a:b" max>=5 sort:auroc:weather')
    assert query.search == "rain a:b"
    assert query.conditions == (
        Condition("density", "<", 0.01),
        Condition("tag", ":", "to check", negated=True),
        Condition("like", ":", 42),
        Condition("max", ">=", 5.0),
    )
    assert (query.sort, query.descending) == ("auroc:weather", True)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("rain densty<3", (5, 13), "'densty' is not a condition (character 6); there is density"),
        ("density:3", (0, 9), "'density' is a number (character 1); compare it: density>3"),
        ("max>x", (0, 5), "'x' is not a number"),
        ("max>0,5", (0, 7), "'0,5' is not a number"),
        ("fires<1,00", (0, 10), "'1,00' is not a number"),
        ("max>nan", (0, 7), "'nan' is not a number"),
        ('a "b', (2, 4), "a quote is not closed (character 3)"),
        ("sort:foo", (0, 8), "'foo' is not an order"),
        ("like:?!", (0, 7), 'write like:42 or like:"texts about the sea"'),
        ("named:maybe", (0, 11), "write named:yes"),
        ("label:", (0, 6), "label: needs a value"),
        ("tag>3", (0, 5), "'tag' cannot be compared (character 1); write tag:3"),
        ("feature:x", (0, 9), "'x' are no features (character 1); write feature:7,400-405"),
        ("feature:9-7", (0, 11), "'9-7' are no features"),
        ("rain max > 5", (9, 10), "no spaces (character 10); write it in one piece: max>0.5"),
        ("max >5k", (4, 7), "one piece: max>5k"),
        ("max>5kk", (0, 7), "'5kk' is not a number"),
        ("auroc:weather>0.9", (0, 17), "write label:weather auroc>0.9, or sort:auroc:weather"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, place: tuple[int, int], says: str) -> None:
    with pytest.raises(QueryError) as error:
        parse_query(text)
    assert (error.value.start, error.value.end) == place
    assert says in error.value.sentence


def test_numbers_are_compared(store: FeatureStore, find: Find) -> None:
    rows = store.rows(range(store.meta().n_features))
    assert set(find("fires>30")) == {row.feature for row in rows if row.fires > 30}
    assert set(find("-fires>30")) == {row.feature for row in rows if row.fires <= 30}
    both = {row.feature for row in rows if row.density <= 0.005 and row.max_act > 2}
    assert set(find("density<=0.5% max>2")) == both
    assert find("fires>0.03k") == find("fires>30")
    assert find("fires<0.001M -max<1%") == find("fires<1,000 max>=0.01")
    assert set(find("fires=0")) == {row.feature for row in rows if row.fires == 0}


def test_features_are_named_by_number(find: Find) -> None:
    assert set(find("feature:7,20-22")) == {7, 20, 21, 22}
    assert set(find("feature:60-999")) == {60, 61, 62, 63}
    assert find("feature:64") == []
    assert set(find("-feature:1-63")) == {0}


def test_what_only_the_weights_say_can_be_compared_and_sorted_by(
    store: FeatureStore, find: Find
) -> None:
    norms = [store.detail(n).decoder_norm for n in range(store.meta().n_features)]
    middle = float(np.median(norms))
    assert set(find(f"norm>{middle}")) == {n for n, norm in enumerate(norms) if norm > middle}
    assert find("sort:norm")[0] == int(np.argmax(norms))
    assert find("-sort:norm")[0] == int(np.argmin(norms))
    assert find("sort:-norm")[0] == int(np.argmin(norms))


def test_concepts_are_asked_for_by_name_tag_note_and_source(find: Find) -> None:
    assert set(find("named:yes")) == {3, 5, 20}
    assert set(find("named:yes -concept:OVEN")) == {5}
    assert set(find("concept:oven")) == {3, 20}
    assert set(find('tag:"to check"')) == {3}
    assert set(find("note:yes")) == {3}
    assert set(find("source:auto")) == {5}
    assert len(find("named:no")) == 61


def test_words_are_searched_for_and_excluded(store: FeatureStore, find: Find) -> None:
    harbour = WORDS.index("harbour")
    assert find("harbour") == store.ids(search="harbour").tolist()
    assert harbour in find("harbour")
    assert harbour not in find("harbour -harbour")
    assert set(find("oven named:yes")) >= {3, 20}
    assert set(find("-harbour")).isdisjoint(find("harbour"))


def test_texts_tokens_and_neighbours_are_asked_for(store: FeatureStore, find: Find) -> None:
    _, on_text = store.on_text("harbour", limit=1000)
    assert find('on:"harbour"') == [one.row.feature for one in on_text if one.row.feature >= 0]
    near = [other.feature for other in store.detail(7).neighbours]
    assert find("like:7") == near
    promoted = {n for n in range(64) if any("oven" in t for t, _ in store.detail(n).promoted[:10])}
    assert set(find("token:oven")) == promoted


def test_labels_are_the_best_ones(store: FeatureStore, find: Find) -> None:
    rows = store.rows(range(64))
    assert set(find("label:sailing")) == {r.feature for r in rows if r.top_label == "sailing"}
    assert find("sort:auroc:sailing") == store.ids("auroc:sailing").tolist()
    with pytest.raises(UserError, match="label 'sailin' is not in the index"):
        find("label:sailin")


def test_a_feature_that_is_not_there_is_told(find: Find) -> None:
    with pytest.raises(UserError, match="feature 64 is not in this SAE"):
        find("like:64")


def test_without_an_order_the_best_match_comes_first_and_else_the_densest(
    store: FeatureStore, find: Find
) -> None:
    assert find("fires>0") == [
        n for n in store.ids("density").tolist() if n in set(find("fires>0"))
    ]
    assert find("oven")[0] in {3, WORDS.index("oven"), 20}


@pytest.mark.parametrize(
    "label", ['a "quick" fox', 'quo"te', '"begins"', "plain", "two words", 'inch 5"', '""', '"']
)
@pytest.mark.parametrize("name", ["label", "tag", "concept"])
def test_what_completes_a_value_with_quotes_is_read_as_that_value(name: str, label: str) -> None:
    [text] = completions(f"rain {name}:", {name: [label]})
    [found] = parse_query(text).conditions
    assert (found.name, found.value) == (name, label)


def test_completion_knows_conditions_and_their_values() -> None:
    known = {"label": ("weather", "west wind"), "tag": ("to check",)}
    assert completions("rain lab", known) == ["rain label:"]
    assert completions("label:we", known) == ["label:weather", 'label:"west wind"']
    assert completions('-tag:"to', known) == ['-tag:"to check"']
    quotes = {"label": ('a "quick" fox',)}
    assert completions('label:"a ""qu', quotes) == ['label:"a ""quick"" fox"']
    assert completions("named:", known) == ["named:yes", "named:no"]
    assert completions("sort:auroc:w", known) == ["sort:auroc:weather", 'sort:"auroc:west wind"']
    assert completions("den", known) == ["density<"]
    assert completions("-Conc", known) == ["-concept:"]
    assert completions("rain ", known) == []
