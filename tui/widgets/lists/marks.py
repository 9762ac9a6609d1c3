"""The rows of a list that somebody marked, to do something with all of them; pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", int, str)


class Marks(Generic[Key]):
    """A set of keys. It outlives orders and filters; the last mark is where a range begins."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys: set[Any] = set(keys)
        self._last: Key | None = None

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(sorted(self._keys))

    def toggle(self, key: Key) -> None:
        self._keys ^= {key}
        self._last = key

    def mark_range(self, shown: Sequence[Key], place: int) -> None:
        """Marks all of `shown` between the last mark, where that is shown, and `place`."""
        first = place
        if self._last is not None and self._last in shown:
            first = shown.index(self._last)
        self._keys.update(shown[min(first, place) : max(first, place) + 1])
        self._last = shown[place]

    def toggle_all(self, shown: Sequence[Key]) -> None:
        """Marks all of `shown`, or unmarks them where all are marked."""
        if self._keys.issuperset(shown):
            self._keys.difference_update(shown)
        else:
            self._keys.update(shown)

    def clear(self) -> None:
        self._keys.clear()
        self._last = None

    def keep_only(self, known: Iterable[Key]) -> None:
        """Forgets keys that are not `known` any more."""
        self._keys.intersection_update(known)
