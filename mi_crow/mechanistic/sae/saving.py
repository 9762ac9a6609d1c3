"""Writing an SAE in the SAELens layout: what a workspace keeps, and what SAELens reads."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.architectures import with_skip
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME
from mi_crow.store.atomic import whole_file, write_json
from mi_crow.store.checksums import sum_of

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SparseAutoencoder

# What every cfg.json that we write says of itself: from 6.0 on, `metadata` is an object.
LAYOUT_VERSION = "6.0.0"


def save_sae(sae: "SparseAutoencoder", folder: Path) -> Path:
    """Writes the weights, then `cfg.json`: a folder with a `cfg.json` is complete."""
    config = config_of(sae)
    with whole_file(folder / WEIGHTS_NAME) as path:
        tensors = sae.weights().items()
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors}, path)
    config["metadata"]["mi_crow"]["weights"] = asdict(sum_of(folder / WEIGHTS_NAME))
    write_json(folder / CONFIG_NAME, config)
    return folder


def config_of(sae: "SparseAutoencoder") -> dict[str, Any]:
    """`cfg.json` of an SAE."""
    metadata = sae.metadata.as_json()
    own = sae.config()
    if sae.stored_as is not None:
        metadata["mi_crow"]["trained_as"] = {"architecture": sae.architecture, **own}
        own = {}
    # Heads are one after another in our activations; SAELens has them in a dimension of their own.
    heads = sae.metadata.hook_name.endswith("hook_z")
    return {
        "architecture": saelens_name(sae),
        "d_in": sae.n_inputs,
        "d_sae": sae.n_latents,
        **({"d_out": sae.n_outputs} if sae.transcodes else {}),
        **own,
        "dtype": str(sae.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": sae.input_norm,
        "reshape_activations": "hook_z" if heads else "none",
        "sae_lens_version": LAYOUT_VERSION,
        "metadata": metadata,
    }


def saelens_name(sae: "SparseAutoencoder") -> str:
    """The architecture's name in SAELens files, which tells a `skip_transcoder` from others.

    Raises UserError for a skip connection that no SAELens file of this architecture has.
    """
    name = sae.stored_as or sae.architecture
    if sae.W_skip is None:
        return name
    if not name.endswith("transcoder"):
        raise UserError(
            f"an SAE of architecture {sae.architecture!r} cannot be saved with a skip connection",
            hint="use a transcoder",
        )
    return with_skip(name)
