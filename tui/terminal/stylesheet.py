"""The rules that style the app: each source of them parsed once, looked up by what they name, and
applied where others than before hold.

Textual parses all of them again when a screen comes that has a file of its own, and when a mode is
entered for the first time: half of the time until a screen shows. It goes through all of them for
every widget that it styles, of which a screen has hundreds; and it styles every widget of a screen
once more when the screen is shown, when a class of it changes and when the size does.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import compress
from operator import is_
from pathlib import PurePath
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from textual.cache import LRUCache
from textual.css.match import _check_selectors
from textual.css.model import RuleSet, SelectorSet
from textual.css.stylesheet import Stylesheet
from textual.dom import DOMNode

_SOURCES = 1024  # more than there are classes of widgets
_PALETTES = 2  # a theme that is left and taken up again is not parsed again
_KINDS = 4096  # of widgets: each set of type, classes and id is one

Parsed = LRUCache[tuple, list[RuleSet]]


class KeptStylesheet(Stylesheet):
    """Keeps what it parsed for the present and the former colours."""

    _of_variables: ClassVar[LRUCache[frozenset[tuple[str, str]], Parsed]] = LRUCache(_PALETTES)

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._matching: LRUCache[frozenset[str], _Matching] = LRUCache(_KINDS)
        self._matched_rules: list[RuleSet] | None = None
        self._places: dict[RuleSet, int] = {}  # of each of these rules among them
        self._styled_by: WeakKeyDictionary[DOMNode, list[object]] = WeakKeyDictionary()
        self._components: dict[str, DOMNode] = {}
        self._take_parsed()

    def set_variables(self, variables: dict[str, str]) -> None:
        if variables != self._variables:
            self._parse_cache = LRUCache(1)  # what is cleared now
            super().set_variables(variables)
            self._take_parsed()

    def _take_parsed(self) -> None:
        colours = frozenset(self._variables.items())
        if colours not in self._of_variables:
            self._of_variables[colours] = LRUCache(_SOURCES)
        self._parse_cache = self._of_variables[colours]

    def reparse(self) -> None:
        self.parse()

    def apply(self, node: DOMNode, **settings: Any) -> None:
        if self.rules is not self._matched_rules:  # a parse makes another list of them
            self._matched_rules = self.rules
            self._places = {rule: place for place, rule in enumerate(self.rules)}
            self._matching.clear()
        matching = self._matching_of(node)
        if type(node) is DOMNode:  # a component, made anew with the widget that it is part of
            Stylesheet.apply(matching, node, **settings)
            return
        holding, before = self._holding(node, matching), self._styled_by.get(node, ())
        if len(holding) == len(before) and all(map(is_, holding, before)):
            node.notify_style_update()  # what is around it may be styled anew
        else:
            self._styled_by[node] = holding
            Stylesheet.apply(matching, node, **settings)

    def _matching_of(self, node: DOMNode) -> "_Matching":
        names = frozenset(node._selector_names)
        if names not in self._matching:
            self._matching[names] = _Matching(self, names, self._places)
        return self._matching[names]

    def _holding(self, node: DOMNode, matching: "_Matching") -> list[object]:
        """The rules and selectors that decide how a widget and its components look."""
        path = node.css_path_nodes
        holding = matching.holding(path)
        for name in node._get_component_classes():
            if name not in self._components:
                self._components[name] = DOMNode(classes=name)
            component = self._components[name]
            holding += self._matching_of(component).holding([*path, component])
        return holding

    def read_missing(self, paths: Sequence[PurePath]) -> None:
        """Reads the files that were not read yet."""
        missing = [path for path in paths if not self.has_source(os.path.abspath(path))]
        self.read_all(missing)
        if missing:
            self.parse()


class _Matching(Stylesheet):
    """The rules of a stylesheet that end in one of these names; what is inside of a widget is
    styled by all of them."""

    def __init__(
        self, whole: Stylesheet, names: frozenset[str], places: dict[RuleSet, int]
    ) -> None:
        super().__init__()
        self.apply = whole.apply
        named = whole.rules_map
        self._rules_map = {name: named[name] for name in names & named.keys()}
        wanted = {rule for rules in self._rules_map.values() for rule in rules}
        self._rules = sorted(wanted, key=places.__getitem__)
        sets = [one for rule in self._rules for one in rule.selector_set]
        # Where all that a selector says are such names, there is nothing to look at.
        plain = [len(one.selectors) == 1 and not one.selectors[0].pseudo_classes for one in sets]
        self._always = [*self._rules, *compress(sets, plain)]
        self._sometimes = [one for one, is_plain in zip(sets, plain, strict=True) if not is_plain]

    def holding(self, path: list[DOMNode]) -> list[object]:
        """The rules, and those of their selectors that may hold for the last node of the path."""
        return [*self._always, *(one for one in self._sometimes if _holds(one, path))]

    @classmethod
    def _check_rule(
        cls, rule_set: RuleSet, css_path_nodes: list[DOMNode]
    ) -> Iterator[tuple[int, int, int]]:
        return (one.specificity for one in rule_set.selector_set if _holds(one, css_path_nodes))


def _holds(selectors: SelectorSet, path: list[DOMNode]) -> bool:
    """Whether the selectors hold for the last node of the path. What they say of that node itself
    rules out most of them, before all that is above it is looked at."""
    every = selectors.selectors
    return every[-1].check(path[-1]) and _check_selectors(every, path)
