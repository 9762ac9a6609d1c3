"""Controls: a random feature that fires as often as another and is as long. Torch-free."""

import random
from collections.abc import Collection, Iterable

import numpy as np

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.queries import FeatureStore

_NEAREST = 24


def matched_features(
    store: FeatureStore, features: Iterable[int], seed: int, avoid: Collection[int] = ()
) -> dict[int, int]:
    """For each feature another one at random, among those nearest to it in density and in the norm
    of its decoder row (the sum of the two log ratios); none twice, and none of `avoid`.

    Raises UserError where the SAE has too few living features.
    """
    wanted = sorted(set(features))
    rows = store.connection.columns(
        "SELECT feature, density, coalesce(decoder_norm::DOUBLE, 1.0) AS norm FROM idx.features "
        "WHERE fires > 0 ORDER BY feature"
    )
    numbers = rows["feature"].astype(np.int64)
    kind = np.stack([np.log(rows["density"]), np.log(np.maximum(rows["norm"], 1e-12))], axis=1)
    taken = {*wanted, *avoid}
    generator = random.Random(seed)
    found: dict[int, int] = {}
    for feature in wanted:
        place = np.flatnonzero(numbers == feature)
        own = kind[place[0]] if len(place) else np.median(kind, axis=0)
        order = np.argsort(np.abs(kind - own).sum(axis=1), kind="stable")
        near = [int(numbers[at]) for at in order if int(numbers[at]) not in taken][:_NEAREST]
        if not near:
            raise UserError(
                "the SAE has no other living feature to compare with", hint="leave out the control"
            )
        found[feature] = generator.choice(near)
        taken.add(found[feature])
    return found
