"""An SAE of the workspace with the model it belongs to, ready to run on texts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.sae.weights_hash import WeightsFile
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class LoadedSae:
    """An SAE on the device of its model."""

    sae_id: str
    lm: "LanguageModel"
    sae: "SparseAutoencoder"
    layer: "HookPoint"
    weights: WeightsFile | None = None  # the file it was read from

    def weights_hash(self) -> str | None:
        """SHA-256 of its weights; None if its file is not known or has been replaced since."""
        return self.weights.sha256() if self.weights is not None else None


def load_for_work(workspace: Workspace, sae_id: str, device: str = "auto") -> LoadedSae:
    """The SAE and the model that its file names.

    Raises NotFoundError for an unknown SAE, UserError when it does not say its model or layer, or
    when they do not fit each other.
    """
    from mi_crow.language_model import LanguageModel

    weights = WeightsFile.of(workspace.sae_dir(sae_id))
    sae, spec = open_sae(workspace, sae_id, device)
    return join(sae_id, LanguageModel.from_spec(spec), sae, weights)


def open_sae(
    workspace: Workspace, sae_id: str, device: str = "auto"
) -> "tuple[SparseAutoencoder, ModelSpec]":
    """The SAE on `device`, and which model it needs. Raises NotFoundError, UserError."""
    from mi_crow.language_model.loading import torch_device
    from mi_crow.mechanistic.sae.formats.load import load_sae

    where = torch_device(device)
    sae = load_sae(workspace.sae_dir(sae_id), where)
    if not sae.metadata.model_name or not sae.metadata.layer_signature:
        raise UserError(
            f"SAE {sae_id!r} does not say its model and layer", hint="import it with --model"
        )
    return sae, ModelSpec(
        sae.metadata.model_name, revision=sae.metadata.revision, device=str(where)
    )


def join(
    sae_id: str,
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    weights: WeightsFile | None = None,
) -> LoadedSae:
    """Checks that the SAE fits its layer in `lm`. Raises NotFoundError, UserError."""
    from mi_crow.mechanistic.sae.centring import set_centring
    from mi_crow.mechanistic.sae.fitting import check_width
    from mi_crow.mechanistic.sae.targets import point_read

    layer = point_read(lm, sae)
    hint = "it belongs to another model or layer"
    name, width = f"layer {layer.name!r}", lm.layers.width(layer)
    check_width(f"SAE {sae_id!r}", sae.n_inputs, name, width, hint)
    set_centring(lm, sae)
    return LoadedSae(sae_id, lm, sae.to(lm.device), layer, weights)
