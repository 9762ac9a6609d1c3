"""In which order the features of Inspect are listed, and which of them."""

from dataclasses import dataclass
from typing import Any

from mi_crow.store.json_object import JsonObject

ORDERS = ("meaning", "share", "surprise", "raw", "count", "first")
SHOWN = ("all", "rare", "named")
_RARE = 0.1  # density above which `rare` leaves a feature out


@dataclass(frozen=True)
class Shown:
    """In which order features are listed, and which of them."""

    order: str = "meaning"
    which: str = "all"

    def asked(self) -> dict[str, Any]:
        """What the session is asked; nothing for the usual, which works without an index too."""
        if self == Shown():
            return {}
        density = _RARE if self.which == "rare" else None
        return {"order": self.order, "max_density": density, "named": self.which == "named"}

    def words(self) -> str:
        """What differs from the usual, for the title of the list."""
        which = {"all": "", "rare": f"on at most {_RARE:.0%} of tokens", "named": "named"}
        parts = ("" if self.order == "meaning" else f"by {self.order}", which[self.which])
        return ", ".join(part for part in parts if part)

    @classmethod
    def restored(cls, saved: JsonObject) -> "Shown":
        """What `InspectScreen.state` kept; the usual for what is not known."""
        order, which = saved.text("order", "meaning"), saved.text("which", "all")
        return cls(order if order in ORDERS else "meaning", which if which in SHOWN else "all")
