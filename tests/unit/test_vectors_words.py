"""Words that name texts, layers and files of vectors: what they mean, and what is refused."""

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.vectors import texts, top_texts
from mi_crow.mechanistic.vectors.exchange import export_vector, import_vector
from mi_crow.mechanistic.vectors.from_sae import point_for
from mi_crow.mechanistic.vectors.stored import SteeringVector
from mi_crow.store.workspace import Workspace

DOCUMENTS = [(0, "a ship", "sea"), (1, "a loaf", None), (2, "a gull", "sea"), (3, "rye", "bread")]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(texts, "run_documents", lambda workspace, run_id: iter(DOCUMENTS))
    return Workspace(tmp_path)


@pytest.mark.parametrize(
    ("word", "without", "found"),
    [
        ("label:sea", (), ["a ship", "a gull"]),
        ("others", ("label:sea", "documents:3"), ["a loaf"]),
        ("others", (), ["a ship", "a loaf", "a gull", "rye"]),
        ("documents:0,2-3", (), ["a ship", "a gull", "rye"]),
        ("document:1", (), ["a loaf"]),
        ("plain words", (), ["plain words"]),
    ],
)
def test_words_name_texts(
    workspace: Workspace, word: str, without: tuple[str, ...], found: list[str]
) -> None:
    assert texts.texts_of(workspace, [word], "run", 9, 1, not_those=without) == found
    drawn = texts.texts_of(workspace, [word, word], "run", 1, 1, not_those=without)
    assert len(drawn) == 1
    assert set(drawn) <= set(found)


@pytest.mark.parametrize(
    ("name", "held", "found"),
    [
        ("lines.txt", "rain\nhail\nsnow\n", ["rain", "hail", "snow"]),
        ("blank.txt", "rain\nand hail\n  \x20\nsnow\n", ["rain\nand hail", "snow"]),
        ("windows.txt", "rain\r\nhail\r\n", ["rain", "hail"]),
        ("parted.txt", "rain\nand hail\n\nsnow\n", ["rain\nand hail", "snow"]),
        ("prose.md", "rain\nand hail\n", ["rain\nand hail"]),
        ("one.jsonl", '{"text": "rain\\nand hail"}\n', ["rain\nand hail"]),
    ],
)
def test_each_line_of_a_txt_file_without_empty_lines_is_a_text(
    workspace: Workspace, tmp_path: Path, name: str, held: str, found: list[str]
) -> None:
    (path := tmp_path / name).write_bytes(held.encode())
    assert texts.texts_of(workspace, [str(path)], None, 9, 1) == found
    with gzip.open(f"{path}.gz", "wb") as packed:
        packed.write(held.encode())
    assert texts.texts_of(workspace, [f"{path}.gz"], None, 9, 1) == found


def test_a_check_holds_documents_of_a_run_against_its_others(workspace: Workspace) -> None:
    def sides(words: list[str], against: list[str]) -> tuple[list[str], list[str]]:
        return texts.texts_to_check(workspace, words, against, "run", 9, 1)

    assert sides(["label:sea"], []) == (["a ship", "a gull"], ["a loaf", "rye"])
    assert sides(["label:sea"], ["documents:3"]) == (["a ship", "a gull"], ["rye"])
    assert sides(["label:sea", "a mast"], []) == (["a ship", "a gull", "a mast"], [])
    assert sides([], ["label:sea"]) == ([], ["a ship", "a gull"])


@pytest.mark.parametrize(
    ("word", "run_id", "says"),
    [
        ("label:fog", "run", "no document of run 'run' has label 'fog'; there is"),
        ("documents:2,7-9", "run", "run 'run' has no document 7"),
        ("documents:0-2000000", "run", "documents 0-2000000 are too many; name fewer"),
        ("label:sea", None, "'label:sea' needs a run; name one with --run"),
        ("  ", None, "there is no text in '  '; name others"),
    ],
)
def test_words_that_name_no_texts(
    workspace: Workspace, word: str, run_id: str | None, says: str
) -> None:
    with pytest.raises(UserError) as caught:
        texts.texts_of(workspace, [word], run_id, 9, 1)
    assert caught.value.sentence.startswith(says)


