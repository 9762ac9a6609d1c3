"""The fields of the form of an import."""

from dataclasses import replace

from mi_crow.bounds import COUNT, SCALE, SIZE
from mi_crow.language_model.config import BOS
from mi_crow.mechanistic.sae.formats.config import DTYPES
from tui.screens.runs.forms.shared import NO, USUAL, device_field
from tui.widgets.forms.fields import Default, FormField

CHECK = "Texts of the check"
_MORE = "More"
AS_SAID = "as its files say"


def import_fields(device: str) -> tuple[FormField, ...]:
    """All of them, the few that everybody needs first."""
    return (
        FormField(
            "path",
            "source",
            hint="hub repository (org/name/folder), folder, or file",
            required=True,
        ),
        FormField(
            "layer",
            "hook point",
            hint="which of several; or where it reads, e.g. resid_post.5",
            empty=None,
            default=Default("", AS_SAID),
            flag="--layer",
        ),
        FormField(
            "model.model",
            "model",
            hint="hub id, folder, .gguf file, or sample",
            empty=None,
            default=Default("", AS_SAID),
            flag="--model",
        ),
        FormField(
            "name",
            "name",
            hint="the id of the new SAE: letters, digits, . _ -",
            empty=None,
            default=Default("", "after the source"),
            flag="--name",
        ),
        FormField(
            "check",
            "check the fit",
            hint="runs texts through the model: FVU, L0, whether another hook point fits better",
            switch=True,
            default=NO,
            flag="--check",
        ),
        *_check_fields(device),
        *_rare_fields(),
    )


def _check_fields(device: str) -> tuple[FormField, ...]:
    return (
        FormField(
            "check.dataset.source",
            "texts",
            hint="file, folder, data set on the hub, or sample",
            default=Default("sample", "comes with mi-crow"),
            section=CHECK,
            flag="--dataset",
        ),
        FormField(
            "check.documents",
            "documents",
            hint="how many",
            bounds=COUNT,
            default=Default("64", USUAL),
            section=CHECK,
            flag="--documents",
        ),
        FormField(
            "check.context_length",
            "context",
            hint="tokens of each document",
            bounds=SIZE,
            default=Default("128", USUAL),
            section=CHECK,
            flag="--context-length",
        ),
        replace(device_field(device), section=CHECK),
    )


def _rare_fields() -> tuple[FormField, ...]:
    return (
        FormField(
            "revision",
            "revision",
            hint="branch, tag or commit of the repository on the hub",
            empty=None,
            default=Default("", "its main branch"),
            section=_MORE,
            flag="--revision",
        ),
        FormField(
            "dtype",
            "weights as",
            hint="the precision of its weights",
            choices=DTYPES,
            closed=True,
            default=Default("auto", "as in its files"),
            section=_MORE,
            flag="--dtype",
        ),
        FormField(
            "target_layer",
            "target layer",
            hint="what a transcoder predicts",
            empty=None,
            default=Default("", AS_SAID),
            section=_MORE,
            flag="--target-layer",
        ),
        FormField(
            "input_scale",
            "input scale",
            hint="what its inputs are multiplied by, when its files do not say it",
            bounds=SCALE,
            empty=None,
            default=Default("", AS_SAID),
            section=_MORE,
            flag="--scale",
        ),
        FormField(
            "bos",
            "BOS in front",
            hint="whether its texts start with a BOS token",
            choices=BOS,
            closed=True,
            default=Default("auto", AS_SAID),
            section=_MORE,
            flag="--bos",
        ),
        FormField(
            "centred",
            "centred",
            hint="yes: it expects centred writing weights, and its files do not say so",
            switch=True,
            default=NO,
            section=_MORE,
            flag="--centred",
        ),
        FormField(
            "offline",
            "offline",
            hint="never use the network",
            switch=True,
            default=NO,
            section=_MORE,
            flag="--offline",
        ),
    )
