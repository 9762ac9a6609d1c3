"""Controls: random features that fire as often as others and as strongly. Torch-free."""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.targets import Target
from mi_crow.store.workspace import Workspace

_NEAREST = 24


def control_of_stack(
    store: FeatureStore, features: Iterable[int], rivals: Collection[int], seed: int
) -> dict[int, int]:
    """A random feature for each of those that a stack raises, in their order, and then for each of
    its rivals, as far as there are enough: what is left of the stack is its shape alone.

    Raises UserError where the SAE has too few living features for the former.
    """
    features = dict.fromkeys(features)
    found = matched_features(store, features, seed)
    raised = {one: found[one] for one in features}
    pool = _Living(store, seed + 1)
    pool.taken |= {*features, *raised.values(), *rivals}
    drawn = {rival: pool.draw_like(rival) for rival in rivals}
    return raised | {rival: other for rival, other in drawn.items() if other is not None}


def of_other_saes(
    workspace: Workspace, stack: Sequence[Intervention], sae_id: str, seed: int
) -> dict[str, str]:
    """For each target of `stack` of another SAE than `sae_id` that of random features of its own
    SAE. Raises NotFoundError where that has no index, UserError where it has too few features."""
    aims: dict[str, list[Target]] = {}
    for one in stack:
        if one.enabled and one.features and one.sae not in (None, sae_id):
            aims.setdefault(str(one.sae), []).append(one.aim)
    found: dict[str, str] = {}
    for name, own in aims.items():
        numbers = [number for aim in own for number, _ in aim.features]
        rivals = [number for one in stack if one.sae == name for number, _ in one.rival_features]
        others = matched_features(FeatureStore.open(workspace, name), numbers, seed, rivals)
        for aim in own:
            features = tuple((others[number], weight) for number, weight in aim.features)
            found[aim.text] = replace(aim, features=features).text
    return found


def matched_features(
    store: FeatureStore, features: Iterable[int], seed: int, avoid: Collection[int] = ()
) -> dict[int, int]:
    """For each feature another one at random, among those nearest to it in density and in the norm
    of what it adds where it fires (the sum of the two log ratios); none twice, and none of `avoid`.

    That norm is the mean activation times that of the decoder row, which alone says nothing: most
    SAEs have rows of norm 1, or can be scaled to it. A feature that is never as strong as the one
    it stands for would be pushed far beyond what the model knows of it.

    Raises UserError where the SAE has too few living features.
    """
    wanted = sorted(set(features))
    pool = _Living(store, seed)
    pool.taken |= {*wanted, *avoid}
    found: dict[int, int] = {}
    for feature in wanted:
        other = pool.draw_like(feature)
        if other is None:
            raise UserError(
                "the SAE has no other living feature to compare with", hint="leave out the control"
            )
        found[feature] = other
    return found


class _Living:
    """The features that fire, of which each is drawn once."""

    def __init__(self, store: FeatureStore, seed: int) -> None:
        rows = store.connection.columns(
            "SELECT feature, density, coalesce(decoder_norm::DOUBLE, 1.0) * abs(mean_act) AS norm "
            "FROM idx.features WHERE fires > 0 ORDER BY feature"
        )
        self._numbers = rows["feature"].astype(np.int64)
        self._kinds = np.stack(
            [np.log(rows["density"]), np.log(np.maximum(rows["norm"], 1e-12))], axis=1
        )
        self._generator = random.Random(seed)
        self.taken: set[int] = set()

    def draw_like(self, feature: int) -> int | None:
        """One of the nearest to a feature that are not taken, which takes it; None without any."""
        place = np.flatnonzero(self._numbers == feature)
        own = self._kinds[place[0]] if len(place) else np.median(self._kinds, axis=0)
        order = self._numbers[np.argsort(np.abs(self._kinds - own).sum(axis=1), kind="stable")]
        near = [one for one in order.tolist() if one not in self.taken][:_NEAREST]
        if not near:
            return None
        found = self._generator.choice(near)
        self.taken.add(found)
        return found
