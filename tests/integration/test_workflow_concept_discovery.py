"""The third workflow, as a user's script: which texts a feature likes, and names for it."""

import csv
import json
from pathlib import Path

import pytest
import torch

from mi_crow.datasets import TextDataset
from mi_crow.hooks import LayerActivationDetector
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.sae import load_sae
from sample_data import corpus_path

LAYER = "resid_post.2"


@pytest.mark.slow
def test_top_texts_are_tracked_exported_and_named(tmp_path: Path, sample_sae_dir: Path) -> None:
    lm = LanguageModel.from_huggingface("sample", device="cpu")
    sae = load_sae(sample_sae_dir)
    dataset = TextDataset.from_local(corpus_path()).random_sample(96, seed=4)

    lm.attach_sae(sae, LAYER)
    sae.concepts.enable_text_tracking(top_k=3)
    for start in range(0, len(dataset), 16):
        lm.inference.execute_inference(dataset.texts[start : start + 16], context_length=128)
    top_texts = sae.concepts.get_top_texts()

    assert len(top_texts) > 100  # features that fired
    for pairs in top_texts.values():
        activations = [activation for _, activation in pairs]
        assert 1 <= len(pairs) <= 3
        assert activations == sorted(activations, reverse=True)
        assert activations[-1] > 0
        assert len({text for text, _ in pairs}) == len(pairs)
        assert {text for text, _ in pairs} <= set(dataset.texts)

    # To files and back.
    as_json = sae.concepts.export_top_texts_to_json(tmp_path / "top.json")
    as_csv = sae.concepts.export_top_texts_to_csv(tmp_path / "top.csv")
    written = json.loads(as_json.read_text("utf-8"))
    assert {int(feature) for feature in written} == set(top_texts)
    neuron, pairs = max(top_texts.items(), key=lambda item: item[1][0][1])
    assert [(row["text"], row["activation"]) for row in written[str(neuron)]] == pairs
    with as_csv.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["feature"]) == neuron]
    assert [row["text"] for row in rows] == [text for text, _ in pairs]
    assert [float(row["activation"]) for row in rows] == pytest.approx([a for _, a in pairs])

    # A text's own activation, computed apart, is the one that was tracked.
    text, activation = pairs[0]
    sae.concepts.enable_text_tracking(top_k=1)
    lm.inference.execute_inference([text], context_length=128)
    assert sae.concepts.get_top_texts()[neuron][0] == (text, pytest.approx(activation, rel=1e-3))
    sae.concepts.disable_text_tracking()
    lm.detach_sae()


@pytest.mark.slow
def test_top_texts_are_those_of_the_greatest_activation_over_tokens(sample_sae_dir: Path) -> None:
    """Every feature's table against one computed apart, a text at a time, without the tracker."""
    lm = LanguageModel.from_huggingface("sample", device="cpu")
    sae = load_sae(sample_sae_dir)
    texts = TextDataset.from_local(corpus_path()).random_sample(24, seed=7).texts
    special = set(lm.tokenizer.all_special_ids)
    limit = sae.metadata.outlier_norm or float("inf")
    rows = []
    for text in texts:
        with LayerActivationDetector(LAYER).on(lm) as detector:
            _, encodings = lm.inference.execute_inference([text])
        captured = detector.get_captured()
        assert captured is not None
        x = captured[0]
        ids = encodings["input_ids"][0].tolist()
        kept = [i for i, token in enumerate(ids) if token not in special and x[i].norm() <= limit]
        rows.append(sae.encode(x[kept]).detach().amax(0))
    table = torch.stack(rows)  # [texts, M]

    lm.attach_sae(sae, LAYER)
    sae.concepts.enable_text_tracking(top_k=4)
    for start in range(0, len(texts), 7):  # padded batches, the last one smaller
        lm.inference.execute_inference(texts[start : start + 7])
    top_texts = sae.concepts.get_top_texts()
    lm.detach_sae()

    # Batching moves the last bits of an activation, so a feature near zero may be on either side.
    assert set((table.amax(0) > 1e-3).nonzero()[:, 0].tolist()) <= set(top_texts)
    for feature, pairs in top_texts.items():
        best = table[:, feature].topk(4).values[: len(pairs)].tolist()
        assert [activation for _, activation in pairs] == pytest.approx(best, rel=1e-3, abs=1e-3)
        own = [float(table[texts.index(text), feature]) for text, _ in pairs]
        assert [activation for _, activation in pairs] == pytest.approx(own, rel=1e-3, abs=1e-3)


@pytest.mark.slow
def test_names_come_from_python_csv_and_json(tmp_path: Path, sample_sae_dir: Path) -> None:
    sae = load_sae(sample_sae_dir)
    sae.concepts.load_concepts({3: [{"name": "ferries", "confidence": 0.9}]})
    (tmp_path / "names.csv").write_text("feature,name,confidence\n7,bread,0.8\n")
    sae.concepts.load_concepts_from_csv(tmp_path / "names.csv")
    (tmp_path / "names.json").write_text('{"9": [{"name": "courts"}, {"name": "law"}]}')
    sae.concepts.load_concepts_from_json(tmp_path / "names.json")
    names = {feature: [one.name for one in some] for feature, some in sae.concepts.names.items()}
    assert names == {3: ["ferries"], 7: ["bread"], 9: ["courts", "law"]}
