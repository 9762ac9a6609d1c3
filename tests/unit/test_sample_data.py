"""The sample corpus and the sample model keep what their README promises."""

import json
import math
import random
import re
from collections import Counter, defaultdict
from functools import cache
from itertools import islice

import polars as pl
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from sample_data import corpus_path, model_path
from sample_data.check_model import perplexity, sample_texts, unigram_perplexity
from sample_data.generate_corpus import corpus
from sample_data.grammar.engine import Context, expand, finish, words
from sample_data.grammar.inflection import inflect_verb, plural
from sample_data.grammar.passages import TOPICS, passages
from sample_data.probe import TopicProbe, consistency

AMBIGUOUS = ["bank", "scale", "pitch", "note", "bar", "crane", "check", "board"]


@cache
def committed() -> pl.DataFrame:
    return pl.read_parquet(corpus_path())


@cache
def held_out() -> tuple[list[str], list[str]]:
    tenth = committed()[::10]
    return tenth["text"].to_list(), tenth["label"].to_list()


@cache
def topic_probe() -> TopicProbe:
    rest = committed().with_row_index().filter(pl.col("index") % 10 != 0)
    return TopicProbe(rest["text"].to_list(), rest["label"].to_list())


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()


def test_the_corpus_has_its_four_fields_and_no_passage_twice():
    assert committed().columns == ["id", "text", "label", "register"]
    assert committed().height >= 4000
    assert committed()["id"].n_unique() == committed()["text"].n_unique() == committed().height


def test_topics_are_equally_frequent_and_registers_shape_every_topic():
    topics = committed()["label"].value_counts()["count"]
    assert len(topics) >= 16
    assert topics.max() == topics.min()
    pairs = committed().group_by("label", "register").len()
    assert committed()["register"].n_unique() >= 10
    assert pairs.height == len(topics) * committed()["register"].n_unique()


@pytest.mark.slow
def test_every_passage_is_50_to_120_tokens_long(tokenizer):
    lengths = [len(ids) - 1 for ids in tokenizer(committed()["text"].to_list())["input_ids"]]
    assert min(lengths) >= 50
    assert max(lengths) <= 120


def test_no_ten_word_string_is_in_more_than_a_five_hundredth_of_the_passages():
    counts: Counter[str] = Counter()
    for text in committed()["text"]:
        tokens = text.lower().split()
        counts.update({" ".join(tokens[at : at + 10]) for at in range(len(tokens) - 9)})
    string, times = counts.most_common(1)[0]
    assert times / committed().height <= 0.002, string


def test_ambiguous_words_are_shared_by_at_least_three_topics():
    topics_of = defaultdict(set)
    for text, label in committed().select("text", "label").iter_rows():
        for word in set(re.findall("[a-z]+", text.lower())):
            topics_of[word].add(label)
    assert {word: topics_of[word] for word in AMBIGUOUS if len(topics_of[word]) < 3} == {}


def test_no_template_sign_or_wrong_article_is_left_in_a_text():
    wrong = re.compile(r"[{}\[\]|^+_]|\ba [aeio]\w|\s[,.;?!]|  |[,.]\.")
    assert [text for text in committed()["text"] if wrong.search(text)] == []


def test_the_generator_writes_the_committed_corpus_again():
    assert corpus(320).to_pylist() == committed().head(320).to_dicts()


def test_another_seed_gives_other_passages():
    assert {p.text for p in passages(64, seed=1)}.isdisjoint(p.text for p in passages(64, seed=2))


@pytest.mark.slow
def test_the_model_was_not_trained_on_the_corpus():
    trained_on = {passage.text for passage in islice(passages(2000, seed=0), 2000)}
    assert trained_on.isdisjoint(committed()["text"])


@pytest.mark.slow
def test_words_tell_the_topic_but_not_always():
    texts, labels = held_out()
    probe = topic_probe()
    right = sum(a == b for a, b in zip(probe.predict(texts), labels, strict=True)) / len(texts)
    assert 0.95 <= right < 1.0
    assert 0.90 <= consistency(probe, texts) < 1.0


def test_the_probe_sees_no_consistency_in_texts_glued_from_two_topics():
    texts, labels = held_out()
    by_topic = dict(zip(labels, texts, strict=True))
    topics = sorted(by_topic)
    glued = [
        f"{by_topic[one]} {by_topic[other]}"
        for one, other in zip(topics, topics[1:] + topics[:1], strict=True)
    ]
    assert consistency(topic_probe(), glued) <= 0.2


def test_the_model_is_a_small_llama_in_bfloat16():
    weights = model_path() / "model.safetensors"
    assert weights.stat().st_size < 12e6
    with safe_open(weights, framework="pt") as stored:
        names = list(stored.keys())
        assert {stored.get_slice(name).get_dtype() for name in names} == {"BF16"}
        sizes = [math.prod(stored.get_slice(name).get_shape()) for name in names]
    assert 2e6 <= sum(sizes) <= 6e6
    config = json.loads((model_path() / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_the_tokenizer_is_fast_puts_bos_first_and_gives_every_text_back(tokenizer):
    text = 'Nadia paid 12 euros — "naïve", she said.'
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.is_fast
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


@pytest.mark.slow
def test_the_model_predicts_unseen_passages_far_better_than_word_counts_do(model, tokenizer):
    texts = held_out()[0][:48]
    with_context = perplexity(model, tokenizer, texts)
    assert with_context < 20
    assert with_context < unigram_perplexity(tokenizer, texts) / 10


@pytest.mark.slow
def test_unprompted_samples_are_passages_on_one_topic(model, tokenizer):
    samples = sample_texts(model, tokenizer, 32, seed=1)
    assert min(len(text.split()) for text in samples) >= 20
    assert consistency(topic_probe(), samples) >= 0.7
    assert len(set(topic_probe().predict(samples))) >= 8


def test_every_template_of_every_topic_can_be_expanded():
    for passage in passages(16 * 40, seed="templates"):
        assert passage.label in TOPICS
        assert passage.text


def test_templates_fill_slots_agree_and_set_articles():
    lists = words(
        animal="owl", clause="the {animal} / hunt mice and +eat them", many="owls // be here"
    )
    context = Context(random.Random(0), lists, {})
    assert finish(expand(context, "^a_ {animal} woke.")) == "An owl woke."
    assert expand(context, "{clause:past}") == "the owl hunted mice and ate them"
    assert expand(context, "{clause}") == "the owl hunts mice and eats them"
    assert expand(context, "{many:past}") == "owls were here"
    assert expand(context, "(one|one)[]") == "one"
    with pytest.raises(KeyError, match="no word list"):
        expand(context, "{missing}")


@pytest.mark.parametrize(
    ("verb", "form", "expected"),
    [
        ("chop", "past", "chopped"),
        ("carry", "s", "carries"),
        ("tie", "ing", "tying"),
        ("bake", "ing", "baking"),
        ("write", "past", "wrote"),
        ("be", "past_plural", "were"),
    ],
)
def test_verbs_are_inflected(verb, form, expected):
    assert inflect_verb(verb, form) == expected


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("fillet of bass", "fillets of bass"), ("fig tree", "fig trees"), ("gravy", "gravies")],
)
def test_nouns_are_put_in_the_plural(noun, expected):
    assert plural(noun) == expected
