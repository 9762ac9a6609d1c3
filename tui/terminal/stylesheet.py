"""The rules that style the app, each source of them parsed once.

Textual parses all of them again when a screen comes that has a file of its own, and when a mode is
entered for the first time: half of the time until a screen shows.
"""

import os
from collections.abc import Sequence
from pathlib import PurePath

from textual.cache import LRUCache
from textual.css.stylesheet import Stylesheet

_SOURCES = 1024  # more than there are classes of widgets


class KeptStylesheet(Stylesheet):
    """Keeps what it parsed until the variables, and with them the colours, are others."""

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._parse_cache = LRUCache(_SOURCES)

    def set_variables(self, variables: dict[str, str]) -> None:
        if variables != self._variables:
            super().set_variables(variables)

    def reparse(self) -> None:
        self.parse()

    def read_missing(self, paths: Sequence[PurePath]) -> None:
        """Reads the files that were not read yet."""
        missing = [path for path in paths if not self.has_source(os.path.abspath(path))]
        self.read_all(missing)
        if missing:
            self.parse()
