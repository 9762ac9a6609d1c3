"""The index of an SAE with its texts, and whether a feature can be steered. Torch-free."""

from dataclasses import dataclass

import numpy as np

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.measure.texts import IndexedTexts
from mi_crow.store.workspace import Workspace

_PROMOTED = 20  # tokens of each feature


@dataclass(frozen=True)
class Indexed:
    """The index of an SAE and the texts in it."""

    store: FeatureStore
    texts: IndexedTexts

    @classmethod
    def open(cls, workspace: Workspace, sae_id: str) -> "Indexed":
        """Raises NotFoundError without the SAE or its index."""
        store = FeatureStore.open(workspace, sae_id)
        return cls(store, IndexedTexts(store))

    def check_feature(self, feature: int) -> None:
        """Raises UserError for a feature that the SAE does not have or that never fires."""
        try:
            (row,) = self.store.rows([feature])
        except NotFoundError as error:
            raise UserError(str(error), hint=error.hint) from error
        if not row.max_act:
            raise UserError(
                f"feature {feature} never fires in the index", hint="choose a living feature"
            )

    def promoted(self) -> np.ndarray:
        """The tokens that each feature promotes most: int64 [features, 20], -1 where there are
        fewer. Raises UserError for an index without them."""
        found = self.store.connection.columns(
            "SELECT feature, rank::INTEGER AS rank, token_id FROM idx.logits "
            f"WHERE sign = 1 AND rank < {_PROMOTED}"
        )
        if not len(found["feature"]):
            raise UserError(
                "the index does not say which tokens the features promote",
                hint="it is known for layers as wide as the residual stream",
            )
        tokens = np.full((self.store.meta().n_features, _PROMOTED), -1, dtype=np.int64)
        tokens[found["feature"], found["rank"]] = found["token_id"]
        return tokens
