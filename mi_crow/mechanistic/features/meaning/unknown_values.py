"""Why a query finds nothing: no feature has the tag, the name or the source. Torch-free."""

from collections.abc import Iterable

from mi_crow.errors import nearest
from mi_crow.mechanistic.features.query_language import FeatureQuery
from mi_crow.mechanistic.features.records import Concept
from mi_crow.visible import quoted


def unknown_value(query: FeatureQuery, concepts: Iterable[Concept]) -> str:
    """A sentence about the first such value, with the nearest ones that there are; else nothing."""
    known: dict[str, set[str]] = {"tag": set(), "concept": set(), "source": set()}
    for one in concepts:
        known["tag"].update(one.tags)
        known["concept"].add(one.name)
        known["source"].add(one.source)
    for condition in query.conditions:
        values = known.get(condition.name)
        if values is None or condition.negated:
            continue
        wanted = str(condition.value).casefold()
        words = {"tag": f"no tag {quoted(str(condition.value))}"}.get(
            condition.name, f"no {condition.name} with {quoted(str(condition.value))}"
        )
        if condition.name == "tag":
            there = any(value.casefold() == wanted for value in values)
        else:
            there = any(wanted in value.casefold() for value in values)
        if not there:
            return f"{words}: there is {nearest(wanted, sorted(values)) if values else 'none yet'}"
    return ""
