"""Pieces of the index: labels, directions, neighbours, the map, logits, texts of tokens."""

import numpy as np
import pytest
import torch

from mi_crow.mechanistic.features.index.tables.directions import directions, neighbours, plane
from mi_crow.mechanistic.features.index.tables.labels import labelled_documents
from mi_crow.mechanistic.features.index.tables.logits import LogitLens
from mi_crow.mechanistic.features.index.tables.token_texts import (
    document_token_texts,
    vocabulary_texts,
)
from tests.helpers.tiny_models import TEXTS, build_tokenizer


def test_too_many_labels_keep_the_most_frequent() -> None:
    labels = ["a", "b", "b", None, "c", "c", "d"]
    found = labelled_documents(labels, np.zeros(7, dtype=bool), most=2)
    assert found.names == ("b", "c")
    assert found.left_out == 2
    assert found.label.tolist() == [2, 0, 0, -1, 1, 1, 2]


def test_neighbours_are_the_highest_cosines_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from mi_crow.mechanistic.features.index.tables import directions as module

    monkeypatch.setattr(module, "_CELLS", 100)  # several rounds
    rows = torch.randn(23, 8, generator=torch.Generator().manual_seed(0))
    rows[4] = 0
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosine = unit @ unit.T
    cosine.fill_diagonal_(-2)
    found = list(neighbours(rows, 5))
    assert len(found) > 1
    torch.testing.assert_close(torch.cat([f.cosine for f in found]), cosine.topk(5).values)
    assert all((f.other != torch.arange(len(f.other))[:, None] + f.first).all() for f in found)


def test_a_lone_feature_has_no_neighbours() -> None:
    assert list(neighbours(torch.ones(1, 4), 5)) == []
    assert next(iter(neighbours(torch.eye(3), 5))).other.shape == (3, 2)


@pytest.mark.parametrize("width", [1, 6, 1500])
def test_the_map_is_the_plane_of_greatest_spread(width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = 0.01 * torch.randn(40, width, generator=generator)
    rows[:, 0] += torch.linspace(-3, 3, 40)
    points = plane(rows)
    assert points.shape == (40, 2)
    torch.testing.assert_close(points, plane(rows))
    spread = torch.corrcoef(torch.stack([points[:, 0], rows[:, 0]]))[0, 1]
    assert spread > 0.99


def test_directions_compare_encoder_and_decoder() -> None:
    decoder = torch.eye(3) * 2
    encoder = torch.tensor([[1.0, 0, 0], [0, -1, 0], [1, 1, 0]])
    found = directions(decoder, encoder)
    assert found.decoder_norm.tolist() == [2.0, 2.0, 2.0]
    torch.testing.assert_close(found.encoder_decoder_cosine, torch.tensor([1.0, -1.0, 0.0]))


@pytest.mark.parametrize("bias", [False, True])
def test_the_logit_lens_goes_through_norm_and_unembedding(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mi_crow.mechanistic.features.index.tables import logits as module

    monkeypatch.setitem(module._CELLS, "cpu", 120)
    torch.manual_seed(0)
    norm: torch.nn.Module = torch.nn.LayerNorm(6) if bias else torch.nn.RMSNorm(6, eps=1e-6)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 2.0)
    head = torch.nn.Linear(6, 40, bias=False)
    decoder = torch.randn(11, 6)
    rows = norm(torch.nn.functional.normalize(decoder, dim=1) * 6**0.5)
    expected = head(rows - norm(torch.zeros(1, 6))).detach()
    found = list(LogitLens(norm, head).effects(decoder, 4))
    assert len(found) > 1
    for name, largest in (("promoted", True), ("suppressed", False)):
        values = torch.cat([getattr(f, f"{name}_value") for f in found])
        ids = torch.cat([getattr(f, name) for f in found])
        torch.testing.assert_close(values, expected.topk(4, largest=largest).values)
        torch.testing.assert_close(expected.gather(1, ids), values)
    centred = expected - expected.mean(1, keepdim=True)
    spread = centred.square().mean(1).sqrt()
    skew = (centred / spread[:, None]).pow(3).mean(1)
    kurtosis = (centred / spread[:, None]).pow(4).mean(1) - 3
    torch.testing.assert_close(torch.cat([f.skew for f in found]), skew)
    torch.testing.assert_close(torch.cat([f.kurtosis for f in found]), kurtosis)


@pytest.mark.parametrize("bos", [True, False])
def test_token_texts_join_to_the_text(bos: bool) -> None:
    tokenizer = build_tokenizer(bos=bos)
    texts = [*TEXTS, "", " leading and trailing ", "\x00\x1b[1m\t\r\n", "</s> inside"]
    ids = [list(row) for row in tokenizer(texts)["input_ids"]]
    for text, row, pieces in zip(
        texts, ids, document_token_texts(tokenizer, texts, ids), strict=True
    ):
        assert len(pieces) == len(row)
        assert "".join(pieces[1 if bos else 0 :]) == text
        assert not bos or pieces[0] == "<s>"


def test_token_texts_of_cut_and_of_foreign_ids() -> None:
    tokenizer = build_tokenizer()
    text = TEXTS[0]
    ids = list(tokenizer(text)["input_ids"])
    [cut] = document_token_texts(tokenizer, [text], [ids[:5]])
    assert text.startswith("".join(cut[1:]))
    [foreign] = document_token_texts(tokenizer, ["another text"], [ids])
    assert "".join(foreign) == tokenizer.decode(ids)


def test_single_tokens_have_readable_texts() -> None:
    tokenizer = build_tokenizer()
    ids = list(tokenizer(" the harbour")["input_ids"])
    texts = vocabulary_texts(tokenizer, [*ids, 10**6])
    assert texts[0] == "<s>"
    assert "".join(texts[1:-1]) == " the harbour"
    assert texts[-1] == "<1000000>"
