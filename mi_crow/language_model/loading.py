"""From a model's specification to a model and its tokenizer, with one clear sentence on failure."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch

from mi_crow.causes import machine_error, out_of_memory
from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.hub import first_line, hub_answers, hub_error, quiet_downloads
from mi_crow.language_model.config import MODEL_DTYPES, QUANTIZED, ModelSpec
from mi_crow.language_model.model_names import model_asked_for
from mi_crow.language_model.outline import place_of
from mi_crow.language_model.placement.devices import check_room, main_device, placement
from mi_crow.language_model.placement.memory import (
    Expected,
    auto_dtype,
    expected_weights,
    published_weights,
)
from mi_crow.language_model.placement.tensor_parallel import split_options
from mi_crow.paths import expanded
from mi_crow.store.settings import SPREAD, UserSettings

SAMPLE = "sample"
# Before a model's name: the same architecture and tokenizer with untrained weights.
RANDOM = "random:"
_RANDOM_SEED = 0
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
_TOKENIZERS = ("tokenizer*", "vocab*", "spiece.model", "*.tiktoken", "tekken.json")


@dataclass(frozen=True)
class Loaded:
    """A model ready to run."""

    model: Any
    tokenizer: Any
    device: torch.device
    revision: str | None
    model_id: str  # loads the same model again, from any working folder


@dataclass(frozen=True)
class Source:
    """Where a model's files are."""

    place: str  # folder, or hub id
    gguf_file: str | None
    model_id: str
    local: bool


def torch_device(name: str | torch.device | None) -> torch.device:
    """The device meant by `name`; `auto` is CUDA, then MPS, then CPU; of a model that is spread the
    first. Raises UserError."""
    if name is None or name in ("auto", SPREAD):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"device {name!r} is not known", hint=f"use cpu, cuda, cuda:N, mps or {SPREAD}"
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            there = (
                f"there are {count} CUDA devices" if count else "this machine has no CUDA device"
            )
            raise UserError(
                f"device {str(name)!r} is not available", hint=f"{there}; {_use_another(name)}"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not available", hint=_use_another(name))
    return device


def _use_another(device: str | torch.device) -> str:
    """What to do about a device that there is not, whoever named it."""
    with suppress(MiCrowError):
        if UserSettings.load().text("device") == str(device):
            return "config.toml names it: mi-crow config set device auto, or use --device auto"
    return "use --device auto"


def load_model(spec: ModelSpec, split_over: int = 1) -> Loaded:
    """Loads model and tokenizer from a hub id, a folder, a .gguf file, or `sample`; only its part
    where so many processes, which all call it, split the model.

    `random:` before any of these leaves the weights as they are initialised: a control, since
    what an SAE finds there comes from the tokens and the architecture alone (Heap et al. 2025,
    "Sparse autoencoders can interpret randomly initialized transformers").

    In `auto` dtype the model computes in bf16 on CUDA, and on CPUs with bf16 products where the
    weights are bf16 too; else in fp32. The hub is asked once whether it answers; when it does not,
    or with `spec.offline`, only local files are looked at.
    Raises NotFoundError or UserError in one sentence.
    """
    device = torch_device(spec.device)
    if spec.dtype not in MODEL_DTYPES:
        raise UserError(
            f"model dtype {spec.dtype!r} is not known", hint=f"use {', '.join(MODEL_DTYPES)}"
        )
    untrained = spec.model.startswith(RANDOM)
    spec = replace(spec, model=spec.model.removeprefix(RANDOM))
    source = locate(spec)
    if untrained and (spec.dtype in QUANTIZED or spec.device == SPREAD or split_over > 1):
        raise UserError(
            "a model with random weights is neither quantized nor spread over devices",
            hint="leave out --quantize, --device-map and --tensor-parallel",
        )
    gguf = source.gguf_file is not None
    placed = {} if split_over > 1 else placement(spec, device, gguf)
    asked = not source.local and not spec.offline and hub_answers()
    options: dict[str, Any] = {
        "local_files_only": not asked,
        "trust_remote_code": spec.trust_remote_code,
    }
    if source.gguf_file is not None:
        options["gguf_file"] = source.gguf_file
    if not source.local and spec.revision is not None:
        options["revision"] = spec.revision
    with _quiet(), _one_sentence(spec, source, asked):
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        config = AutoConfig.from_pretrained(source.place, **options)
        dtype = _compute_dtype(spec, device, config)
        tokenizer = AutoTokenizer.from_pretrained(source.place, **options)
        model: Any
        if untrained:
            model = _untrained(AutoModelForCausalLM, config, dtype, spec.trust_remote_code)
        else:
            if split_over > 1:
                placed = split_options(spec, config, device, split_over, gguf)
            check_room(spec, _weights(spec, source, dtype, asked), device, split_over)
            model = AutoModelForCausalLM.from_pretrained(
                source.place, config=config, dtype=dtype, **placed, **options
            )
    with _fitting(spec, device):
        model.eval().requires_grad_(False)
        if split_over > 1:
            device = model.device
        elif placed:
            device = main_device(model, device)
        else:
            model.to(device)
    revision = getattr(model.config, "_commit_hash", None) or options.get("revision")
    model_id = f"{RANDOM}{source.model_id}" if untrained else source.model_id
    return Loaded(model, tokenizer, device, revision, model_id)


def _weights(spec: ModelSpec, source: Source, dtype: torch.dtype, asked: bool) -> Expected | None:
    """What a model's weights will take, by files that are here, or else on the hub, if that is
    asked; None where they do not say."""
    if source.gguf_file is not None:
        return None
    names = {value: name for name, value in _DTYPES.items()}
    kind = spec.dtype if spec.dtype in QUANTIZED else names[dtype]
    folder = Path(source.place) if source.local else place_of(source.place, spec.revision)
    here = folder is not None and folder.is_dir()
    found = expected_weights(folder, kind, "") if here and folder is not None else None
    if found is None and asked:
        return published_weights(source.place, spec.revision, kind, "")
    return found


def load_structure(spec: ModelSpec) -> Any | None:
    """The model without weights or tokenizer, from local files only: its modules and
    its configuration. None when they are not on this machine, or in a .gguf file.

    Raises NotFoundError or UserError in one sentence for a model that cannot be.
    """
    spec = replace(spec, model=spec.model.removeprefix(RANDOM), offline=True)
    source = locate(spec)
    if source.gguf_file is not None or not _has_config(source, spec.revision):
        return None
    options: dict[str, Any] = {} if source.local else {"revision": spec.revision}
    with _quiet(), _one_sentence(spec, source, False):
        from transformers import AutoConfig, AutoModelForCausalLM

        trusted = spec.trust_remote_code
        config = AutoConfig.from_pretrained(
            source.place, local_files_only=True, trust_remote_code=trusted, **options
        )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)


