"""From a model's specification to a model and its tokenizer, with one clear sentence on failure."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.language_model.config import ModelSpec

SAMPLE = "sample"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Loaded:
    """A model ready to run."""

    model: Any
    tokenizer: Any
    device: torch.device
    revision: str | None


def torch_device(name: str | torch.device | None) -> torch.device:
    """The device meant by `name`; `auto` is CUDA, then MPS, then CPU. Raises UserError."""
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"device {name!r} is not known", hint="use cpu, cuda, cuda:N or mps"
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            there = (
                f"there are {count} CUDA devices" if count else "this machine has no CUDA device"
            )
            raise UserError(f"device {str(name)!r} is not here", hint=f"{there}; use --device auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not here", hint="use --device auto")
    return device


def load_model(spec: ModelSpec) -> Loaded:
    """Loads model and tokenizer from a hub id, a folder, a .gguf file, or `sample`.

    In `auto` dtype the model computes in bf16 on CUDA and in fp32 elsewhere. Raises NotFoundError
    or UserError in one sentence; nothing is fetched when `spec.offline` is set.
    """
    device = torch_device(spec.device)
    source, gguf_file = _locate(spec)
    options: dict[str, Any] = {
        "revision": spec.revision,
        "local_files_only": spec.offline or os.environ.get("HF_HUB_OFFLINE") == "1",
        "trust_remote_code": spec.trust_remote_code,
    }
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    with _quiet(), _one_sentence(spec):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=_compute_dtype(spec, device), **options
        )
    if device.type == "cpu":
        # Denormals slow the tails of a softmax or an optimizer a hundredfold.
        torch.set_flush_denormal(True)
    model.eval().requires_grad_(False).to(device)
    revision = spec.revision or getattr(model.config, "_commit_hash", None)
    return Loaded(model, tokenizer, device, revision)


def _compute_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    if spec.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if spec.dtype not in _DTYPES:
        raise UserError(
            f"model dtype {spec.dtype!r} is not known", hint=f"use auto, {', '.join(_DTYPES)}"
        )
    return _DTYPES[spec.dtype]


def _locate(spec: ModelSpec) -> tuple[str, str | None]:
    """Folder or hub id, and the name of a GGUF file in it."""
    if spec.model == SAMPLE:
        from sample_data import model_path

        return str(model_path()), None
    path = Path(spec.model).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise NotFoundError(f"model file {spec.model!r} not found")
        return str(path.absolute().parent), path.name
    if path.is_dir():
        if spec.gguf_file is not None and not (path / spec.gguf_file).is_file():
            there = ", ".join(sorted(p.name for p in path.glob("*.gguf"))) or "none"
            raise NotFoundError(
                f"no file {spec.gguf_file!r} in {spec.model!r}", hint=f"GGUF files there: {there}"
            )
        if spec.gguf_file is None and not (path / "config.json").is_file():
            raise UserError(
                f"folder {spec.model!r} holds no model", hint="it has no readable config.json"
            )
        return str(path), spec.gguf_file
    if path.is_absolute() or spec.model.startswith((".", "~")) or spec.model.count("/") > 1:
        raise NotFoundError(f"model folder {spec.model!r} not found")
    return spec.model, spec.gguf_file


@contextmanager
def _one_sentence(spec: ModelSpec) -> Iterator[None]:
    """Turns what loading raises into one sentence that says what would work."""
    try:
        yield
    except MiCrowError:
        raise
    except ImportError as error:
        raise UserError(
            f"model {spec.model!r} needs a package that is missing ({_first_line(error)})",
            hint='GGUF files need `pip install "mi-crow-tui[gguf]"`',
        ) from error
    except Exception as error:
        text = str(error)
        if "gated" in text.lower() or "401" in text or "403" in text:
            raise UserError(
                f"model {spec.model!r} is gated or private",
                hint="ask for access on its hub page, then run `hf auth login`",
            ) from error
        if "trust_remote_code" in text:
            raise UserError(
                f"model {spec.model!r} brings code of its own",
                hint="read it, then pass --trust-remote-code",
            ) from error
        if isinstance(error, OSError) and not Path(spec.model).expanduser().is_dir():
            raise NotFoundError(
                f"model {spec.model!r} not found",
                hint="give a hub id that can be reached, a folder, a .gguf file, or `sample`",
            ) from error
        raise UserError(f"model {spec.model!r} cannot be loaded ({_first_line(error)})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and warnings of transformers while a model loads."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
