"""Settings of an import and an export: plain data, torch-free."""

from dataclasses import dataclass

from mi_crow.bounds import SCALE
from mi_crow.errors import UserError
from mi_crow.language_model.config import DatasetSpec, ModelSpec, check_bos
from mi_crow.mechanistic.sae.formats.marks import EXPORTED
from mi_crow.paths import expanded

WHERE = "give a folder that holds cfg.json, an SAE's file, or a hub id (org/name/folder)"
DTYPES = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class CheckConfig:
    """What an SAE is tried on: some documents of a data set."""

    dataset: DatasetSpec
    documents: int = 64
    context_length: int = 128  # tokens per document
    tokens: int | None = None  # documents until there are so many, instead of `documents`

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise UserError(f"tokens must be at least 1, not {self.tokens}")
        if self.documents < 1:
            raise UserError(f"documents must be at least 1, not {self.documents}")


@dataclass(frozen=True)
class ImportConfig:
    """One import. `path` is a folder, a file or a hub id; see `load.open_sae_files`."""

    path: str
    name: str | None = None  # the SAE's id; None: from the name of its folder
    layer: str | None = None
    target_layer: str | None = None  # what a transcoder predicts, if its file does not say it
    model: ModelSpec | None = None  # None: the one that the file names
    revision: str | None = None  # of the hub repository
    dtype: str = "auto"  # auto: as in the file, else fp32
    input_scale: float | None = None
    offline: bool = False
    check: CheckConfig | None = None
    device: str = "auto"  # for the check
    centred: bool = (
        False  # it was made for centred writing weights, though its file does not say so
    )
    bos: str = "auto"  # whether its texts start with a BOS token; auto: as in the file
    names: bool = False  # Neuronpedia's explanations come in as concepts

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError("there is no path to import from", hint=WHERE)
        if self.dtype not in DTYPES:
            raise UserError(f"dtype {self.dtype!r} is not known", hint=f"use {', '.join(DTYPES)}")
        check_bos(self.bos)
        if self.input_scale is not None:
            check_scale(self.input_scale, "the input scale")


@dataclass(frozen=True)
class ExportConfig:
    """One export: an SAE of the workspace as files for other tools."""

    sae_id: str
    path: str  # the new folder
    format: str = "saelens"
    also: tuple[str, ...] = ()  # further SAEs of a set of circuit-tracer, one a layer

    def __post_init__(self) -> None:
        if self.also and self.format != "circuit-tracer":
            raise UserError(
                f"{self.format} has no sets of SAEs",
                hint="export one at a time, or use --format circuit-tracer",
            )
        if len({self.sae_id, *self.also}) != 1 + len(self.also):
            raise UserError("an SAE of the set is named twice")
        if self.format not in EXPORTED:
            known = ", ".join(EXPORTED)
            raise UserError(f"format {self.format!r} is not known", hint=f"use {known}")


def path_for_a_job(path: str) -> str:
    """A path on this machine as an absolute one, which a job finds from wherever it is resumed; a
    hub id as it is."""
    local = expanded(path)
    return str(local.absolute()) if local.exists() else path


def check_scale(scale: float, what: str) -> float:
    """`scale` if inputs may have been scaled by it, sqrt(d) / their mean norm: any other would make
    biases vanish or overflow. Raises UserError."""
    if isinstance(scale, bool):
        raise UserError(f"{what} must be a number, not {scale}")
    SCALE.check(scale, what)
    return scale
