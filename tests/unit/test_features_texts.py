"""Texts that a terminal or a tokenizer could trip over, through the index job and its queries."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch

from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.features.index.tables.token_texts import document_token_texts
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.sae import SaeMetadata
from mi_crow.mechanistic.sae.rules.jumprelu import JumpReluSae
from mi_crow.store.workspace import Workspace
from tests.helpers.index_reference import Doc
from tests.helpers.index_runs import (
    LAYER,
    OUTLIER,
    WIDTH,
    documents,
    identity_sae,
    save_run,
    save_sae,
)
from tests.helpers.tiny_models import build_model, build_tokenizer
from tests.unit.test_features_build import (
    check_bands,
    check_features,
    check_labels,
    check_relations,
    check_top_examples,
    random_docs,
)

LONG = "y" * 10_000
AWKWARD = (
    "bell\x07 back\x08 null\x00 escape\x1b end\x7f nel\x85",
    "\x1b[31mred\x1b[0m \x1b]8;;http://example.org\x07link\x1b]8;;\x07 \x1b[2J",
    "[bold]not bold[/bold] [/] [@click=app.quit]no[/] <b>&amp;</b> $x `y`",
    "שלום \u202ereversed\u202c مرحبا \u200fmark \u2067isolate\u2069",
    "👩\u200d👩\u200d👧 🏳️\u200d🌈 \U0001f1f5\U0001f1f1 e\u0301 ﬁ ½ 日本語 \ufeff",
    "tab\tline\nreturn\rform\x0cvertical\x0b separator\u2028 end",
    f"before {LONG} after",
)


def metaspace_tokenizer() -> Any:
    """As SentencePiece does it: spaces are letters, unknown characters are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [f"<0x{byte:02X}>" for byte in range(256)] + ["\u2581", *map(chr, range(97, 123))]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_token_texts_joined_are_the_text(text: str, kind: str) -> None:
    tokenizer = build_tokenizer(bos=False) if kind == "bytes" else metaspace_tokenizer()
    ids = list(tokenizer(text)["input_ids"])
    [pieces] = document_token_texts(tokenizer, [text], [ids])
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """Its tokenizer has a token of 10,000 characters."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([LONG])
    model = build_model("llama", len(tokenizer), tokenizer.eos_token_id)
    return LanguageModel.from_local_torch(model, tokenizer, device="cpu")


@pytest.mark.slow
def test_awkward_texts_come_back_as_they_are(tmp_path: Path, lm: LanguageModel) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    # A feature for each document, on all its tokens; the others never fire.
    acts = [np.zeros((1, WIDTH), dtype=np.float32) for _ in AWKWARD]
    for number, rows in enumerate(acts):
        rows[0, number] = 1.0
    docs = documents(lm.tokenizer, AWKWARD, [np.repeat(rows, 20_000, axis=0) for rows in acts])
    for doc, text in zip(docs, AWKWARD, strict=True):
        doc.label = text[:20]
    save_run(workspace, docs, lm.tokenizer_hash)
    save_sae(workspace, identity_sae(lm.tokenizer_hash))
    build_index(workspace, IndexConfig("sae", device="cpu"), lm=lm)
    store = FeatureStore.open(workspace, "sae")
    for number, text in enumerate(AWKWARD):
        [example] = store.examples(number)
        assert example.text == text
        assert example.label == text[:20]
        shown = "".join(example.tokens[1 if example.window_start == 0 else 0 :])
        assert shown
        assert shown in text
        assert len(example.acts) == len(example.tokens)
        assert text[:20] in [one.label for one in store.detail(number).labels]
    long = store.examples(len(AWKWARD) - 1)[0]
    assert LONG in long.tokens
    for word in ("\x1b[31mred", "[bold]", "שלום", "日本語", LONG[:50]):
        [holds] = [number for number, text in enumerate(AWKWARD) if word in text]
        assert holds in [row.feature for row in store.search(word)]


def test_features_that_never_fire_are_dead_and_no_error(tmp_path: Path, lm: LanguageModel) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    silent = [np.zeros((9, WIDTH), dtype=np.float32) for _ in AWKWARD[:3]]
    docs = documents(lm.tokenizer, AWKWARD[:3], silent)
    save_run(workspace, docs, lm.tokenizer_hash)
    save_sae(workspace, identity_sae(lm.tokenizer_hash))
    result = build_index(workspace, IndexConfig("sae", device="cpu"), lm=lm)
    assert result.tokens == sum(len(doc.kept) for doc in docs)
    store = FeatureStore.open(workspace, "sae")
    assert [row.fires for row in store.rows(store.ids())] == [0] * WIDTH
    assert not store.detail(3).coactivations
    assert not store.examples(3)


def ragged_sae(tokenizer_hash: str) -> JumpReluSae:
    """z = x where x > 0: as many latents a token as fire."""
    sae = JumpReluSae(WIDTH, WIDTH)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(WIDTH))
        sae.encoder_rows.copy_(torch.eye(WIDTH))
    sae.metadata = SaeMetadata(
        model_name="tiny",
        layer=LAYER,
        point="resid_post.1",
        run_id="run",
        tokenizer_hash=tokenizer_hash,
        outlier_norm=OUTLIER,
    )
    return sae


@pytest.mark.slow
@pytest.mark.parametrize("batch", [3, 64])
def test_an_sae_with_any_number_of_latents_a_token(
    tmp_path: Path, tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Batches have codes of different widths; what fills them up is not counted."""
    from mi_crow.mechanistic.features.index import encode_pass

    monkeypatch.setitem(encode_pass._BATCH, "cpu", batch)
    monkeypatch.setitem(encode_pass._BATCH_CELLS, "cpu", 0)
    docs: list[Doc] = random_docs(tiny_lm, 25)
    docs[3].acts[:] = 0
    docs[4].kept, docs[4].acts = [], docs[4].acts[:0]
    workspace = Workspace.open(tmp_path / "workspace")
    save_run(workspace, docs, tiny_lm.tokenizer_hash, part_documents=7)
    ragged_sae(tiny_lm.tokenizer_hash).save(workspace.make_sae_dir("sae", "sae"))
    build_index(workspace, IndexConfig("sae", device="cpu", window=4), lm=tiny_lm)
    with duckdb.connect(str(workspace.index_path("sae")), read_only=True) as index:
        check_features(index, docs)
        check_top_examples(index, docs, 20, 4)
        check_bands(index, docs, 5)
        check_labels(index, docs)
        check_relations(index, docs, 10)
