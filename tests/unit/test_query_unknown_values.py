"""Queries that find nothing say why; words that look like operators are refused."""

import pytest

from mi_crow.mechanistic.features.meaning.unknown_values import (
    unknown_value,
    why_none,
    why_unordered,
)
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import QueryError, parse_query
from mi_crow.mechanistic.features.records import Concept
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index

CONCEPTS = [Concept("s", 3, "high tide", 1.0, "", ("weather", "sea"), "user", 0.0, 0.0)]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("tag:weathr", "no tag “weathr”: there is weather"),
        ("concept:tied", "no concept with “tied”: there is high tide"),
        ("source:auto", "no source with “auto”: there is user"),
        ("tag:Weather concept:tide source:us", ""),
        ("-tag:nothing density<1%", ""),
    ],
)
def test_a_value_that_nothing_has_is_told_with_what_there_is(query: str, says: str) -> None:
    assert unknown_value(parse_query(query), CONCEPTS).startswith(says)
    assert bool(unknown_value(parse_query(query), CONCEPTS)) == bool(says)


def test_without_any_tags_none_is_named() -> None:
    assert unknown_value(parse_query("tag:x"), []) == "no tag “x”: there is none yet"


@pytest.mark.parametrize("word", ["OR", "AND", "NOT", "-OR"])
def test_operators_of_other_languages_are_refused_at_their_place(word: str) -> None:
    with pytest.raises(QueryError, match="is not an operator here") as error:
        parse_query(f"rain {word} hail")
    assert (error.value.start, error.value.end) == (5, 5 + len(word))


def test_such_a_word_in_quotes_or_small_letters_is_searched_for() -> None:
    assert parse_query('"OR" or').search == "OR or"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    workspace = Workspace.open(tmp_path_factory.mktemp("none") / "workspace")
    make_index(workspace, "s")
    return FeatureStore.open(workspace, "s")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("rain output>1", "no feature has a value of output: mi-crow steer scores measures it"),
        ("detection>.5", "no feature has a value of detection: mi-crow explain --explainer"),
        ("relative_norm<1", "no feature has a value of relative_norm: only crosscoders of two"),
        ("feature:64-70,99", "the features are 0 to 63"),
        ("tag:x output>1", "no tag “x”"),
        ("feature:3,99 max=1e9", ""),
        ("max=1e9 -output>1", ""),
        ("rain max>2.5M", "no feature has max>2500000: the greatest is "),
        ("fires>=2k density<1e-9", "no feature has fires>=2000: the greatest is "),
        ("norm<=1e-12 max>0", "no feature has norm<=1e-12: the least is "),
        ("-max>=-1", ""),
    ],
)
def test_a_figure_that_no_feature_has_is_told(store: FeatureStore, query: str, says: str) -> None:
    assert not len(store.find(parse_query(query)))
    found = why_none(store, parse_query(query))
    assert found.startswith(says)
    assert bool(found) == bool(says)


@pytest.mark.parametrize(
    ("sort", "says"),
    [
        ("output", "no feature has a value of output: mi-crow steer scores measures it"),
        ("detection", "no feature has a value of detection: mi-crow explain --explainer"),
        ("max", ""),
        ("max_act", ""),
        ("feature", ""),
        (None, ""),
    ],
)
def test_an_order_by_what_no_feature_has_is_told(
    store: FeatureStore, sort: str | None, says: str
) -> None:
    found = why_unordered(store, sort)
    assert found.startswith(says)
    assert bool(found) == bool(says)


def test_the_bound_of_a_figure_is_the_one_that_can_be_reached(store: FeatureStore) -> None:
    told = why_none(store, parse_query("density>1"))
    greatest = told.rpartition(" ")[2]
    assert len(store.find(parse_query(f"density>={float(greatest) * 0.999}"))) >= 1
    assert why_none(store, parse_query(f"density>{float(greatest) * 0.9}")) == ""


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("!label:weather", "a leading - does: -label:weather"),
        ("!rain", "a leading - does: -rain"),
        ("density:<1%", "write density<1%"),
        ("density=<1%", "write density<=1%"),
        ("density==0.5", "write density=0.5"),
        ("density=<=0.5", "write density<=0.5"),
        ("layer=>3", "write layer>=3"),
        ("label==weather", "write label:weather"),
        ("label=<weather", "write label:weather"),
        ("fires:0", "compare it: fires>0, fires<0 or fires=0"),
        ("rain | hail", 'all conditions must hold, a leading - excludes; write "|" for the word'),
    ],
)
def test_signs_of_other_languages_are_told_as_they_are_written_here(text: str, hint: str) -> None:
    with pytest.raises(QueryError) as error:
        parse_query(text)
    assert error.value.hint == hint


def test_marks_are_searched_for_alone() -> None:
    assert parse_query('! !! "!rain"').search == "! !! !rain"
