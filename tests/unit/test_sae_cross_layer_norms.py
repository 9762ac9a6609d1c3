"""Which layer the latents of an SAE over several layers are of, and how much they write to each."""

from pathlib import Path

import pytest
import torch

from mi_crow.mechanistic.sae import SaeMetadata, load_sae
from mi_crow.mechanistic.sae.cross_layer.kinds import own_layers
from mi_crow.mechanistic.sae.cross_layer.norms import (
    decoder_norms,
    in_own_units,
    own_places,
)
from mi_crow.mechanistic.sae.cross_layer.record import ModelRead
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.train.across.crosscoder import TopKCrosscoder, crosscoder_record
from tests.helpers.cross_layer_fixture import LATENTS, small

NAMES = tuple((n, f"resid_post.{n}") for n in (1, 4, 5))


def trained(scales: tuple[float, ...]) -> tuple[TopKCrosscoder, SharedCrosscoder]:
    """A crosscoder as training has it, and as it is saved: each layer times its scale."""
    torch.manual_seed(0)
    sae = TopKCrosscoder(64, (8, 8, 8), 4)
    sae.W_dec.data = torch.randn(64, 24) * torch.rand(64, 3).repeat_interleave(8, dim=1)
    return sae, SharedCrosscoder(crosscoder_record(sae, NAMES, scales, SaeMetadata()))


def test_a_crosscoders_rows_are_compared_in_units_of_each_layer(tmp_path: Path) -> None:
    # The activations of the last layer are fifty times as long: as they are, all rows peak there.
    sae, saved = trained((1.0, 0.3, 0.02))
    saved.save(tmp_path)
    own = torch.stack([rows.norm(dim=1) for rows in sae.W_dec.split(8, dim=1)], dim=1)
    for one in (saved, load_sae(tmp_path)):
        assert isinstance(one, SharedCrosscoder)
        norms = decoder_norms(one)
        torch.testing.assert_close(norms, own / own.sum(1, keepdim=True), atol=1e-4, rtol=1e-4)
        assert own_places(one, norms).tolist() == own.argmax(1).tolist()
        assert set(own.argmax(1).tolist()) == {0, 1, 2}
        wanted = [f"resid_post.{(1, 4, 5)[place]}" for place in own.argmax(1).tolist()]
        assert own_layers(one, range(64)) == wanted
        assert not any("W_dec" in name for name in one.in_memory)


def test_norms_that_add_up_in_no_units_stay_as_they_are() -> None:
    norms = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert torch.equal(in_own_units(norms), norms)
    # Of two layers that are alike in all latents only the sum of the units is known.
    alike = torch.full((5, 2), 0.25)
    torch.testing.assert_close(in_own_units(alike), torch.full((5, 2), 0.5))


@pytest.mark.parametrize("kind", ["clt", "crosscoder"])
def test_a_latent_that_reads_one_layer_is_of_that_layer(kind: str) -> None:
    sae = small(kind, (0, 2, 3))
    norms = decoder_norms(sae)
    assert own_places(sae, norms).tolist() == [n // LATENTS for n in range(3 * LATENTS)]
    latents = [LATENTS + 3, 2 * LATENTS, 1]
    assert own_layers(sae, latents) == [sae.layers[at] for at in (1, 2, 0)]
    written = sae.writes(latents)
    for place, number in enumerate((0, 2, 3)):
        torch.testing.assert_close(norms[latents, place], written[number].norm(dim=1))
    assert norms[LATENTS + 3].tolist()[0] == 0.0  # it writes to its layer and to later ones


def test_of_two_models_the_layer_is_one_of_either() -> None:
    torch.manual_seed(0)
    sae = TopKCrosscoder(32, (8, 8), 4)
    sae.W_dec.data[::2, 8:] *= 0.1  # the even ones say little in the tuned model
    sae.W_dec.data[1::2, :8] *= 0.1
    names, roles = ((0, "resid_post.3"), (1, "resid_post.3")), ("base", "tuned")
    models = (ModelRead("base", "a"), ModelRead("tuned", "b"))
    record = crosscoder_record(sae, names, (1.0, 0.1), SaeMetadata(), roles, models)
    found = own_layers(TwoModelCrosscoder(record), range(4))
    assert found == ["base:resid_post.3", "tuned:resid_post.3"] * 2
