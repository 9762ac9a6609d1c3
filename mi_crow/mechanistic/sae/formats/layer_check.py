"""Whether the hook points that a user names for an SAE exist in its model.

Only the structure of the model is built: no weights are read and nothing is downloaded.
"""

from typing import Any

from mi_crow.errors import NotFoundError, nearest
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.sae.fitting import check_width
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.hook_names import module_of, point_of

OTHER_PLACE = "name another layer with --layer or another model with --model"
# Points as wide as the model.
_MODEL_WIDE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def check_named_layers(record: SaeRecord, config: ImportConfig, file_point: str) -> tuple[str, ...]:
    """Checks `--layer` and `--target-layer`; returns a sentence on what could not be checked.

    `file_point` is the hook point that the file names. Raises NotFoundError for a layer that the
    model does not have, UserError for one of another width.
    """
    layers: list[tuple[str, int, bool]] = []
    if config.layer is not None and _overrides_file(config.layer, record, file_point):
        layers.append((config.layer, record.n_inputs, False))
    if config.target_layer is not None:
        layers.append((config.target_layer, record.n_outputs, True))
    if not layers:
        return ()
    model, name = _structure(record, config)
    if model is None:
        names = " and ".join(repr(layer) for layer, _, _ in layers)
        reason = f"its model {name!r} is not on this machine" if name else "its model is unknown"
        return (f"{names} was not checked: {reason}",)
    for layer, size, outputs in layers:
        check_layer(model, layer, size, outputs=outputs)
    return ()


def _overrides_file(layer: str, record: SaeRecord, file_point: str) -> bool:
    """Whether `layer` sets the SAE's hook point, rather than its file."""
    point = point_of(layer)
    if point:
        return point != file_point or bool(module_of(layer))
    return layer == record.metadata.layer  # otherwise it only chose a folder


def check_layer(model: Any, layer: str, size: int, *, outputs: bool = False) -> None:
    """Checks the layer whose activations of width `size` an SAE reads, or with `outputs` predicts.

    Raises NotFoundError or UserError.
    """
    names = [name for name, _ in model.named_modules() if name]
    config = model.config.get_text_config()
    blocks: int | None = getattr(config, "num_hidden_layers", None)
    point, module = point_of(layer), module_of(layer)
    kind, _, number = point.rpartition(".")
    missing = blocks is not None and number.isdigit() and int(number) >= blocks
    if not point or module:
        missing = missing or layer.removesuffix(".input") not in names
    if missing:
        examples = [f"{kind or 'resid_post'}.{n}" for n in range(blocks or 0)]
        hint = nearest(layer, names if not point else [*examples[len(examples) // 2 :], *examples])
        raise NotFoundError(
            f"layer {layer!r} not found",
            hint=f"{blocks} layers, e.g. {hint}" if blocks is not None else f"e.g. {hint}",
        )
    hidden: int | None = getattr(config, "hidden_size", None)
    if kind in _MODEL_WIDE and hidden is not None:
        where = f"layer {layer!r} of the model"
        check_width("the SAE", size, where, hidden, OTHER_PLACE, outputs=outputs)


def _structure(record: SaeRecord, config: ImportConfig) -> tuple[Any | None, str]:
    """The model without weights (None when it is not on this machine), and its name."""
    from mi_crow.language_model.loading import load_structure

    spec = config.model
    if spec is not None:
        return load_structure(spec), spec.model
    name = record.metadata.model_name
    if not name:
        return None, ""
    try:
        return load_structure(ModelSpec(name, revision=record.metadata.revision)), name
    except NotFoundError:  # a folder on the machine where the file was made
        return None, name
