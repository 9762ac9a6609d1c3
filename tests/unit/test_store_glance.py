"""A look into a run: splits, labels, texts and sizes, without its activations."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mi_crow.errors import CorruptDataError
from mi_crow.store.runs.glance import glance_at
from mi_crow.store.runs.manifest import RunManifest
from tests.helpers.stored_runs import LAYER, write_run


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, RunManifest]:
    folder = tmp_path / "run"
    write_run(folder, [[3, 2, 4], [1, 2]], heldout={1})
    return folder, RunManifest.load(folder)


def test_it_counts_splits_and_shows_texts_with_their_tokens(run):
    found = glance_at(*run, texts=2)
    assert found.splits == {"train": 4, "heldout": 1}
    assert (found.counted, found.total) == (5, 5)
    assert [(one.text, one.tokens, one.split) for one in found.texts] == [
        ("text 0", 7, "train"),
        ("text 1", 5, "heldout"),
    ]
    assert found.labels == {}


def test_a_layer_is_as_large_as_its_files_also_where_the_manifest_does_not_say(run):
    folder, manifest = run
    files = sum(path.stat().st_size for path in (folder / LAYER).glob("part-*"))
    assert glance_at(folder, manifest).layer_bytes == {LAYER: files}
    manifest.parts = [replace(part, files={}) for part in manifest.parts]
    assert glance_at(folder, manifest).layer_bytes == {LAYER: files}


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", None])
def test_a_damaged_or_missing_file_is_named(run, content):
    folder, manifest = run
    path = folder / "tokens" / f"{manifest.parts[1].stem}.parquet"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=path.name):
        glance_at(folder, manifest)


def test_it_needs_no_torch():
    import subprocess

    code = "import sys, mi_crow.store.runs.glance; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
