"""The first workflow, as a user's script: texts in, activations of two layers on disk."""

from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from mi_crow.datasets import HuggingFaceDataset, TextDataset
from mi_crow.errors import NotFoundError, UserError
from mi_crow.hooks import LayerActivationDetector
from mi_crow.language_model import LanguageModel
from mi_crow.store import LocalStore
from mi_crow.store.runs.reader import RunReader
from sample_data import corpus_path


def test_activations_of_two_layers_are_saved_and_read_back(tmp_path: Path) -> None:
    store = LocalStore(base_path=tmp_path / "store")
    lm = LanguageModel.from_huggingface("sample", store=store, device="cpu")
    assert "model.layers.2" in lm.layers.list_layers()

    dataset = TextDataset.from_local(corpus_path()).random_sample(60, seed=1)
    run_id = lm.activations.save(
        layer_signature=["model.layers.1", "resid_post.2"],
        dataset=dataset,
        sample_limit=40,
        batch_size=8,
        shard_size=16,
        dtype="fp32",
    )

    assert store.list_runs() == [run_id]
    run = store.get_run_metadata(run_id)
    assert [layer.name for layer in run.layers] == ["model.layers.1", "model.layers.2"]
    assert len(run.parts) == 3  # 16 + 16 + 8 documents
    assert run.status == "complete"

    # Every stored row is what the model computes on that text: no padding, no special tokens.
    reader = RunReader(store.workspace.run_dir(run_id), "model.layers.2")
    part = next(reader.parts())
    texts = part.table["text"].to_pylist()
    assert texts == list(dataset)[:16]
    detector = LayerActivationDetector("model.layers.2")
    with detector.on(lm):
        lm.inference.execute_inference([texts[3]], context_length=128)
    captured = detector.get_captured()
    assert captured is not None
    kept = part.table["kept"][3].as_py()
    stored = part.take((part.row_document == 3).nonzero()[:, 0])
    torch.testing.assert_close(stored, captured[0, kept], atol=1e-4, rtol=1e-4)
    assert lm.tokenizer.bos_token_id not in [part.table["token_ids"][3].as_py()[i] for i in kept]


def test_texts_come_from_python_and_from_a_loaded_dataset_alike(tmp_path: Path) -> None:
    lm = LanguageModel.from_huggingface("sample", store=LocalStore(tmp_path), device="cpu")
    texts = ["The ferry left before dawn.", "Fold the flour in gently."]
    records = [{"body": text} for text in texts]
    runs = [
        lm.activations.save(layer_signature="resid_post.0", dataset=dataset, dtype="fp32")
        for dataset in (TextDataset(texts), HuggingFaceDataset(records, text_field="body"), texts)
    ]
    assert lm.store is not None
    stored = [
        next(RunReader(lm.store.workspace.run_dir(run), "resid_post.0").parts()).take(slice(None))
        for run in runs
    ]
    assert torch.equal(stored[0], stored[1])
    assert torch.equal(stored[0], stored[2])
    assert stored[0].shape[1] == lm.layers.width("resid_post.0")


@pytest.mark.parametrize(
    ("dtype", "stored_as"),
    [("bf16", torch.bfloat16), ("fp16", torch.float16), (torch.bfloat16, torch.bfloat16)],
)
def test_one_layer_is_stored_in_the_dtype_asked_for(
    sample_lm: LanguageModel, tmp_path: Path, dtype: str | torch.dtype, stored_as: torch.dtype
) -> None:
    store = LocalStore(tmp_path)
    lm = LanguageModel.from_local_torch(sample_lm.model, sample_lm.tokenizer, store=store)
    texts = TextDataset.from_local(corpus_path()).random_sample(6, seed=2)
    run_id, exact_id = (
        lm.activations.save(layer_signature="resid_post.2", dataset=texts, dtype=one)
        for one in (dtype, "fp32")
    )
    run = store.get_run_metadata(run_id)
    [part] = run.parts
    folder = store.workspace.run_dir(run_id)
    # The files are plain safetensors and Parquet, readable without mi-crow.
    rows = load_file(folder / "model.layers.2" / f"{part.stem}.safetensors")
    documents = pyarrow.parquet.read_table(folder / "tokens" / f"{part.stem}.parquet")
    assert rows["activations"].dtype == stored_as
    assert rows["activations"].shape == (part.tokens, lm.layers.width("resid_post.2"))
    assert documents["text"].to_pylist() == texts.texts
    assert documents["label"].to_pylist() == texts.labels
    assert sum(len(kept) for kept in documents["kept"].to_pylist()) == part.tokens
    # Rounded from the fp32 values once, and the norms are those of the values before.
    exact = next(RunReader(store.workspace.run_dir(exact_id), "resid_post.2").parts())
    assert torch.equal(rows["activations"], exact.take(slice(None)).to(stored_as))
    torch.testing.assert_close(rows["norms"], exact.take(slice(None)).norm(dim=1))


def test_sample_limit_takes_the_first_documents(sample_lm: LanguageModel, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    lm = LanguageModel.from_local_torch(sample_lm.model, sample_lm.tokenizer, store=store)
    texts = TextDataset.from_local(corpus_path()).random_sample(5, seed=3)
    for limit, documents in ((2, 2), (5, 5), (99, 5)):
        run_id = lm.activations.save(
            "resid_post.0", texts, sample_limit=limit, run_name=f"limit-{limit}"
        )
        assert run_id == f"limit-{limit}"
        run = store.get_run_metadata(run_id)
        assert run.n_documents == documents
        table = next(RunReader(store.workspace.run_dir(run_id), "resid_post.0").parts()).table
        assert table["text"].to_pylist() == texts.texts[:documents]
    with pytest.raises(UserError, match="exists already"):
        lm.activations.save("resid_post.0", texts, run_name="limit-2")
    with pytest.raises(UserError, match="at least 1"):
        lm.activations.save("resid_post.0", texts, sample_limit=0)
    with pytest.raises(UserError, match="int3"):
        lm.activations.save("resid_post.0", texts, dtype="int3")
    assert len(store.list_runs()) == 3


def test_what_cannot_be_saved_is_told_and_writes_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    lm = LanguageModel.from_huggingface("sample", store=store, device="cpu")
    with pytest.raises(NotFoundError, match=r"layer 'model\.layers\.99' not found"):
        lm.activations.save(layer_signature="model.layers.99", dataset=["A text."])
    with pytest.raises(UserError, match="empty"):
        lm.activations.save(layer_signature="resid_post.1", dataset=[])
    without_store = LanguageModel.from_huggingface("sample", device="cpu")
    with pytest.raises(UserError, match="no store"):
        without_store.activations.save(layer_signature="resid_post.1", dataset=["A text."])
    assert store.list_runs() == []
