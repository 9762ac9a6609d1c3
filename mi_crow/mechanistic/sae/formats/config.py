"""What an import needs to know; plain data, torch-free."""

from dataclasses import dataclass

from mi_crow.errors import UserError
from mi_crow.language_model.config import DatasetSpec, ModelSpec

DTYPES = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class CheckConfig:
    """On what an SAE is tried: a model and some of a data set's documents."""

    dataset: DatasetSpec
    documents: int = 64
    context_length: int = 128  # tokens of each

    def __post_init__(self) -> None:
        if self.documents < 1:
            raise UserError(f"documents must be at least 1, not {self.documents}")


@dataclass(frozen=True)
class ImportConfig:
    """One import. `path` is a folder, a file or a hub id; see `load.open_sae_files`."""

    path: str
    name: str | None = None  # the SAE's id; None: after its folder
    layer: str | None = None
    target_layer: str | None = None  # what a transcoder predicts, when its file does not say it
    model: ModelSpec | None = None  # None: the one that the file names
    revision: str | None = None  # of the hub repository
    dtype: str = "auto"  # auto: what the file says, else fp32
    input_scale: float | None = None
    offline: bool = False
    check: CheckConfig | None = None
    device: str = "auto"  # for the check

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"dtype {self.dtype!r} is not known", hint=f"use {', '.join(DTYPES)}")
        if self.input_scale is not None and not self.input_scale > 0:
            raise UserError(f"the input scale must be above 0, not {self.input_scale}")
