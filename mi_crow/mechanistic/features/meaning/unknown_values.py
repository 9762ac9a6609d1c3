"""Why a query finds nothing, or an order changes nothing: no feature has the tag, the name, the
figure, .. Torch-free."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mi_crow.errors import nearest
from mi_crow.mechanistic.features.catalogue import OF_TWO_MODELS
from mi_crow.mechanistic.features.query_language import NUMBERS, Condition, FeatureQuery, ranges_in
from mi_crow.mechanistic.features.records import Concept
from mi_crow.visible import quoted

if TYPE_CHECKING:
    import numpy as np

    from mi_crow.mechanistic.features.queries import FeatureStore

# Figures that an index may be without: what makes them.
_MADE_BY: Mapping[str, str] = {
    "output": "mi-crow steer scores measures it",
    "detection": "mi-crow explain --explainer measures it",
    "fuzzing": "mi-crow explain --explainer measures it",
    "score": "mi-crow explain proposes names and scores them",
    "value": "mi-crow explain proposes names and scores them",
    "auroc": "the texts have no labels",
    **dict.fromkeys(OF_TWO_MODELS, "only crosscoders of two models have it"),
}


def why_none(store: "FeatureStore", query: FeatureQuery) -> str:
    """Why no feature of an index matches, in a sentence; empty where there is nothing to tell."""
    named = (one for some in store.concepts().values() for one in some)
    return unknown_value(query, named) or _unknown_figure(store, query)


def why_unordered(store: "FeatureStore", sort: str | None) -> str:
    """Why an order leaves the features as they are, in a sentence: none has its figure. Empty where
    some do, and for orders by other than figures."""
    by = next((name for name, (key, _) in NUMBERS.items() if sort in (name, key)), None)
    return "" if by is None or len(_known(store, by)) else _none_has(by)


def _known(store: "FeatureStore", name: str) -> "np.ndarray":
    """The values of a figure that there are."""
    values = store.columns().numbers(NUMBERS[name][0], store.connection)
    return values[values == values]  # without NaN: NumPy is not imported for this


def _none_has(name: str) -> str:
    made_by = _MADE_BY.get(name, "this index was made without it")
    return f"no feature has a value of {name}: {made_by}"


def _unknown_figure(store: "FeatureStore", query: FeatureQuery) -> str:
    """A sentence about the first condition on a figure that no feature has, or on features that
    there are not; else nothing."""
    columns = store.columns()
    for one in query.conditions:
        if one.negated:
            continue
        if one.name in NUMBERS and not isinstance(one.value, str):
            known = _known(store, one.name)
            if not len(known):
                return _none_has(one.name)
            if beyond_all := _beyond_all(one, float(known.min()), float(known.max())):
                return beyond_all
        beyond = one.name == "feature" and (found.start for found in ranges_in(str(one.value)))
        if beyond and min(beyond) >= len(columns):
            return f"the features are 0 to {len(columns) - 1}"
    return ""


def _beyond_all(one: Condition, least: float, greatest: float) -> str:
    """A sentence about a bound that no value reaches; nothing about any other condition."""
    bound = float(one.value)
    above = (one.sign == ">" and greatest <= bound) or (one.sign == ">=" and greatest < bound)
    below = (one.sign == "<" and least >= bound) or (one.sign == "<=" and least > bound)
    if not above and not below:
        return ""
    there_is = f"the greatest is {_said(greatest)}" if above else f"the least is {_said(least)}"
    return f"no feature has {one.name}{one.sign}{bound:.10g}: {there_is}"


def _said(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


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
