"""Reading Llamascopium's cross-layer transcoders: one `sae_weights.safetensors` of all layers.

z_i = h where the rule lets it through, h = s_i x_i W_E[i] + b_E[i]; y_j = (b_D.j + sum over i <= j
of z_i W_D.j[i]) / s_out,j. With `sparsity_include_decoder_norm` the rule looks at h times the norm
of all that the latent writes. The factors s go into the matrices, so that latents keep the file's
units. (llamascopium 2.0.0b34, models/clt.py.)
"""

from pathlib import Path

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.cross_layer.record import TRANSCODER, CrossLayerRecord, LayerRecord
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.formats.marks import LLAMASCOPIUM
from mi_crow.mechanistic.sae.formats.scales import NORM, scale_of
from mi_crow.mechanistic.sae.formats.tensor_files import check_names, check_sizes
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.json_object import JsonObject

_RULES = ("relu", "jumprelu")
_THRESHOLD = "activation_function.log_jumprelu_threshold"


def read_llamascopium_clt(
    cfg: JsonObject, found: dict[str, TensorRef], weights: Path, scaled: bool
) -> CrossLayerRecord:
    """The transcoder of `cfg`, its tensors `found` in the file `weights`; `scaled` says that its
    inputs and outputs are. Raises UserError for a rule and tensors that are not known,
    CorruptDataError when they do not fit each other."""
    rule = cfg.text("act_fn")
    if rule not in _RULES:
        raise UserError(
            f"{cfg.place} describes a cross-layer transcoder with the activation {rule!r}, which "
            "cannot be read",
            hint=f"supported: {', '.join(_RULES)}",
        )
    hooks_in, hooks_out = cfg.texts("hook_points_in"), cfg.texts("hook_points_out")
    n = len(hooks_in)
    if not n or len(hooks_out) != n:
        raise CorruptDataError(f"{cfg.place} names {n} hook points in and {len(hooks_out)} out")
    norms = {name: ref for name, ref in found.items() if name.startswith(NORM)}
    rest = {name: ref for name, ref in found.items() if name not in norms}
    names = ["W_E", "b_E", *(f"{kind}.{at}" for kind in ("W_D", "b_D") for at in range(n))]
    names += [_THRESHOLD] if rule == "jumprelu" else []
    check_names(rest, names, weights, LLAMASCOPIUM.format)
    _check_shapes(rest, n, weights)
    check_sizes(cfg, {"d_model": rest["W_E"].shape[1]})
    by_norm = rule == "jumprelu" and cfg.flag("sparsity_include_decoder_norm", False)
    layers = []
    numbers = [_number(name, cfg) for name in hooks_in]
    factors = [
        scale_of(norms, hook, rest["b_D.0"].shape[0], weights) if scaled else 1.0
        for hook in hooks_out
    ]
    for at, (hook_in, hook_out) in enumerate(zip(hooks_in, hooks_out, strict=True)):
        factor = scale_of(norms, hook_in, rest["W_E"].shape[1], weights) if scaled else 1.0
        own = [rest[f"W_D.{to}"].at(0, at) for to in range(at, n)]
        threshold = None
        if rule == "jumprelu":
            threshold = _threshold(rest[_THRESHOLD].at(0, at), own if by_norm else [])
        layers.append(
            LayerRecord(
                numbers[at],
                point_of(hook_in) or hook_in,
                point_of(hook_out) or hook_out,
                rest["W_E"].at(0, at).t().times(factor),
                rest["b_E"].at(0, at),
                {
                    numbers[at + step]: ref.times(1 / factors[at + step])
                    for step, ref in enumerate(own)
                },
                rest[f"b_D.{at}"].times(1 / factors[at]),
                threshold,
            )
        )
    folded = ("activation_norms",) if scaled else ()
    record = CrossLayerRecord(
        TRANSCODER, tuple(layers), SaeMetadata(folded=folded), format=LLAMASCOPIUM.format
    )
    return record.checked(str(weights))


def _check_shapes(found: dict[str, TensorRef], n: int, path: Path) -> None:
    """Raises CorruptDataError where a tensor is not of `n` layers, or has no dimensions to check
    further."""
    wanted = {"W_E": (3, n), "b_E": (2, n), _THRESHOLD: (2, n)}
    wanted |= {f"W_D.{at}": (3, at + 1) for at in range(n)}
    for name, (dimensions, first) in wanted.items():
        shape = found[name].shape if name in found else (first,) * dimensions
        if len(shape) != dimensions or shape[0] != first or 0 in shape:
            raise CorruptDataError(f"{path} holds {shape} for {name}, which is of {first} layers")
    for at in range(n):
        shape = found[f"b_D.{at}"].shape
        if len(shape) != 1 or 0 in shape:
            raise CorruptDataError(f"{path} holds {shape} for b_D.{at}, which must be a vector")


def _number(hook: str, cfg: JsonObject) -> int:
    number = number_of(point_of(hook))
    if number is None:
        raise UserError(f"{cfg.place} has the hook point {hook!r}, which is not known")
    return number


def _threshold(logarithm: TensorRef, decoders: list[TensorRef]) -> TensorRef:
    """exp(logarithm) [M] for the pre-activations h: h n > t is h > t / n, where n is the norm of
    the latent's rows in all `decoders`."""

    def read(value: Tensor) -> Tensor:
        threshold = value.float().exp()
        if not decoders:
            return threshold
        squares = [ref.read().float().square().sum(dim=1) for ref in decoders]
        return threshold / torch.stack(squares).sum(dim=0).sqrt()  # infinite without any

    return logarithm.map(read)
