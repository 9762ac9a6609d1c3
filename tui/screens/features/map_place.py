"""Where the map of features was left, as it is kept for the next start; pure, without NumPy."""

from dataclasses import dataclass
from typing import Any

from mi_crow.store.json_object import JsonObject, finite


@dataclass(frozen=True)
class MapPlace:
    """The part of one SAE's map that was shown, and the cursor in it."""

    sae_id: str
    view: tuple[float, float, float, float]  # left, bottom, width, height
    at: tuple[float, float]
    feature: int | None  # that was open when the map was

    def as_json(self) -> dict[str, Any]:
        """What `saved_place` reads."""
        return {
            "sae": self.sae_id,
            "view": list(self.view),
            "at": list(self.at),
            "feature": self.feature,
        }


def saved_place(saved: JsonObject) -> MapPlace | None:
    """The place in a saved state. Raises CorruptDataError for what is none."""
    if "map" not in saved:
        return None
    own = saved.object("map")
    left, bottom, width, height = _numbers(own, "view", 4)
    x, y = _numbers(own, "at", 2)
    if not (width > 0 and height > 0):
        raise own.wrong("view", "a part of the map")
    feature = own.integer("feature", None, least=0)
    return MapPlace(own.text("sae"), (left, bottom, width, height), (x, y), feature)


def _numbers(saved: JsonObject, key: str, count: int) -> list[float]:
    found = saved.array(key)
    known = [number for one in found if (number := finite(one)) is not None]
    if not len(known) == len(found) == count:
        raise saved.wrong(key, f"{count} numbers")
    return known
