"""Token ids and texts: padding, special tokens, and the text of each token."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.language_model import LanguageModel
from mi_crow.language_model.detokenize import Detokenizer, decode, shown_tokens, token_texts
from mi_crow.language_model.tokenize import encode_batch, special_ids, tokenizer_hash
from mi_crow.mechanistic.features.index.tables.token_texts import vocabulary_texts
from tests.helpers.tiny_models import TEXTS, build_tokenizer

BYTE_LEVEL = build_tokenizer()


def build_sentencepiece() -> Any:
    """A SentencePiece-like tokenizer with byte fallback, as Llama 2 has."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([text for text in TEXTS if text.isascii()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


SENTENCEPIECE = build_sentencepiece()
EITHER = st.sampled_from([BYTE_LEVEL, SENTENCEPIECE])


@pytest.mark.slow
@given(text=st.text(max_size=40), tokenizer=EITHER)
def test_the_pieces_joined_are_the_decoded_text(text: str, tokenizer: Any) -> None:
    ids = tokenizer(text).input_ids
    pieces = token_texts(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == decode(tokenizer, ids)


@given(data=st.data(), tokenizer=EITHER)
def test_so_they_are_for_ids_that_no_text_has(data: st.DataObject, tokenizer: Any) -> None:
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=12))
    assert "".join(token_texts(tokenizer, ids)) == (decode(tokenizer, ids) if ids else "")


@pytest.mark.slow
@given(text=st.text(max_size=40))
def test_streamed_pieces_joined_are_the_text(text: str) -> None:
    ids = BYTE_LEVEL(text, add_special_tokens=False).input_ids
    stream = Detokenizer(BYTE_LEVEL)
    assert "".join([stream.push(i) for i in ids] + [stream.flush()]) == text


def test_spaces_and_long_characters_go_to_their_token() -> None:
    ids = SENTENCEPIECE("The ferry left 🙂 it").input_ids
    pieces = token_texts(SENTENCEPIECE, ids)
    assert pieces[0] == "The"
    assert "🙂" in pieces
    assert pieces[pieces.index("🙂") - 1] == ""
    assert "".join(pieces) == "The ferry left 🙂 it"


def test_a_continuation_keeps_the_space_before_its_first_word() -> None:
    before = SENTENCEPIECE("The ferry").input_ids
    after = SENTENCEPIECE("The ferry left").input_ids[len(before) :]
    stream = Detokenizer(SENTENCEPIECE, before)
    assert "".join([stream.push(i) for i in after] + [stream.flush()]) == " left"


def test_padding_is_on_the_right_and_masked(tiny_lm: LanguageModel) -> None:
    encoding = encode_batch(tiny_lm.tokenizer, ["The ferry", TEXTS[0]], context_length=16)
    short = len(tiny_lm.tokenizer("The ferry").input_ids)
    assert encoding.input_ids.shape == (2, 16)
    assert encoding.attention_mask[0].tolist() == [1] * short + [0] * (16 - short)
    assert encoding.special[0, short:].all()
    assert encoding.special[0, 0]  # BOS
    assert not encoding.special[0, 1:short].any()


def test_id_zero_is_an_ordinary_token(tiny_lm: LanguageModel) -> None:
    text = tiny_lm.tokenizer.decode([0])
    encoding = encode_batch(tiny_lm.tokenizer, [text])
    assert encoding.input_ids[0].tolist() == [tiny_lm.tokenizer.bos_token_id, 0]
    assert encoding.special[0].tolist() == [True, False]


def test_models_without_bos_or_padding_token_work() -> None:
    tokenizer = build_tokenizer(bos=False, pad=False)
    encoding = encode_batch(tokenizer, ["The ferry", "The"])
    assert encoding.special.tolist() == (encoding.attention_mask == 0).tolist()


def test_added_special_tokens_are_special_too() -> None:
    from tokenizers import AddedToken

    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True), AddedToken("ordinary")])
    assert tokenizer.convert_tokens_to_ids("<|turn|>") in special_ids(tokenizer)
    assert tokenizer.convert_tokens_to_ids("ordinary") not in special_ids(tokenizer)


def test_the_hash_follows_vocabulary_and_special_tokens() -> None:
    assert tokenizer_hash(build_tokenizer()) == tokenizer_hash(build_tokenizer())
    assert tokenizer_hash(build_tokenizer()) != tokenizer_hash(build_tokenizer(vocabulary=300))
    assert tokenizer_hash(build_tokenizer()) != tokenizer_hash(build_tokenizer(bos=False))


@pytest.mark.parametrize("length", [1, 5])
def test_texts_are_cut_to_the_context(tiny_lm: LanguageModel, length: int) -> None:
    assert encode_batch(tiny_lm.tokenizer, TEXTS[:2], length).input_ids.shape == (2, length)


def test_bytes_of_a_broken_character_are_told_apart() -> None:
    smile = BYTE_LEVEL("🙂", add_special_tokens=False).input_ids
    whole = shown_tokens(BYTE_LEVEL, smile, parts=False)
    assert "".join(whole) == "🙂"
    apart = shown_tokens(BYTE_LEVEL, smile)
    assert apart[-1] == "🙂"
    assert all(one.startswith("<0x") for one in apart[:-1])
    begun_inside = shown_tokens(SENTENCEPIECE, SENTENCEPIECE("🙂 it").input_ids[-4:])
    assert begun_inside[0] == "<0x9F>"
    assert "".join(begun_inside).endswith(" it")
    assert "\ufffd" not in "".join(begun_inside)


def test_a_vocabulary_names_the_bytes_of_its_tokens() -> None:
    [byte] = [BYTE_LEVEL.convert_tokens_to_ids("â")]
    assert vocabulary_texts(BYTE_LEVEL, [byte]) == ["<0xE2>"]
