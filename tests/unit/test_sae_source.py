"""Training tokens on their way from a run to the device."""

import threading
from itertools import islice
from pathlib import Path

import pytest
import torch

from mi_crow.mechanistic.sae.evaluation.document_pooling import pooled_documents
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.source import device_batches, fixed_batches
from mi_crow.store.runs.manifest import PartSpec
from mi_crow.store.runs.parts import stored_rows, write_part
from mi_crow.store.runs.reader import RunReader
from tests.helpers.stored_runs import LAYER, WIDTH, documents_table, manifest_of, write_run


def source_of(folder: Path) -> RunReader:
    return RunReader(folder, LAYER)


def test_a_run_counts_what_its_batches_give(tmp_path: Path) -> None:
    write_run(tmp_path, [[4, 4], [4]], heldout={1})
    source = source_of(tmp_path)
    assert (source.count(), source.count("heldout"), source.width) == (8, 4, WIDTH)
    limit = source.median_norm()
    assert source.count("train", limit) + source.count("heldout", limit) == 6
    assert sum(len(batch) for batch in fixed_batches(source, 100, limit)) == source.count(
        "train", limit
    )


def test_on_the_cpu_batches_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path, [[40]])
    source, before = source_of(tmp_path), threading.active_count()
    batches = device_batches(source.batches(6, 0), torch.device("cpu"))
    for got, expected in zip(islice(batches, 9), source.batches(6, 0), strict=False):
        assert torch.equal(got, expected)
    assert threading.active_count() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_same_batches_come_ahead_of_time(tmp_path: Path) -> None:
    device = torch.device("cuda")
    write_run(tmp_path, [[40], [300]])
    source, before = source_of(tmp_path), threading.active_count()
    batches = device_batches(source.batches(6, 0), device)
    kept = list(islice(batches, 200))
    for got, expected in zip(kept, source.batches(6, 0), strict=False):
        assert got.device.type == "cuda"
        assert torch.equal(got.cpu(), expected)
    assert torch.equal(kept[0].cpu(), next(source.batches(6, 0)))  # not overwritten since
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_a_window_of_a_labelled_document_is_pooled_on_its_own(tmp_path: Path) -> None:
    lengths, x = [2, 3, 4], torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(0))
    table = documents_table(lengths, windows=[0, 1, 2])
    labels = table["text"].combine_chunks()
    table = table.set_column(table.column_names.index("label"), table.schema.field("label"), labels)
    manifest = manifest_of(tmp_path)
    manifest.parts = [PartSpec(0, 0, 1, 9)]
    write_part(tmp_path, manifest.parts[0], table, {LAYER: stored_rows(x, "fp32")})
    manifest.save(tmp_path)
    sae = TopKSae(5, WIDTH, k=2)
    pooled = pooled_documents(sae, RunReader(tmp_path, LAYER))
    assert pooled is not None
    assert pooled.labels == ["text 0", "text 1", "text 2"]
    for row, tokens in zip(pooled.latents.features, x.split(lengths), strict=True):
        torch.testing.assert_close(row, sae.encode(tokens).detach().amax(0))
