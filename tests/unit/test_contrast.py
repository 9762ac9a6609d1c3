"""Features that tell two sets of texts apart, and what chance gives."""

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.explain.contrast import Contrast, _telling, contrast
from mi_crow.mechanistic.steering.loading import join
from tests.helpers.steering_fixture import tiny_sae

SEA = [f"The ferry left harbour number {n} before dawn with gulls." for n in range(16)]
BREAD = [f"Bread needs {n} hours of flour, water and warm salt." for n in range(16)]


@pytest.fixture
def found(tiny_lm) -> Contrast:
    return contrast(join("sae", tiny_lm, tiny_sae()), SEA, BREAD, top=6)


def test_texts_that_differ_are_told_apart_on_the_other_half(found: Contrast) -> None:
    best = found.features[0]
    assert max(best.auroc, 1 - best.auroc) > 0.95
    assert (best.auroc > 0.5) == (best.effect > 0) == (best.mean_for > best.mean_against)
    chosen = [abs(one.auroc_chosen - 0.5) for one in found.features]
    assert chosen == sorted(chosen, reverse=True)
    assert found.chance < max(best.auroc, 1 - best.auroc)


def test_a_feature_is_chosen_by_one_half_and_measured_on_the_other() -> None:
    pooled = torch.zeros(16, 3)
    first, chosen_by = torch.arange(16) < 8, torch.arange(16) % 2 == 0
    pooled[first, 0] = 1.0  # tells them apart everywhere
    pooled[first & chosen_by, 1] = 2.0  # only on the half that is chosen by
    pooled[~first & ~chosen_by, 1] = 2.0
    pooled[:, 1] += torch.arange(16) * 0.01
    found = {one.feature: one for one in _telling(pooled, first, chosen_by, 3)}
    assert found.keys() == {0, 1}  # the third never fires
    assert (found[0].auroc_chosen, found[0].auroc) == (1.0, 1.0)
    assert (found[1].auroc_chosen, found[1].auroc) == (1.0, 0.0)
    turned = {one.feature: one for one in _telling(pooled, ~first, chosen_by, 3)}
    assert turned[1].effect == pytest.approx(-found[1].effect)


def test_a_seed_gives_the_same(found: Contrast, tiny_lm) -> None:
    again = contrast(join("sae", tiny_lm, tiny_sae()), SEA, BREAD, top=6)
    assert again == found
    assert tiny_lm.layers.get_hooks() == []
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("texts_for", "against", "message"),
    [
        (SEA[:3], BREAD, "the first set has 3 texts"),
        (SEA, BREAD[:7], "the second set has 7 texts"),
        (SEA, [*BREAD, SEA[0]], "is among the texts of both sides"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(tiny_lm, texts_for, against, message) -> None:
    with pytest.raises(UserError, match=message):
        contrast(join("sae", tiny_lm, tiny_sae()), texts_for, against)
