"""Writing an SAE in the SAELens layout: what a workspace keeps, and what SAELens reads."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME
from mi_crow.store.atomic import whole_file, write_json
from mi_crow.store.checksums import sum_of

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SparseAutoencoder

# What every cfg.json that we write says of itself: from 6.0 on, `metadata` is an object.
LAYOUT_VERSION = "6.0.0"


def save_sae(sae: "SparseAutoencoder", folder: Path) -> Path:
    """Writes the weights, then `cfg.json`: a folder with a `cfg.json` is complete."""
    with whole_file(folder / WEIGHTS_NAME) as path:
        tensors = sae.weights().items()
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors}, path)
    config = config_of(sae)
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
    """The architecture's name in SAELens files, which tells a `skip_transcoder` from others."""
    name = sae.stored_as or sae.architecture
    return name.replace("transcoder", "skip_transcoder") if sae.W_skip is not None else name
