"""Hook points of one kind in every layer: `resid_mid` for `resid_mid.0`, `resid_mid.1`, ..."""

from dataclasses import replace

from mi_crow.errors import UserError
from mi_crow.language_model.hook_points.block import KINDS, NORMALISED
from mi_crow.mechanistic.sae.cross_layer.record import CROSSCODER, CrossLayerRecord

_NORMALISED = tuple(f"{norm}.hook_normalized" for norm in NORMALISED.values())
POINT_KINDS = ("resid_pre", *KINDS, "resid_post", *_NORMALISED)


def at_block(kind: str, number: int) -> str:
    """The hook point of a kind in the block `number`."""
    return f"blocks.{number}.{kind}" if kind in _NORMALISED else f"{kind}.{number}"


def kind_of(point: str, number: int) -> str:
    """The kind of a hook point of the block `number`; '' for one that is of none."""
    return next((kind for kind in POINT_KINDS if at_block(kind, number) == point), "")


def moved(record: CrossLayerRecord, read: str | None, written: str | None) -> CrossLayerRecord:
    """The SAE with other kinds of hook points in each of its layers; a crosscoder predicts what it
    reads. Raises UserError for what is not a kind, and for a crosscoder of two models."""
    if record.models:
        raise UserError(
            "a crosscoder of two models names its hook points itself: it takes no --layer",
            hint="leave it out",
        )
    for kind, option in ((read, "layer"), (written, "target-layer")):
        if kind is not None and kind not in POINT_KINDS:
            raise UserError(
                f"an SAE over several layers takes --{option} KIND of hook point, not {kind!r}",
                hint=f"one of {', '.join(POINT_KINDS)}: its files name the layers",
            )
    if record.architecture == CROSSCODER:
        if written is not None and written != read:
            raise UserError(
                "a crosscoder predicts what it reads: it takes no --target-layer",
                hint="give only --layer",
            )
        written = read
    layers = tuple(
        replace(
            layer,
            read=at_block(read, layer.number) if read else layer.read,
            written=at_block(written, layer.number) if written else layer.written,
        )
        for layer in record.layers
    )
    return replace(record, layers=layers).checked("the SAE")
