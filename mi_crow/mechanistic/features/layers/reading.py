"""Which layer each feature of an index is of, and how much it writes to each. Torch-free.

Of an SAE of one layer that is its layer. Of one over several layers see
`sae/cross_layer/norms`: it is computed when the index is built.
"""

import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.mechanistic.features.layers.condition import layers_compared, layers_named
from mi_crow.mechanistic.features.records import LayerNorm
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.store.json_file import parse_json, read_object

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection

_META = (
    "SELECT key, value FROM idx.meta WHERE key IN "
    "('layer', 'layers', 'layers_written', 'first_features', 'n_features')"
)


class LayerReader:
    """The layers of an index, read when somebody first asks for them."""

    def __init__(self, connection: "IndexConnection") -> None:
        # The connection keeps its reader: a circle would hold the index's file until it is found.
        self._connection = weakref.proxy(connection)

    @cached_property
    def several(self) -> bool:
        """Whether the SAE is over several layers."""
        return bool(self._several) or (self._connection.schema < 4 and self._is_shared)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The layers that features can be of, in order; none where the index does not say."""
        if self._several:
            return self._several
        if self.several:
            return ()
        layer = str(self._meta.get("layer", ""))
        return (point_of(layer) or layer,)

    @property
    def why_unknown(self) -> str:
        """Why the index does not say which layer features are of; empty where it does."""
        if self.names:
            return ""
        return (
            "the index is of a version that did not keep them: mi-crow index --sae "
            f"{self._connection.sae_id} builds it again; concepts stay"
        )

    @cached_property
    def places(self) -> np.ndarray:
        """The place in `names` of each feature's layer: int16 [n_features], -1 where the index does
        not say."""
        size = int(self._meta["n_features"])
        if not self.names:
            return np.full(size, -1, dtype=np.int16)
        if not self._several:
            return np.zeros(size, dtype=np.int16)
        if self._connection.schema < 4:
            firsts = np.array(parse_json(self._meta["first_features"], "first_features"))
            found = np.searchsorted(firsts, np.arange(size), side="right") - 1
            return found.astype(np.int16)
        rows = self._connection.columns("SELECT feature, layer FROM idx.feature_layers")
        places = np.full(size, -1, dtype=np.int16)
        places[rows["feature"]] = rows["layer"]
        if not ((places >= 0) & (places < len(self.names))).all():
            raise ValueError("the layers of some features are missing")
        return places

    def of(self, feature: int) -> str:
        """The layer of one feature; empty where the index does not say."""
        return self.texts([feature])[0]

    def texts(self, features: Sequence[int]) -> list[str]:
        """The layers of some features."""
        names = (*self.names, "")
        return [names[place] for place in self.places[np.asarray(features, dtype=int)].tolist()]

    def norms(self, feature: int) -> tuple[LayerNorm, ...]:
        """How long the feature's decoder row is in each layer that it writes to; nothing for an SAE
        of one layer and in an index of before."""
        if not self._several or self._connection.schema < 4:
            return ()
        names = parse_json(self._meta["layers_written"], "layers_written")
        [(norms,)] = self._connection.rows(
            "SELECT norms FROM idx.feature_layers WHERE feature = ?", [feature]
        )
        longest = max(norms, default=0.0) or 1.0
        pairs = zip(names, norms, strict=True)
        return tuple(LayerNorm(str(name), norm, norm / longest) for name, norm in pairs if norm > 0)

    def keys(self) -> np.ndarray:
        """A number per feature that ascends from the first layer to the last: [n_features], NaN
        where the index does not say."""
        return np.where(self.places < 0, np.nan, self.places.astype(np.float64))

    def matching(self, sign: str, wanted: str | float) -> np.ndarray:
        """The features that meet a condition: bool [n_features]. Raises NotFoundError for a layer
        that is not there, and where the index does not say which there are."""
        if not self.names:
            sae_id = self._connection.sae_id
            raise NotFoundError(
                f"the index of {sae_id!r} does not say which layer features are of",
                hint=f"mi-crow index --sae {sae_id} builds it again; concepts stay",
            )
        if isinstance(wanted, str):
            meant = layers_named(wanted, self.names)
        else:
            meant = layers_compared(sign, wanted, self.names)
        return meant[self.places]

    @cached_property
    def _meta(self) -> dict[str, Any]:
        return dict(self._connection.rows(_META))

    @cached_property
    def _several(self) -> tuple[str, ...]:
        return tuple(map(str, parse_json(self._meta.get("layers", "[]"), "layers")))

    @property
    def _is_shared(self) -> bool:
        """Whether the SAE beside an index of before is a crosscoder, of which that did not say."""
        folder: Path = self._connection.path.parent
        try:
            return read_object(folder / "cfg.json").flag("shared", False)
        except MiCrowError:
            return False