def _has_config(source: Source, revision: str | None) -> bool:
    if source.local:
        return (Path(source.place) / "config.json").is_file()
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source.place, "config.json", revision=revision)
    except HFValidationError:  # a name that no repository of the hub has
        return False
    return isinstance(found, str)


def _untrained(kind: Any, config: Any, dtype: torch.dtype, trusted: bool) -> Any:
    """A model of this architecture with random weights, the same ones every time."""
    config = copy(config)
    if hasattr(config, "quantization_config"):  # of the weights that are not taken
        del config.quantization_config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        return kind.from_config(config, dtype=dtype, trust_remote_code=trusted)


def _compute_dtype(spec: ModelSpec, device: torch.device, config: Any) -> torch.dtype:
    """The dtype asked for, in `auto` what suits model and device."""
    if spec.dtype in _DTYPES:
        return _DTYPES[spec.dtype]
    if spec.dtype in QUANTIZED:
        return torch.bfloat16
    text = config.get_text_config()
    stored = str(getattr(text, "dtype", None)).removeprefix("torch.")
    return _DTYPES[auto_dtype(stored, getattr(text, "hidden_size", None) or 0, device.type)]


def locate(spec: ModelSpec) -> Source:
    """Where the files are: in a folder when there is one, else on the hub."""
    if spec.model == SAMPLE:
        from sample_data import model_path

        return Source(str(model_path()), None, SAMPLE, True)
    if not spec.model.strip():
        raise UserError("no model given", hint="give a hub id, a folder, a .gguf file or `sample`")
    path = expanded(spec.model)
    try:
        if path.is_file():
            return _in_file(path, spec)
        if path.is_dir():
            return _in_folder(path.absolute(), spec)
    except OSError as error:
        raise UserError(f"model {spec.model!r} cannot be read ({error.strerror})") from error
    # org/name/file.gguf names one file of a hub repository.
    parts = spec.model.split("/")
    if len(parts) == 3 and parts[2].endswith(".gguf") and re.match(r"\w", spec.model):
        return Source("/".join(parts[:2]), parts[2], spec.model, False)
    if path.suffix == ".gguf":
        raise NotFoundError(f"model file {spec.model!r} not found")
    if path.is_absolute() or spec.model.startswith((".", "~")) or len(parts) > 2:
        raise NotFoundError(f"model folder {spec.model!r} not found")
    name = model_asked_for(spec.model)
    model_id = f"{name}/{spec.gguf_file}" if spec.gguf_file else name
    return Source(name, spec.gguf_file, model_id, False)


