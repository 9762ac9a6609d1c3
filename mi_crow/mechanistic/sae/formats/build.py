"""From a record to an SAE: tensors are copied one at a time, then scales are folded."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.architectures import BY_NAME
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.kinds import open_cross_layer
from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord
from mi_crow.mechanistic.sae.cross_layer.refs import check_finite, check_weights
from mi_crow.mechanistic.sae.formats.config import check_scale
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.input_norm import check_input_norm

_EXACT = (torch.float32, torch.float64)


def build(
    record: SaeRecord | CrossLayerRecord,
    place: Path,
    device: str | torch.device,
    dtype: torch.dtype | None = None,
) -> SparseAutoencoder:
    """The SAE of a record, on `device`, without gradients; `place` is for messages.

    `dtype` None is that of the file (float32 where it names none, or where something is folded).
    Raises UserError when k does not fit or a scale is missing, CorruptDataError when tensors do
    not fit each other. Of an SAE over several layers only biases and thresholds are
    read: its matrices are checked when they are.
    """
    if isinstance(record, CrossLayerRecord):
        for layer in record.layers:
            for name, ref in layer.tensors().items():
                if len(ref.shape) == 1:
                    check_finite(ref.read(), name.partition(".")[0], ref.source or place)
        return open_cross_layer(record, place, device, dtype)
    if record.wants_input_scale and record.input_scale is None:
        raise UserError(
            f"{place} is for inputs scaled to a mean norm of sqrt({record.n_inputs}), but does not "
            "give the factor",
            hint="give it with --scale: sqrt(d) / the mean norm of the activations",
        )
    for scale, what in ((record.input_scale, "input"), (record.output_scale, "output")):
        if scale is not None:
            check_scale(scale, f"the {what} scale of {place}")
    if record.apply_b_dec_to_input and record.n_outputs != record.n_inputs:
        raise CorruptDataError(
            f"{place} subtracts a bias of {record.n_outputs} numbers from an input of "
            f"{record.n_inputs}"
        )
    folds = record.input_scale not in (None, 1.0) or record.decoder_norms
    kind = dtype or record.dtype or torch.float32
    exact = kind if kind in _EXACT or not folds else torch.float32
    sae = _empty(record, exact)
    _fill(sae, record, place, device, exact)
    sae.apply_b_dec_to_input = record.apply_b_dec_to_input
    sae.input_norm = check_input_norm(record.input_norm)
    sae.metadata = record.metadata
    # Until a model is loaded, which decides whether it can be (see `centring`).
    sae.centred = record.metadata.centred_weights and not sae.transcodes
    sae.eval().requires_grad_(False)
    if record.decoder_norms:
        sae.fold_decoder_norms()
    if record.input_scale is not None:
        sae.fold_scale(record.input_scale, record.output_scale)
    if folds:
        for name, tensor in sae.state_dict().items():
            check_finite(tensor, name, place)
    return sae.to(dtype) if dtype is not None else sae


def bytes_needed(record: SaeRecord | CrossLayerRecord, dtype: torch.dtype | None = None) -> int:
    """The size of the SAE in memory, and in a file of ours."""
    if isinstance(record, CrossLayerRecord):
        return record.numbers() * (dtype or record.dtype or torch.float32).itemsize
    items = 0
    for tensor in record.tensors.values():
        size = 1
        for length in tensor.shape:
            size *= length
        items += size
    return items * (dtype or record.dtype or torch.float32).itemsize


def _empty(record: SaeRecord, dtype: torch.dtype) -> SparseAutoencoder:
    """The SAE on the meta device: shapes without data."""
    row, options = BY_NAME[record.architecture], dict[str, Any](record.options)
    if record.k is not None:
        options["k"] = record.k
    if record.widths is not None:
        options["widths"] = record.widths
    if row.transcodes:
        options |= {"n_outputs": record.n_outputs, "skip": "W_skip" in record.tensors}
    return row.load()(record.n_latents, record.n_inputs, device="meta", dtype=dtype, **options)


@torch.no_grad()
def _fill(
    sae: SparseAutoencoder,
    record: SaeRecord,
    place: Path,
    device: str | torch.device,
    dtype: torch.dtype,
) -> None:
    """Moves the record's tensors into the SAE, with one copy of each, made on the device."""
    wanted = {name: tuple(tensor.shape) for name, tensor in sae.state_dict().items()}
    for name in sorted(wanted.keys() | record.tensors.keys()):
        found = record.tensors[name].shape if name in record.tensors else "nothing"
        if found != wanted.get(name, "nothing"):
            raise CorruptDataError(
                f"{place} holds {found} for {name}, but an SAE of {record.n_latents} latents "
                f"and {record.n_inputs} inputs has {wanted.get(name, 'nothing')}"
            )
    state: dict[str, Tensor] = {}
    for name, shape in wanted.items():
        state[name] = torch.empty(shape, device=device, dtype=dtype)
        found = record.tensors[name].read()
        check_weights(found, name, place)
        state[name].copy_(found)
        check_finite(state[name], name, place)
    sae.load_state_dict(state, assign=True)
