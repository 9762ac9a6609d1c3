"""Damage to a run is noticed: by size and a few rows when it is opened, to the byte when asked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mi_crow.cli import main
from mi_crow.errors import CorruptDataError
from mi_crow.store import RunManifest, Workspace
from mi_crow.store.checksums import sum_of
from mi_crow.store.runs.manifest import PartSpec
from mi_crow.store.runs.parts import StoredRows, stored_rows, write_part
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.runs.verify import damaged_files, false_statements
from tests.helpers.stored_runs import LAYER, documents_table, manifest_of

WIDTH = 64


def noise(rows: int) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["fp32", "bf16", "int8"])
def run(request: pytest.FixtureRequest, workspace: Workspace) -> Path:
    """A run of two parts with sums, as a capture writes them."""
    folder = workspace.activations_dir / "run"
    folder.mkdir(parents=True)
    manifest = manifest_of(folder, request.param, WIDTH)
    for index in range(2):
        part = PartSpec(0, index, 2, 900, shard=index)
        documents = documents_table([500, 400], 2 * index, heldout={2 * index + 1})
        rows = {LAYER: stored_rows(noise(900), request.param)}
        manifest.add(replace(part, files=write_part(folder, part, documents, rows)))
    manifest.save(folder)
    return folder


def rows_file(run: Path, index: int = 1) -> Path:
    return run / LAYER / f"part-000-0000{index}.safetensors"


def tokens_file(run: Path, index: int = 1) -> Path:
    return run / "tokens" / f"part-000-0000{index}.parquet"


def train_on(run: Path) -> None:
    reader = RunReader(run, LAYER)
    next(iter(reader.batches(64, seed=0)))


def test_sums_are_those_of_the_files_as_they_stand(run: Path) -> None:
    for part in RunManifest.load(run).parts:
        assert part.files[LAYER] == sum_of(run / LAYER / f"{part.stem}.safetensors")
        assert part.files["tokens"] == sum_of(run / "tokens" / f"{part.stem}.parquet")


@pytest.mark.parametrize("file", [rows_file, tokens_file])
@pytest.mark.parametrize("change", ["halved", "longer", "gone"])
def test_a_file_of_another_size_is_refused_when_the_run_is_read(
    run: Path, file: object, change: str
) -> None:
    path = file(run)  # type: ignore[operator]
    content = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if change == "halved" else content + b"\0")
    with pytest.raises(CorruptDataError, match=path.name):
        train_on(run)
    assert [one.path for one in damaged_files(run, RunManifest.load(run))] == [path]


def test_rows_that_a_power_cut_left_as_zeros_are_not_trained_on(run: Path) -> None:
    path = rows_file(run)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    with pytest.raises(CorruptDataError, match=f"{path.name}.*has norm 0"):
        train_on(run)


@pytest.mark.parametrize("file", [rows_file, tokens_file])
def test_one_flipped_bit_is_found_by_its_sum(run: Path, file: object) -> None:
    path = file(run)  # type: ignore[operator]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = list(damaged_files(run, RunManifest.load(run)))
    assert [(one.path, one.why) for one in found] == [
        (path, "its checksum does not match the recorded one")
    ]


def test_norms_that_are_not_those_of_the_rows_are_found(run: Path) -> None:
    manifest = RunManifest.load(run)
    assert list(false_statements(run, manifest)) == []
    part = replace(manifest.parts[0], files={})
    rows = stored_rows(noise(900), manifest.dtype)
    norms = rows.norms.clone()
    norms[300] *= 3
    wrong = StoredRows(rows.values, norms, rows.scales)
    documents = documents_table([500, 400], 0, heldout={1})
    manifest.parts[0] = replace(part, files=write_part(run, part, documents, {LAYER: wrong}))
    assert list(damaged_files(run, manifest)) == []
    (found,) = false_statements(run, manifest)
    assert found.path == rows_file(run, 0)
    assert found.why == "the norm of row 300 is not the length of the row"


def deep(
    workspace: Workspace, name: str, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, str]]:
    assert main(["doctor", "--deep", name, "--json", "--workspace", str(workspace.root)]) == 0
    return json.loads(capsys.readouterr().out)["checks"]


def test_the_doctor_compares_a_run_with_what_was_written(
    run: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = deep(workspace, "run", capsys)
    assert found["level"] == "ok"
    content = bytearray(rows_file(run).read_bytes())
    content[-1000] ^= 1
    rows_file(run).write_bytes(content)
    found = deep(workspace, "run", capsys)[0]
    assert found["level"] == "warning"
    assert str(rows_file(run)) in found["found"]
    assert "capture the run again" in found["advice"]


def test_a_run_without_sums_opens_and_the_doctor_says_so(
    run: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["format_version"] = 2
    for part in manifest["parts"]:
        for key in ("files", "positions", "real_positions", "rounding"):
            del part[key]
    (run / "manifest.json").write_text(json.dumps(manifest))
    train_on(run)
    note, contents = deep(workspace, "run", capsys)
    assert note["level"] == "note"
    assert "cannot be compared" in note["found"]
    assert contents["level"] == "ok"


def test_the_doctor_compares_an_sae_s_weights(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    from mi_crow.mechanistic.sae import TopKSae

    folder = workspace.saes_dir / "sae"
    TopKSae(n_latents=32, n_inputs=8, k=4, device="cpu").save(folder)
    (found,) = deep(workspace, "sae", capsys)
    assert found["level"] == "ok"
    weights = folder / "sae_weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    (found,) = deep(workspace, "sae", capsys)
    assert found["level"] == "warning"
    assert "checksum" in found["found"]
