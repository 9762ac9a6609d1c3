"""Writing an SAE in the SAELens layout: what a workspace keeps, and what SAELens reads."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.formats.saelens_names import (
    ARCHITECTURES,
    CONFIG_NAME,
    LAYOUT_VERSION,
    WEIGHTS_NAME,
)
from mi_crow.store.atomic import whole_file, write_json
from mi_crow.store.checksums import sum_of

# Their threshold is the rule of inference, so other tools read them as JumpReLU.
_AS_JUMPRELU = ("batchtopk", "matryoshka")


def save_sae(sae: SparseAutoencoder, folder: Path) -> Path:
    """Writes the weights, then `cfg.json`: a folder that holds `cfg.json` is whole."""
    with whole_file(folder / WEIGHTS_NAME) as path:
        tensors = sae.weights().items()
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors}, path)
    config = config_of(sae)
    config["metadata"]["mi_crow"]["weights"] = asdict(sum_of(folder / WEIGHTS_NAME))
    write_json(folder / CONFIG_NAME, config)
    return folder


def config_of(sae: SparseAutoencoder) -> dict[str, Any]:
    """`cfg.json` of an SAE."""
    metadata = sae.metadata.as_json()
    own = sae.config()
    if sae.architecture in _AS_JUMPRELU:
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


def saelens_name(sae: SparseAutoencoder) -> str:
    """The architecture's name in SAELens files."""
    if sae.architecture in _AS_JUMPRELU:
        return "jumprelu"
    names = [name for name, ours in ARCHITECTURES.items() if ours == sae.architecture]
    return next(name for name in names if ("skip_" in name) == (sae.W_skip is not None))
