"""`like:` with a text: features by what they mean, with and without word vectors."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.meaning.words import has, question_words, stem
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import parse_query
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import TOPICS, make_index
from tests.helpers.word_vectors import model2vec_folder

SAE = "fixture-sae"
WORDS = [word for words in TOPICS.values() for word in words]
SAILING = {WORDS.index(word) for word in TOPICS["sailing"]}
Find = Callable[[str], list[int]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    found = Workspace(tmp_path_factory.mktemp("meaning"))
    make_index(found, SAE)
    annotations = Annotations(found.annotations_path)
    annotations.set_concept(SAE, 30, "ships at sea")
    annotations.set_concept(SAE, 31, "bread and cakes", note="what bakers make")
    return found


@pytest.fixture(scope="module")
def find(workspace: Workspace) -> Find:
    store = FeatureStore.open(workspace, SAE, Annotations(workspace.annotations_path))
    return lambda text: store.find(parse_query(text)).tolist()


def test_a_question_is_what_is_left_of_it_without_plain_words() -> None:
    assert question_words("Texts about the SEA and ships") == ["sea", "ship"]
    assert question_words("the words about") == ["the", "word", "about"]
    assert [stem(word) for word in ("stories", "is", "sailing", "gas")] == [
        "stor",
        "is",
        "sail",
        "gas",
    ]


def test_names_tokens_and_texts_count_and_other_words_of_the_texts_less(find: Find) -> None:
    assert find('like:"a ship"')[0] == 30
    assert 31 in find('like:"features about baking and bakers"')
    harbour = find('like:"texts about harbours"')
    assert harbour[0] == WORDS.index("harbour")
    others = [feature for feature in harbour[:8] if feature in SAILING]
    assert len(others) >= 3  # words that stand in texts with a harbour
    assert WORDS.index("oven") not in harbour[:8]


def test_it_is_one_condition_among_others_and_nothing_is_like_nonsense(find: Find) -> None:
    assert find('like:"a ship" named:no -like:harbour').count(30) == 0
    assert find('like:"qqqq zzzz"') == []
    assert set(find('like:"a ship" named:yes')) == {30}


def test_with_word_vectors_a_word_that_is_nowhere_finds_those_near_it(
    find: Find, tmp_path: Path
) -> None:
    assert find('like:"dessert"') == []
    folder = model2vec_folder(tmp_path / "vectors", [("dessert", "cakes", "dough"), ("storm",)])
    assert main(["config", "set", "semantic.model", str(folder)]) == 0
    found = find('like:"dessert"')
    assert set(found[:2]) == {31, WORDS.index("dough")}
    assert main(["config", "set", "semantic.model", str(tmp_path)]) == 0
    with pytest.raises(UserError, match="is not a model2vec folder"):
        find('like:"dessert"')
    (folder / "model.safetensors").write_bytes(b"no tensors")


def test_a_short_word_has_few_forms() -> None:
    assert has("calm seas", "sea")
    assert not has("a seam of coal in this season", "sea")
    assert has("two ships", "ship")
