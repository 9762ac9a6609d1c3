"""The configuration of a capture: plain data, torch-free, shared by command line, jobs and app."""

from dataclasses import dataclass, fields
from typing import ClassVar

from mi_crow.bounds import COUNT, SEED, SIZE, Limits, Words, check_fields
from mi_crow.errors import UserError

STORAGE_DTYPES = ("fp32", "bf16", "fp16", "int8")
LONG_DOCUMENTS = ("truncate", "split")
BOS = ("auto", "yes", "no")
QUANTIZED = ("8bit", "4bit")  # with bitsandbytes
MODEL_DTYPES = ("auto", "fp32", "bf16", "fp16", *QUANTIZED)


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how to load it."""

    model: str  # hub id, folder, or `sample`, the small model that comes with mi-crow
    gguf_file: str | None = None
    revision: str | None = None
    dtype: str = "auto"  # of MODEL_DTYPES: what the model computes in, or what its weights are in
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps | spread: over GPUs and host memory
    offline: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True)
class DatasetSpec:
    """Which texts. `source` is a file, a folder, a hub id, or `sample`."""

    source: str
    split: str = "train"
    text_field: str = "text"
    label_field: str | None = None  # None: use `label` if the data has it
    limit: int | None = None  # documents
    token_limit: int | None = None  # kept tokens; the run stops after the document that reaches it
    sample_seed: int | None = None  # a random sample of `limit` documents instead of the first
    streaming: bool = False  # read a hub data set as it arrives, without a copy on the disk

    LIMITS: ClassVar[Limits] = {
        "limit": ("limit", COUNT),
        "token_limit": ("token limit", COUNT),
        "sample_seed": ("the seed of the sample", SEED),
    }

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class CaptureConfig:
    """One capture: model, texts, hook points, and what is stored."""

    model: ModelSpec
    dataset: DatasetSpec
    layers: tuple[str, ...]  # module names or short names
    dtype: str = "bf16"  # of storage; int8 has one scale per token
    context_length: int = 128  # tokens per row through the model, special tokens included
    long_documents: str = "truncate"  # to the context, or `split` into windows of it
    pack: bool = False  # several short documents per row, the end-of-text token between them
    batch_size: int | None = None  # documents per forward pass; None: what suits the device
    shard_size: int = 512  # documents per part
    keep_special: bool = False
    bos: str = "auto"  # a BOS token in front of each row: as the tokenizer does, yes, no
    name: str | None = None
    seed: int = 0
    tensor_parallel: bool = False  # several processes split the model instead of the documents

    LIMITS: ClassVar[Limits] = {
        "dtype": ("storage dtype", Words(STORAGE_DTYPES)),
        "long_documents": ("long documents", Words(LONG_DOCUMENTS)),
        "context_length": ("context length", SIZE),
        "batch_size": ("batch size", SIZE),
        "shard_size": ("shard size", SIZE),
        "seed": ("the seed", SEED),
    }

    def __post_init__(self) -> None:
        if not self.layers:
            raise UserError("no layer given", hint="name at least one, e.g. --layer resid_post.2")
        check_fields(self)
        if self.long_documents not in LONG_DOCUMENTS:
            raise UserError(
                f"long documents cannot be {self.long_documents!r}",
                hint=f"use {' or '.join(LONG_DOCUMENTS)}",
            )
        check_bos(self.bos)


@dataclass(frozen=True)
class LiveTexts:
    """Texts that go through the model for an SAE to read, in place of a run; the fields are those
    of a CaptureConfig."""

    dataset: DatasetSpec
    model: ModelSpec | None = None  # None: the model of the SAE
    context_length: int = 128
    long_documents: str = "truncate"
    pack: bool = False
    keep_special: bool = False
    bos: str = "auto"  # auto: as the SAE was trained
    batch_size: int | None = None
    shard_size: int = 512

    def capture(self, model: ModelSpec, layers: tuple[str, ...]) -> CaptureConfig:
        """The capture that would write the same activations. Raises UserError."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return CaptureConfig(**own | {"model": model, "layers": layers})


def check_bos(bos: str) -> None:
    """Raises UserError for a value other than auto, yes and no."""
    if bos not in BOS:
        raise UserError(f"a BOS token cannot be {bos!r}", hint=f"use {', '.join(BOS)}")
