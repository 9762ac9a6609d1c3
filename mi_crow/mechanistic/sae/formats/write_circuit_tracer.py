"""Writing transcoders for circuit-tracer: `layer_<i>.safetensors` of each layer, or a CLT's
`W_enc_<i>` and `W_dec_<i>.safetensors`, beside a `config.yaml` that names the hook points.

The configuration is written as JSON, which is YAML too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.hook_points.names import number_of, transformer_lens_name
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.record import CROSSCODER
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.formats.marks import CIRCUIT_TRACER, CIRCUIT_TRACER_CLT
from mi_crow.mechanistic.sae.formats.sparsify import check_plain_input
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.mechanistic.sae.targets import target_layer
from mi_crow.store.atomic import write_json

FORMAT = CIRCUIT_TRACER.format

_RULES = ("transcoder", "jumprelu_transcoder")


def check_set(saes: Mapping[str, SparseAutoencoder]) -> None:
    """Raises UserError with the reason for SAEs, by their ids, that are no set of circuit-tracer:
    one cross-layer transcoder, or transcoders with a ReLU of one layer each, all of one model and
    kind of hook points."""
    if any(isinstance(sae, CrossLayerSae) for sae in saes.values()):
        _check_clt(saes)
        return
    for sae in saes.values():
        if sae.architecture not in _RULES:
            raise UserError(
                f"{FORMAT} has no SAEs of architecture {sae.architecture!r}",
                hint=f"it has {', '.join(_RULES)} and cross_layer_transcoder",
            )
        check_plain_input(sae, FORMAT)
    _numbers(saes)
    _hooks(saes)


def write_set(saes: Mapping[str, SparseAutoencoder], folder: Path) -> None:
    """Writes the files of a set into `folder`, which exists. Raises UserError."""
    check_set(saes)
    [first, *_] = saes.values()
    if isinstance(first, CrossLayerSae):
        _write_clt(first, folder)
        return
    for number, sae in zip(_numbers(saes), saes.values(), strict=True):
        _save(_tensors(sae), folder / CIRCUIT_TRACER.weights.format(number))
    _write_config(folder, first.metadata.model_name, "transcoder_set", _hooks(saes))


def _tensors(sae: SparseAutoencoder) -> dict[str, Tensor]:
    bias = sae.b_enc.detach()
    if sae.apply_b_dec_to_input:  # nothing is subtracted there
        bias = bias - sae.encoder_rows.detach() @ sae.b_dec.detach()
    found = {"W_enc": sae.encoder_rows, "b_enc": bias, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    if sae.W_skip is not None:
        found["W_skip"] = sae.W_skip
    threshold = getattr(sae, "threshold", None)
    if threshold is not None:
        found["activation_function.threshold"] = threshold
    return found


def _numbers(saes: Mapping[str, SparseAutoencoder]) -> list[int]:
    """The layer of each. Raises UserError where one does not say it, and for one that is there
    twice."""
    found: dict[int, str] = {}
    for name, sae in saes.items():
        number = number_of(sae.metadata.point) if sae.metadata.point else None
        if number is None:
            raise UserError(f"{FORMAT} names files by layer, and SAE {name!r} is of none")
        if number in found:
            raise UserError(f"SAEs {found[number]!r} and {name!r} are both of layer {number}")
        found[number] = name
    return [*found]


def _hooks(saes: Mapping[str, SparseAutoencoder]) -> tuple[str, str]:
    """The hook points, in and out, of all: their names within a block."""
    kinds = {}
    for name, sae in saes.items():
        written = target_layer(sae) or ""
        kinds[name] = (_hook(sae.metadata.point, name), _hook(point_of(written) or written, name))
    models = {name: sae.metadata.model_name for name, sae in saes.items()}
    for what, found in (("hook points", kinds), ("models", models)):
        if len({*found.values()}) > 1:
            raise UserError(
                f"the SAEs {', '.join(saes)} are of different {what}: a set has one for all layers"
            )
    return next(iter(kinds.values()))


def _hook(point: str, name: str) -> str:
    """`hook_mlp_out` for `mlp_out.3`. Raises UserError."""
    known = transformer_lens_name(point)
    if not known.startswith("blocks."):
        raise UserError(
            f"{FORMAT} has no name for the hook point {point!r} of SAE {name!r}",
            hint="import it again with --layer or --target-layer, such as mlp_in.3 or mlp_out.3",
        )
    return known.split(".", 2)[2]


def _check_clt(saes: Mapping[str, SparseAutoencoder]) -> None:
    if len(saes) > 1:
        raise UserError(
            "an SAE over several layers is a whole set already", hint="export only that SAE"
        )
    [(name, sae)] = saes.items()
    assert isinstance(sae, CrossLayerSae)
    if sae.architecture == CROSSCODER:
        raise UserError(f"{FORMAT} has no crosscoders", hint="it has cross-layer transcoders")
    layers = sae.record.layers
    numbers = [layer.number for layer in layers]
    if numbers != [*range(len(numbers))]:
        raise UserError(f"{FORMAT} has CLTs of all layers from 0, SAE {name!r} has {numbers}")
    if any(layer.W_skip is not None for layer in layers):
        raise UserError(f"{FORMAT} has no CLTs with skip connections in these files")
    if any([*layer.decoders] != numbers[layer.number :] for layer in layers):
        raise UserError(f"{FORMAT} has CLTs that write to every later layer, {name!r} does not")
    if len({layer.threshold is None for layer in layers}) > 1:
        raise UserError(f"SAE {name!r} has thresholds at some layers only")
    _clt_hooks(sae, name)


def _clt_hooks(sae: CrossLayerSae, name: str) -> tuple[str, str]:
    reads = {_hook(point, name) for point in sae.layers}
    writes = {_hook(point, name) for point in sae.target_layers}
    if len(reads) > 1 or len(writes) > 1:
        raise UserError(f"the layers of SAE {name!r} have hook points of different kinds")
    return reads.pop(), writes.pop()


def _write_clt(sae: CrossLayerSae, folder: Path) -> None:
    """Two files a layer, with one layer in memory."""
    for layer in sae.record.layers:
        at = layer.number
        found = {
            f"W_enc_{at}": layer.encoder_rows.read(),
            f"b_enc_{at}": layer.b_enc.read(),
            f"b_dec_{at}": layer.b_dec.read(),
        }
        if layer.threshold is not None:
            found[f"threshold_{at}"] = layer.threshold.read()
        _save(found, folder / f"W_enc_{at}.safetensors")
        rows: Sequence[Tensor] = [ref.read() for ref in layer.decoders.values()]
        _save({f"W_dec_{at}": torch.stack([*rows], dim=1)}, folder / f"W_dec_{at}.safetensors")
    hooks = _clt_hooks(sae, "")
    _write_config(folder, sae.metadata.model_name, "cross_layer_transcoder", hooks)


def _write_config(folder: Path, model: str, kind: str, hooks: tuple[str, str]) -> None:
    config = {
        "model_name": model,
        "model_kind": kind,
        "feature_input_hook": hooks[0],
        "feature_output_hook": hooks[1],
    }
    write_json(folder / CIRCUIT_TRACER_CLT.config, config)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, path)
