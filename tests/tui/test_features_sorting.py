"""The order and the filter of the feature table."""

from tui.screens.features.query import RELEVANCE, SHOWN, TableQuery

SORTS = ("feature", "density", "max_act", "concept")


def test_sorting_goes_through_every_column_and_round():
    query = TableQuery()
    seen = []
    for _ in SORTS:
        seen.append(query.sort)
        query = query.next_sort(SORTS)
    assert sorted(seen) == sorted(SORTS)
    assert query.sort == TableQuery().sort


def test_numbers_sort_from_the_greatest_and_ids_from_the_least():
    query = TableQuery(sort=SORTS[-1])
    while query.sort != "feature":
        query = query.next_sort(SORTS)
    assert not query.descending
    assert query.next_sort(SORTS).descending


def test_the_filter_goes_through_all_choices_and_keeps_the_search():
    query = TableQuery(search="sail")
    seen = set()
    for _ in SHOWN:
        seen.add(query.show)
        query = query.next_show()
    assert seen == set(SHOWN)
    assert query == TableQuery(search="sail")


def test_a_search_puts_the_best_matches_first_and_gives_the_order_back():
    query = TableQuery(sort="max_act", descending=False)
    found = query.searching("sa").searching("sail")
    assert (found.sort, found.descending, found.title) == (RELEVANCE, True, "relevance")
    back = found.searching("")
    assert (back.sort, back.descending) == ("max_act", False)
    assert found.next_sort(SORTS).sort == SORTS[0]
    chosen = found.next_sort(SORTS).searching("")
    assert chosen.sort == SORTS[0]
