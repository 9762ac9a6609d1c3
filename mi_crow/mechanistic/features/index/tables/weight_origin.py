"""Which files the weights came from, so that the same files are hashed once. Torch-free."""

import json
import re
from pathlib import Path
from typing import Any

from mi_crow.mechanistic.sae.metadata import WEIGHTS_NAME

_COMMIT = re.compile("[0-9a-f]{40}")
_FILES = ("*.safetensors", "*.bin", "*.gguf")


def weights_origin(
    sae_dir: Path, sae_dtype: str, model_id: str, revision: str | None, model_dtype: str
) -> str:
    """What tells these weights from any others without reading them: the SAE's file and the
    model's files by size and time of change, or the commit of a model of the hub. Empty where
    neither is known."""
    sae = _stamp(sae_dir / WEIGHTS_NAME)
    model: Any = _of_model(model_id)
    if not model and revision is not None and _COMMIT.fullmatch(revision):
        model = [model_id, revision]
    if not sae or not model:
        return ""
    return json.dumps({"sae": [sae_dtype, sae], "model": [model_dtype, model]})


def known_content(index: Path, origin: str) -> str | None:
    """The digest that an index has of the weights of this origin."""
    import duckdb

    if not origin or not index.is_file():
        return None
    try:
        with duckdb.connect(str(index), read_only=True) as connection:
            asked = "SELECT key, value FROM meta WHERE key IN ('weights_origin', 'weights_content')"
            found = dict(connection.execute(asked).fetchall())
    except duckdb.Error:
        return None  # of a former format, or damaged: it is built anew
    return found.get("weights_content") if found.get("weights_origin") == origin else None


def _of_model(model_id: str) -> list[Any]:
    from mi_crow.language_model.loading import SAMPLE

    if model_id == SAMPLE:
        from sample_data import model_path

        model_id = str(model_path())
    path = Path(model_id)
    if not path.is_absolute():
        return []
    if path.is_file():
        return _stamp(path)
    return [_stamp(file) for kind in _FILES for file in sorted(path.glob(kind))]


def _stamp(path: Path) -> list[Any]:
    try:
        state = path.stat()
    except OSError:
        return []
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]
