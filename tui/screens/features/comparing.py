"""`=` on Features: what is compared with what."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from tui.screens.features.marking import FeatureMarkScreen

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.comparing import Comparison
    from mi_crow.mechanistic.features.queries import FeatureStore


class FeatureCompareScreen(FeatureMarkScreen):
    """Compares the marked features; the only marked one with the open one, and this, where it is
    the only one, with its nearest."""

    def action_compare(self) -> None:
        store, sae_id, features = self.context.features, self._sae_id, self._chosen()
        if store is None or sae_id is None or not features:
            return
        here = self._feature
        if len(self.table.marks) == 1 and here is not None and here not in features:
            features = (*features, here)
        folder = self.context.workspace.saes_dir / sae_id
        self.in_thread(
            partial(_compare, store, features, folder, nearest=len(features) == 1),
            self._show_comparison,
            group="compare",
        )

    def _show_comparison(self, found: "Comparison") -> None:
        from tui.screens.features.compare_popup import ComparePopup

        self.app.push_screen(ComparePopup(found))


def _compare(
    store: "FeatureStore", features: Sequence[int], folder: Path, *, nearest: bool
) -> "Comparison":
    """Reads the comparison; blocks on the index. Raises UserError for too many marks, and for a
    feature without a nearest one."""
    from mi_crow.mechanistic.features.comparing import LEAST, MOST, compare_features

    if nearest:
        near = store.detail(features[0]).neighbours
        if not near:
            raise UserError(
                f"feature {features[0]} has no nearest feature to compare it with",
                hint=f"mark {LEAST} to {MOST} features",
            )
        features = (features[0], near[0].feature)
    elif len(features) > MOST:
        raise UserError(
            f"{len(features):,} features are marked", hint=f"mark {LEAST} to {MOST} to compare them"
        )
    return compare_features(store, features, folder)
