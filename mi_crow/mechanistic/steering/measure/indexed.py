"""The index of an SAE with its texts, and whether a feature can be steered. Torch-free."""

from dataclasses import dataclass

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.measure.texts import IndexedTexts
from mi_crow.store.workspace import Workspace


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
