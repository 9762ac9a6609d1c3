"""A BOS token stands in front of a text once, where it is wanted, for everything that tokenizes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from mi_crow.datasets import TextDataset
from mi_crow.errors import UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.run import Capture
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.tokenize import frame_of, tokenize
from mi_crow.mechanistic.features.index.tables.token_texts import document_token_texts
from mi_crow.mechanistic.sae.formats.fit import check_fit
from mi_crow.mechanistic.sae.run_tokens import open_tokens
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.loading import join
from mi_crow.mechanistic.steering.run import steer_loaded
from mi_crow.progress import NullProgress
from mi_crow.store.workspace import Workspace
from tests.helpers.steering_fixture import TEXT, tiny_sae
from tests.helpers.tiny_models import TEXTS, build_model, build_tokenizer

ADDS_BOS = build_tokenizer()
ADDS_NONE = build_tokenizer(bos=False, pad=False)
BOS = ADDS_BOS.bos_token_id
END = ADDS_NONE.eos_token_id  # what a tokenizer without BOS begins texts with


def without_bos() -> LanguageModel:
    return LanguageModel.from_local_torch(build_model("gpt2", len(ADDS_NONE)), ADDS_NONE)


def captured(lm: LanguageModel, texts: list[str], folder: Path, **settings: Any) -> Any:
    """Token ids of each row of a run, and the run's workspace."""
    workspace = Workspace(folder)
    workspace.ensure()
    config = CaptureConfig(
        ModelSpec("tiny"), DatasetSpec("list"), ("resid_post.1",), name="r", **settings
    )
    Capture(lm, TextDataset(texts), config).run(workspace, NullProgress())
    parts = sorted((workspace.run_dir("r") / "tokens").glob("*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return [row["token_ids"] for row in rows], workspace


@pytest.mark.slow
def test_a_text_that_begins_with_bos_gets_no_second_one(tiny_lm, tmp_path):
    typed = f"<s>{TEXT}"
    [once] = tokenize(ADDS_BOS, [TEXT])
    assert tokenize(ADDS_BOS, [typed]) == [once]
    assert once.count(BOS) == 1
    assert tiny_lm.generate(typed, max_new_tokens=1).prompt_ids == once
    assert len(inspect(join("s", tiny_lm, tiny_sae()), typed)["tokens"]) == len(once)
    rows, _ = captured(tiny_lm, [typed, TEXT], tmp_path)
    assert rows == [once, once]


@pytest.mark.parametrize("tokenizer", [ADDS_BOS, ADDS_NONE], ids=["adds one", "adds none"])
def test_what_is_asked_for_wins(tokenizer):
    start = tokenizer.bos_token_id or END
    own = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert tokenize(tokenizer, [TEXT], bos="yes") == [[start, *own]]
    assert tokenize(tokenizer, [TEXT], bos="no") == [own]
    assert tokenize(tokenizer, [TEXT], 5, bos="yes") == [[start, *own[:4]]]
    assert tokenize(tokenizer, [TEXT]) == [tokenizer(TEXT).input_ids]


def test_a_tokenizer_without_a_token_to_begin_with_says_so():
    tokenizer = build_tokenizer(bos=False)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no BOS token"):
        frame_of(tokenizer, "yes")


@pytest.mark.parametrize(("wish", "begins"), [(True, True), (False, False), (None, False)])
def test_inspect_and_steer_follow_the_sae(wish, begins, tmp_path):
    lm, sae = without_bos(), tiny_sae()
    sae.metadata = replace(sae.metadata, prepend_bos=wish, layer="", point="resid_post.1")
    loaded = join("s", lm, sae)
    found = inspect(loaded, TEXT)
    assert (found["tokens"][0] == "</s>") == found["bos_added"] == begins
    assert inspect(loaded, TEXT, bos="no")["tokens"][0] != "</s>"
    workspace = Workspace(tmp_path)
    sae.save(workspace.saes_dir / "s")
    steered = steer_loaded(workspace, loaded, TEXT, [], max_new_tokens=1)
    assert steered["bos_added"] == begins
    assert steered["prompt_tokens"] == len(found["tokens"])


def test_a_check_reads_the_texts_as_the_sae_was_trained():
    lm, sae = without_bos(), tiny_sae()
    sae.metadata = replace(sae.metadata, layer="", point="resid_post.1")
    sae.metadata = replace(sae.metadata, prepend_bos=True)
    fit = check_fit(lm, sae, TEXTS)
    assert "no BOS token at the start of the texts (--bos no)" in fit.alternatives
    assert fit.fvu != check_fit(lm, sae, TEXTS, bos="no").fvu


def test_a_run_says_how_it_begins_and_so_does_an_sae_of_it(tmp_path):
    lm = without_bos()
    rows, workspace = captured(lm, TEXTS[:3], tmp_path, bos="yes")
    assert all(ids[0] == END and ids.count(END) == 1 for ids in rows)
    tokens = open_tokens(workspace, "r", "resid_post.1")
    assert tokens.manifest.settings["bos"] == "yes"
    assert tokens.metadata().prepend_bos is True
    pieces = document_token_texts(ADDS_NONE, TEXTS[:3], rows)
    assert ["".join(one) for one in pieces] == [f"</s>{text}" for text in TEXTS[:3]]


@pytest.mark.slow
def test_padding_beyond_the_embedding_is_never_read(tmp_path):
    model = build_model("llama", len(ADDS_NONE))
    tokenizer = build_tokenizer(bos=False, pad=False)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    lm = LanguageModel.from_local_torch(model, tokenizer)
    rows = lm.embedding_rows
    assert rows is not None
    assert tokenizer.pad_token_id >= rows
    encoding = lm.encode(["The ferry", TEXT])
    assert int(encoding.input_ids.max()) < rows
    assert bool(encoding.special[0, -1])
    rows, _ = captured(lm, ["The ferry", TEXT], tmp_path, dtype="fp32")
    assert len(rows) == 2
    with torch.no_grad():
        lm.inference.execute_inference(["The ferry", TEXT])


def test_a_token_without_an_embedding_is_named(tmp_path):
    tokenizer = build_tokenizer(bos=False, pad=False)
    lm = LanguageModel.from_local_torch(build_model("llama", len(tokenizer)), tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    for act in (
        lambda: lm.generate("a [PAD]", max_new_tokens=1),
        lambda: inspect(join("s", lm, tiny_sae()), "a [PAD]"),
        lambda: captured(lm, ["a [PAD]"], tmp_path),
    ):
        with pytest.raises(UserError, match=r"token '\[PAD\]'"):
            act()


def test_a_long_text_is_cut_with_a_word_or_read_in_windows(tiny_lm):
    loaded = join("tiny", tiny_lm, tiny_sae())
    text = TEXT * 30
    total = len(tiny_lm.tokenizer(text).input_ids)
    cut = inspect(loaded, text)
    assert (cut["tokens_read"], cut["tokens_total"], cut["windows"]) == (64, total, 1)
    whole = inspect(loaded, text, windows=True)
    assert whole["tokens_read"] == whole["tokens_total"] == total
    assert whole["windows"] == len(whole["window_starts"]) == -(-(total - 1) // 63)
    assert all(whole["special"][start] for start in whole["window_starts"])
    own = [t for t, special in zip(whole["tokens"], whole["special"], strict=True) if not special]
    assert "".join(own) == text
    assert len(whole["per_token"]) == len(whole["tokens"]) == len(whole["features"][0]["acts"])
