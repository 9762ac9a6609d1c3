"""The check of SAEs over several layers: FVU by layer, and the kind of hook points that fits."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.sae import CrossLayerSae, SaeMetadata
from mi_crow.mechanistic.sae.cross_layer.kinds import Crosscoder, CrossLayerTranscoder
from mi_crow.mechanistic.sae.cross_layer.points import at_block, moved
from mi_crow.mechanistic.sae.cross_layer.record import (
    ROLES,
    CrossLayerRecord,
    LayerRecord,
    ModelRead,
)
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.formats.config import CheckConfig, ImportConfig
from mi_crow.mechanistic.sae.formats.exchange import import_sae
from mi_crow.mechanistic.sae.formats.fit import check_fit
from mi_crow.store import Workspace
from tests.helpers.architectures import tiny
from tests.helpers.cross_layer_fixture import shared, small
from tests.unit.test_sae_formats_fit import TEXTS, activations

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

NUMBERS = (0, 1)


def linear(lm: "LanguageModel", read: str, written: str, says: tuple[str, str]) -> CrossLayerSae:
    """Maps what is read in each layer linearly to what is written there, by a pair of latents a
    direction; what it reads itself by half of its principal directions. `says` is what it calls the
    two kinds of hook points."""
    layers = []
    for number in NUMBERS:
        x, y = (activations(lm, at_block(kind, number)) for kind in (read, written))
        solution = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0)).solution
        if read == written:
            half = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[: x.shape[1] // 2]
            solution = half.T @ half
        rows = torch.eye(x.shape[1])
        decoder = torch.cat([solution, -solution])
        none = torch.zeros_like(decoder)
        ref = TensorRef.of
        layers.append(
            LayerRecord(
                number,
                at_block(says[0], number),
                at_block(says[1], number),
                ref(torch.cat([rows, -rows])),
                ref(torch.cat([-x.mean(0), x.mean(0)])),
                {to: ref(decoder if to == number else none) for to in NUMBERS[number:]},
                ref(y.mean(0)),
            )
        )
    made = Crosscoder if read == written else CrossLayerTranscoder
    record = CrossLayerRecord(made.architecture, tuple(layers), SaeMetadata())
    return made(record.checked("a test"))


def test_a_crosscoder_at_its_places_raises_no_warning(tiny_lm: "LanguageModel") -> None:
    sae = linear(tiny_lm, "resid_post", "resid_post", ("resid_post", "resid_post"))
    fit = check_fit(tiny_lm, sae, TEXTS)
    assert fit.layers.keys() == {"resid_post.0", "resid_post.1"}
    assert max(fit.layers.values()) < 0.5
    assert fit.fvu == pytest.approx(sum(fit.layers.values()) / 2)
    assert fit.warnings == ()
    x = activations(tiny_lm, "resid_post.0")
    assert fit.tokens == len(x)
    assert fit.l0 == pytest.approx(2 * x.shape[1], rel=0.01)  # of both layers together
    assert "--layer resid_mid" in fit.alternatives
    assert fit.as_json()["fvu_by_layer"] == fit.layers


def test_latents_of_all_layers_count_once(tiny_lm: "LanguageModel") -> None:
    fit = check_fit(tiny_lm, shared((0, 2)), TEXTS)
    x = torch.cat([activations(tiny_lm, f"resid_post.{number}") for number in (0, 2)], dim=1)
    assert fit.l0 == pytest.approx(float((shared((0, 2)).encode(x) > 0).sum(1).float().mean()))
    assert fit.l0 > 1
    assert fit.l0_by_layer == {}
    clt = check_fit(tiny_lm, small("clt"), TEXTS)
    assert sum(clt.l0_by_layer.values()) == pytest.approx(clt.l0)
    assert clt.as_json()["l0_by_layer"].keys() == {f"mlp_out.{number}" for number in range(3)}


def test_a_crosscoder_of_two_models_reads_both(
    tiny_lm: "LanguageModel", tiny_model_dir: Path, tiny_tuned_dir: Path
) -> None:
    from mi_crow.language_model import LanguageModel

    def made(base: Path, tuned: Path) -> CrossLayerSae:
        pairs = zip(ROLES, (base, tuned), strict=True)
        return shared((0, 2), tuple(ModelRead(role, str(model)) for role, model in pairs))

    tuned = LanguageModel.from_huggingface(tiny_tuned_dir, device="cpu")
    sae = made(tiny_model_dir, tiny_tuned_dir)
    fit = check_fit(tuned, sae, TEXTS)
    parts = [activations(lm, f"resid_post.{n}") for lm in (tiny_lm, tuned) for n in (0, 2)]
    output = sae(torch.cat(parts, dim=1))
    assert [*fit.layers] == [*sae.layers]
    rebuilt = output.reconstruction.split(32, dim=1)
    for name, x, found in zip(sae.layers, parts, rebuilt, strict=True):
        fvu = float((x - found).square().sum() / (x - x.mean(0)).square().sum())
        assert fit.layers[name] == pytest.approx(fvu, rel=1e-3)
    active = float((output.latents.values > 0).sum(1).float().mean())
    assert (fit.l0, fit.tokens) == (pytest.approx(active), len(parts[0]))
    assert fit.fvu == pytest.approx(sum(fit.layers.values()) / 4)
    with pytest.raises(UserError, match="is the base model of the SAE"):
        check_fit(tiny_lm, sae, TEXTS)
    with pytest.raises(NotFoundError, match="gone"):
        check_fit(tuned, made(tiny_model_dir.with_name("gone"), tiny_tuned_dir), TEXTS)


def test_the_kind_that_a_crosscoder_was_made_at_is_named(tiny_lm: "LanguageModel") -> None:
    sae = linear(tiny_lm, "mlp_out", "mlp_out", ("resid_post", "resid_post"))
    fit = check_fit(tiny_lm, sae, TEXTS)
    assert "all layers fit better with --layer mlp_out" in fit.warnings[-1]
    assert fit.alternatives["--layer mlp_out"] < 0.2 < fit.fvu


def test_both_ends_of_a_cross_layer_transcoder_are_tried() -> None:
    """Of Gemma 2, where a norm stands between what the MLP computes and what is added."""
    lm = tiny("gemma2")
    sae = linear(lm, "ln2.hook_normalized", "mlp_out", ("mlp_in", "mlp_raw"))
    fit = check_fit(lm, sae, TEXTS)
    best = min(fit.alternatives, key=lambda name: fit.alternatives[name])
    assert best == "--layer ln2.hook_normalized --target-layer mlp_out"
    assert best in fit.warnings[-1]


def test_an_import_takes_the_kind_that_fits(tiny_lm: "LanguageModel", tmp_path) -> None:
    from mi_crow.language_model.config import DatasetSpec, ModelSpec

    folder = linear(tiny_lm, "mlp_out", "mlp_out", ("resid_post", "resid_post")).save(
        tmp_path / "x"
    )
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    config = ImportConfig(
        str(folder),
        layer="mlp_out",
        model=ModelSpec(tiny_lm.model_id),
        check=CheckConfig(DatasetSpec(str(texts))),
        device="cpu",
    )
    workspace = Workspace(tmp_path / "ws")
    result = import_sae(workspace, config)
    assert result.layer == "mlp_out.0-1"
    assert result.fit is not None
    assert result.fit.fvu < 0.5
    assert result.warnings == ()
    assert workspace.list_saes()[0].model_id == tiny_lm.model_id


def test_only_kinds_of_hook_points_are_taken(tiny_lm: "LanguageModel") -> None:
    record = linear(tiny_lm, "mlp_out", "mlp_out", ("mlp_out", "mlp_out")).record
    assert [one.written for one in moved(record, "resid_mid", None).layers] == [
        "resid_mid.0",
        "resid_mid.1",
    ]
    with pytest.raises(UserError, match="a crosscoder predicts what it reads"):
        moved(record, None, "mlp_out")
    with pytest.raises(UserError, match="KIND of hook point, not 'mlp'"):
        moved(record, "mlp", None)


def test_a_layer_that_the_model_lacks_or_of_another_width_is_named(tiny_lm) -> None:
    sae = linear(tiny_lm, "mlp_out", "mlp_out", ("mlp_out", "mlp_out"))
    narrow = [
        type(one)(
            one.number,
            one.read,
            one.written,
            TensorRef.of(torch.ones(4, 3)),
            TensorRef.of(torch.ones(4)),
            {to: TensorRef.of(torch.ones(4, 3)) for to in one.decoders},
            TensorRef.of(torch.ones(3)),
        )
        for one in sae.record.layers
    ]
    record = CrossLayerRecord(Crosscoder.architecture, tuple(narrow), SaeMetadata())
    with pytest.raises(UserError, match=r"reads 3 inputs, layer 'mlp_out\.0'"):
        check_fit(tiny_lm, Crosscoder(record.checked("a test")), TEXTS)


def test_no_token_is_lost_between_passes(tiny_lm: "LanguageModel") -> None:
    """Figures of many texts are pooled over the passes that read them."""
    sae = linear(tiny_lm, "resid_mid", "resid_mid", ("mlp_out", "mlp_out"))
    found = check_fit(tiny_lm, sae, TEXTS).layers["mlp_out.0"]
    x: Tensor = activations(tiny_lm, "mlp_out.0")
    rebuilt = sae({0: x, 1: x}).reconstruction[0]
    plain = float((x - rebuilt).square().sum() / (x - x.mean(0)).square().sum())
    assert found == pytest.approx(plain, rel=1e-3)