@pytest.mark.parametrize(
    ("word", "run_id", "counted", "says"),
    [
        (" ", "run", 4, "a text is empty; leave it out"),
        ("others", None, 4, "'others' needs a run"),
        ("no/such.txt", None, 4, "no file 'no/such.txt'"),
        ("label:fog", "run", 4, "no document of run 'run' has label 'fog'"),
        ("label:fog", "run", 3, ""),  # later parts may have it
        ("label:sea", "run", 4, ""),
        ("documents:1-2", "run", 4, ""),
        ("a text", None, 4, ""),
    ],
)
def test_words_are_checked_before_texts_are_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch,
    word: str, run_id: str | None, counted: int, says: str,
) -> None:  # fmt: skip
    seen = SimpleNamespace(labels={"sea": 2}, counted=counted, total=4)
    monkeypatch.setattr("mi_crow.store.runs.glance.glance_at", lambda *_: seen)
    monkeypatch.setattr(texts, "run_manifest", lambda *_: None)
    monkeypatch.setattr(Workspace, "run_dir", lambda workspace, run_id: workspace.root / run_id)
    if not says:
        texts.check_words(workspace, [word, "more"], run_id)
        return
    with pytest.raises(UserError) as caught:
        texts.check_words(workspace, [word], run_id)
    assert caught.value.sentence.startswith(says)


def test_what_means_a_file(tmp_path: Path) -> None:
    (tmp_path / "noted down").write_text("x")
    assert texts.names_texts(str(tmp_path / "noted down"))
    assert texts.names_texts("some.jsonl")
    assert not texts.names_texts("read some.jsonl")
    assert not texts.names_texts("a.txt" + "b" * 1024 + ".txt")
    assert not texts.names_texts("two\nlines.txt")


@pytest.mark.parametrize(
    ("layer", "points", "along", "of_sae"),
    [
        ("a.1", ("a.1", "b.2"), "a.1", "a.1"),
        (None, ("a.1",), "a.1", "a.1"),
        (None, ("a.1", "b.2"), None, "b.2"),
        ("c.3", ("a.1",), None, None),
        (None, ("a.1", "c.3"), None, None),
    ],
)
def test_the_layer_that_is_meant(
    layer: str | None, points: tuple[str, ...], along: str | None, of_sae: str | None
) -> None:
    vector = SteeringVector("v", {point: torch.ones(2) for point in points})
    asked: list[tuple[Any, str | None]] = [
        (lambda: top_texts._point_of(vector, layer), along),
        (lambda: point_for(vector, layer, "b.2"), of_sae),
    ]
    for ask, expected in asked:
        if expected is not None:
            assert ask() == expected
            continue
        with pytest.raises(UserError, match=f"vector 'v' is for {', '.join(points)}"):
            ask()


@pytest.mark.parametrize(
    ("key", "layer", "point"),
    [
        ("12", None, "resid_post.12"),
        ("model.layers.7", None, "resid_post.7"),
        ("direction_3", None, "resid_post.3"),
        ("mlp_out.4", None, "mlp_out.4"),
        ("anything", "resid_mid.2", "resid_mid.2"),
    ],
)
def test_a_tensor_is_for_the_layer_it_is_named_after(
    tmp_path: Path, key: str, layer: str | None, point: str
) -> None:
    save_file({key: torch.tensor([[1.0, 2.0]])}, path := tmp_path / "v.safetensors")
    found = import_vector(path, "v", layer, "org/model")
    assert {name: one.tolist() for name, one in found.directions.items()} == {point: [1.0, 2.0]}
    assert (found.made["method"], found.made["model_id"]) == ("imported", "org/model")
    export_vector(found, again := tmp_path / "again.safetensors")
    assert import_vector(again, "v").directions[point].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("tensors", "layer", "says"),
    [
        ({"w": torch.ones(2, 2)}, None, "holds 'w' of shape [2, 2], not a vector"),
        ({"weights": torch.ones(2)}, None, "does not say for which layer 'weights' is"),
        ({"1": torch.ones(2), "2": torch.ones(2)}, "a.9", "has directions for resid_post.1, resid"),
    ],
)
def test_a_file_that_does_not_say_its_layers(
    tmp_path: Path, tensors: dict[str, torch.Tensor], layer: str | None, says: str
) -> None:
    save_file(tensors, path := tmp_path / "v.safetensors")
    with pytest.raises(UserError) as caught:
        import_vector(path, "v", layer)
    assert says in caught.value.sentence


def test_what_is_no_file_of_a_vector(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file"):
        import_vector(tmp_path / "v.safetensors", "v")
    (tmp_path / "v.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        import_vector(tmp_path / "v.safetensors", "v")
    with pytest.raises(UserError, match=r"neither a \.safetensors nor a \.gguf file"):
        export_vector(SteeringVector("v", {"a.1": torch.ones(2)}), tmp_path / "v.bin")
    assert not (tmp_path / "v.bin").exists()
