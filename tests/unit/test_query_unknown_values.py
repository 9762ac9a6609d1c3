"""Queries that find nothing say why; words that look like operators are refused."""

import pytest

from mi_crow.mechanistic.features.meaning.unknown_values import unknown_value
from mi_crow.mechanistic.features.query_language import QueryError, parse_query
from mi_crow.mechanistic.features.records import Concept

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
