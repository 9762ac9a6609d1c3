"""Which layer a transcoder predicts."""

from mi_crow.mechanistic.sae.base import SparseAutoencoder


def target_layer(sae: SparseAutoencoder) -> str | None:
    """The layer whose activations the SAE gives back: what its metadata says for a transcoder
    (None when that says nothing), its own layer for every other SAE."""
    metadata = sae.metadata
    if not sae.transcodes:
        return metadata.layer_signature
    said = metadata.other.get("target_layer") or metadata.other.get("hook_name_out")
    return str(said) if said else None
