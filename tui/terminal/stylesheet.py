"""The rules that style the app: each source of them parsed once, and looked up by what they name.

Textual parses all of them again when a screen comes that has a file of its own, and when a mode is
entered for the first time: half of the time until a screen shows. And it goes through all of them
for every widget that it styles, of which a screen has hundreds.
"""

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, ClassVar

from textual.cache import LRUCache
from textual.css.model import RuleSet
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
        self._matching: LRUCache[frozenset[str], Stylesheet] = LRUCache(_KINDS)
        self._matched_rules: list[RuleSet] | None = None
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
            self._matching.clear()
        names = frozenset(node._selector_names)
        if names not in self._matching:
            self._matching[names] = _Matching(self, names)
        Stylesheet.apply(self._matching[names], node, **settings)

    def read_missing(self, paths: Sequence[PurePath]) -> None:
        """Reads the files that were not read yet."""
        missing = [path for path in paths if not self.has_source(os.path.abspath(path))]
        self.read_all(missing)
        if missing:
            self.parse()


class _Matching(Stylesheet):
    """The rules of a stylesheet that end in one of these names; what is inside of a widget is
    styled by all of them."""

    def __init__(self, whole: Stylesheet, names: frozenset[str]) -> None:
        super().__init__()
        self.apply = whole.apply
        named = whole.rules_map
        self._rules_map = {name: named[name] for name in names & named.keys()}
        wanted = {rule for rules in self._rules_map.values() for rule in rules}
        self._rules = [rule for rule in whole.rules if rule in wanted]
