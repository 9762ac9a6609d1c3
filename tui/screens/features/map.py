"""The way from the Features screen to the map and back."""

from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.store.json_object import JsonObject
from tui.screens.features.map_place import MapPlace
from tui.screens.features.marking import FeatureMarkScreen

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.feature_map import FeatureMap
    from tui.screens.features.map_popup import MapPopup

_COLOUR = "label"  # of a map that was never open


class FeatureMapScreen(FeatureMarkScreen):
    """Opens the map, and on the screen the feature that was chosen there."""

    def __init__(self) -> None:
        super().__init__()
        self._map_colour = _COLOUR
        self._map_place: MapPlace | None = None
        self._map: MapPopup | None = None  # while it is open

    @property
    def map_place(self) -> MapPlace | None:
        """Where the map is or was left."""
        return self._map.place if self._map is not None else self._map_place

    def action_map(self) -> None:
        store = self.context.features
        if store is not None:
            self.in_thread(store.map, self._show_map, group="map")

    def _show_map(self, found: "FeatureMap") -> None:
        # Imported here because NumPy is in memory only once an index is open.
        from tui.screens.features.map_popup import MapPopup

        store = self.context.features
        if store is None or self.app.screen is not self:
            return
        if not len(found.placed):
            self.tell(
                UserError(
                    "this index has no coordinates for a map",
                    hint=f"mi-crow index --sae {store.sae_id} builds it again; concepts stay",
                )
            )
            return
        place = self._map_place
        if place is not None and place.sae_id != store.sae_id:
            place = None
        marks = self.table.marks
        popup = MapPopup(store, found, marks, self._map_colour, self._feature, place)
        self._map = popup

        def closed(feature: int | None) -> None:
            self._map_colour, self._map_place, self._map = popup.colour, popup.place, None
            self._marks_changed()
            if feature is not None:
                self._go_to(feature)

        self.app.push_screen(popup, closed)


def saved_colour(saved: JsonObject) -> str:
    """The colours of the map in a saved state. Raises CorruptDataError for unknown ones."""
    colour = saved.text("map_colour", _COLOUR) or _COLOUR
    if colour not in ("label", "name", "density", "crowd", "marks"):
        raise saved.wrong("map_colour", "a meaning of colours")
    return colour
