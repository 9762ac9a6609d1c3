"""The real model and real texts; skipped only where the model cannot be downloaded."""

from pathlib import Path

import pytest

from tests.real_model.smollm2 import DownloadFailed, model_folder, write_texts


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """SmolLM2-135M-Instruct as a folder of bf16 safetensors."""
    try:
        return model_folder()
    except DownloadFailed as error:
        pytest.skip(f"SmolLM2 cannot be downloaded: {error}")


@pytest.fixture(scope="session")
def real_texts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """English passages on Python and on everything else, labelled by topic: over 30k tokens."""
    path = tmp_path_factory.mktemp("texts") / "pydoc-and-fortunes.jsonl"
    write_texts(path)
    return path
