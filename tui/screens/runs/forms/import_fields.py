"""The fields of the form of an import."""

from dataclasses import replace

from mi_crow.bounds import COUNT, SCALE, SIZE
from mi_crow.language_model.config import BOS
from mi_crow.mechanistic.sae.formats.config import DTYPES
from tui.screens.runs.forms.parameters import FieldsOf
from tui.screens.runs.forms.shared import MODEL_HINT, TEXTS_HINT, device_field
from tui.widgets.forms.fields import Default, FormField

CHECK = "Texts of the check"
AS_SAID = "as its files say"


def import_fields(ask: FieldsOf, device: str) -> tuple[FormField, ...]:
    """All of them, the few that everybody needs first."""
    where = "hub repository (org/name/folder), folder, or file"
    point = "which of several; or where it reads, e.g. resid_post.5"
    name = "the id of the new SAE: letters, digits, . _ -"
    fit = "runs texts through the model: FVU, L0, whether another hook point fits better"
    return (
        ask("path", "source", where, required=True, flag=""),
        ask("layer", "hook point", point, why=AS_SAID),
        ask("model.model", "model", MODEL_HINT, why=AS_SAID, empty=None),
        ask("name", "name", name, why="after the source"),
        ask("check", "check the fit", fit, switch=True, default=Default("no")),
        *_check_fields(replace(ask, section=CHECK), device),
        *_rare_fields(replace(ask, section="More")),
    )


def _check_fields(ask: FieldsOf, device: str) -> tuple[FormField, ...]:
    sample = Default("sample", "comes with mi-crow")
    return (
        ask("check.dataset.source", "texts", TEXTS_HINT, default=sample),
        ask("check.documents", "documents", "how many", COUNT),
        ask(
            "check.tokens",
            "tokens",
            "as many documents as have these, instead",
            COUNT,
            "by documents",
        ),
        ask("check.context_length", "context", "tokens of each document", SIZE),
        device_field(ask, device),
    )


def _rare_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    revision = "branch, tag or commit of the repository on the hub"
    precision, files = "the precision of its weights", "as in its files"
    scale = "what its inputs are multiplied by, when its files do not say it"
    bos = "whether its texts start with a BOS token"
    centred = "yes: it expects centred writing weights, and its files do not say so"
    names = "Neuronpedia's explanations come in as concepts, where it has some"
    return (
        ask("names", "names", names, switch=True, default=Default("no")),
        ask("revision", "revision", revision, why="its main branch"),
        ask("dtype", "weights as", precision, why=files, choices=DTYPES),
        ask("target_layer", "target layer", "what a transcoder predicts", why=AS_SAID),
        ask("input_scale", "input scale", scale, SCALE, AS_SAID),
        ask("bos", "BOS in front", bos, why=AS_SAID, choices=BOS),
        ask("centred", "centred", centred),
        ask("offline", "offline", "never use the network"),
    )