def _in_file(path: Path, spec: ModelSpec) -> Source:
    if path.suffix != ".gguf":
        raise UserError(
            f"model {spec.model!r} is a file but not a .gguf one",
            hint="give a folder, a .gguf file, a hub id or `sample`",
        )
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(f"model file {spec.model!r} is not a GGUF file")
    path = path.absolute()
    return Source(str(path.parent), path.name, str(path), True)


def _in_folder(path: Path, spec: ModelSpec) -> Source:
    if spec.gguf_file is not None:
        if not (path / spec.gguf_file).is_file():
            there = ", ".join(sorted(p.name for p in path.glob("*.gguf"))) or "none"
            raise NotFoundError(
                f"no file {spec.gguf_file!r} in {spec.model!r}", hint=f"GGUF files there: {there}"
            )
        return _in_file(path / spec.gguf_file, spec)
    for what, patterns in (
        ("config.json", ("config.json",)),
        ("weights", _WEIGHTS),
        ("tokenizer", _TOKENIZERS),
    ):
        if not any(True for pattern in patterns for _ in path.glob(pattern)):
            gguf = next(path.glob("*.gguf"), None)
            raise UserError(
                f"folder {spec.model!r} has no {what}",
                hint=f"name its GGUF file: {gguf.name}" if gguf else "give a model's folder",
            )
    return Source(str(path), None, str(path), True)


@contextmanager
def _one_sentence(spec: ModelSpec, source: Source, asked: bool) -> Iterator[None]:
    """Turns what loading raises into one sentence that says what would work."""
    try:
        yield
    except MiCrowError:
        raise
    except Exception as error:
        raise _explained(spec, source, asked, error) from error


def _explained(spec: ModelSpec, source: Source, asked: bool, error: Exception) -> MiCrowError:
    text = str(error)
    name = f"model {spec.model!r}"
    if out_of_memory(error):
        return _does_not_fit(spec, "this machine")
    if (refused := machine_error(error)) is not None:
        return refused
    if isinstance(error, ImportError) or "is required when loading a GGUF" in text:
        return UserError(
            f"{name} needs a package that is missing ({first_line(error)})",
            hint='GGUF files need `pip install "mi-crow-tui[gguf]"`',
        )
    if "trust_remote_code" in text:
        return UserError(
            f"{name} requires its own code", hint="read it, then pass --trust-remote-code"
        )
    if "Unrecognized configuration class" in text or "does not recognize this arch" in text:
        kind = re.search(r"(?:configuration_|model type `)(\w+)", text)
        return UserError(
            f"{name} is not a causal language model that transformers knows"
            + (f" (it is {kind[1]!r})" if kind else ""),
            hint="give another model, or upgrade transformers",
        )
    if source.gguf_file is not None and source.local:
        return UserError(
            f"{name} cannot be loaded from GGUF ({first_line(error)})",
            hint="the file may be cut short, or of an architecture that transformers cannot read",
        )
    if source.local or not isinstance(error, OSError):
        return UserError(f"{name} cannot be loaded ({first_line(error)})")
    return hub_error(name, error, asked=asked)


@contextmanager
def _fitting(spec: ModelSpec, device: torch.device) -> Iterator[None]:
    """Says in one sentence when the device has no room for the model."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise _does_not_fit(spec, str(device)) from error


def _does_not_fit(spec: ModelSpec, place: str) -> UserError:
    return UserError(
        f"model {spec.model!r} does not fit into the memory of {place}",
        hint="use --model-dtype bf16, another --device or a smaller model",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and warnings of transformers and the hub while a model loads."""
    from transformers.utils import logging

    gguf: Any = import_module("transformers.modeling_gguf_pytorch_utils")

    spreading = getLogger("accelerate")  # it warns of every model that is partly in its files
    level = spreading.level
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    bar = gguf.tqdm
    spreading.setLevel(ERROR)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # The GGUF reader draws its own bar, which no switch of transformers turns off.
    gguf.tqdm = partial(bar, disable=True)
    try:
        with quiet_downloads(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gguf.tqdm = bar
        spreading.setLevel(level)
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
