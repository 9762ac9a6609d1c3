"""Features of another SAE that point the same way; `mi-crow features` and `feature` as commands."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mi_crow.cli.entry import run_command_line
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features import similar
from mi_crow.mechanistic.features.records import auroc_text
from mi_crow.mechanistic.features.similar import DecoderRows, similar_features
from mi_crow.mechanistic.sae import CrossLayerSae
from mi_crow.store.workspace import Workspace
from tests.helpers.cross_layer_fixture import shared, small
from tests.helpers.index_fixture import make_index

WIDTH = 16


def decoder(rows: int, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def saved(folder: Path, rows: torch.Tensor) -> DecoderRows:
    folder.mkdir(exist_ok=True)
    tensors = {"b_dec": torch.zeros(rows.shape[1]), "W_dec": rows.contiguous()}
    save_file(tensors, str(folder / "sae_weights.safetensors"))
    return DecoderRows.open(folder, folder.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_nearest_are_those_of_greatest_cosine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(similar, "_BLOCK_BYTES", 7 * 4 * WIDTH)  # blocks that do not divide 40
    ours, theirs = decoder(12).to(dtype), decoder(40, seed=1).to(dtype)
    found = similar_features(saved(tmp_path / "a", ours), 5, saved(tmp_path / "b", theirs), 6)
    cosines = torch.cosine_similarity(ours[5:6].double(), theirs.double()).numpy()
    assert [one.feature for one in found] == np.argsort(-cosines)[:6].tolist()
    assert [one.cosine for one in found] == pytest.approx(np.sort(cosines)[::-1][:6], abs=1e-6)


def test_scale_does_not_matter(tmp_path: Path) -> None:
    rows = decoder(6)
    rows[4] = rows[2] * 8
    a = saved(tmp_path / "a", rows)
    found = similar_features(a, 2, a, 2)
    assert {one.feature for one in found} == {2, 4}
    assert [one.cosine for one in found] == pytest.approx([1.0, 1.0])


def test_rows_without_a_direction_never_appear(tmp_path: Path) -> None:
    rows = decoder(6)
    rows[1] = 0
    rows[3] = float("nan")
    a = saved(tmp_path / "a", rows)
    assert {one.feature for one in similar_features(a, 0, a)} == {0, 2, 4, 5}
    with pytest.raises(UserError, match="no decoder direction"):
        similar_features(a, 1, a)


def test_another_width_or_feature_is_refused(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", decoder(6)), saved(tmp_path / "b", decoder(6, 24))
    with pytest.raises(UserError, match="'a' is 16 wide, that of 'b' 24"):
        similar_features(a, 0, b)
    for feature in (-1, 6):
        with pytest.raises(NotFoundError, match=f"feature {feature} "):
            similar_features(a, feature, a)


@pytest.mark.parametrize("made", [partial(small, "clt"), partial(small, "crosscoder"), shared])
def test_the_directions_of_several_layers_are_those_of_the_sae(
    tmp_path: Path, made: Callable[..., CrossLayerSae]
) -> None:
    sae = made(numbers=(0, 1, 2))
    sae.save(tmp_path / "a")
    rows = DecoderRows.open(tmp_path / "a", "a")
    expected = sae.decoder_rows
    assert (len(rows), rows.width) == expected.shape
    assert np.allclose(rows.rows(0, len(rows)), expected, atol=1e-6)
    assert np.allclose(rows.rows(35, 43), expected[35:43], atol=1e-6)
    plain = saved(tmp_path / "b", expected.contiguous())
    [same, *_] = similar_features(rows, 3, plain)
    assert (same.feature, round(same.cosine, 5)) == (3, 1.0)


def test_a_folder_that_does_not_say_its_layers_is_told(tmp_path: Path) -> None:
    shared(numbers=(0, 1)).save(tmp_path / "a")
    for config in ("{}", '{"layers": []}', '{"layers": [{"number": 7}], "shared": true}', "{"):
        (tmp_path / "a" / "cfg.json").write_text(config)
        with pytest.raises(CorruptDataError, match="the decoder of SAE 'a' cannot be read"):
            DecoderRows.open(tmp_path / "a", "a")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100, None])
def test_weights_that_cannot_be_read_are_told(tmp_path: Path, content: bytes | None) -> None:
    saved(tmp_path / "a", decoder(6))
    path = tmp_path / "a" / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(CorruptDataError, match="'a'"):
        DecoderRows.open(tmp_path / "a", "a")
    path.unlink()
    with pytest.raises(NotFoundError, match="'a'"):
        DecoderRows.open(tmp_path / "a", "a")


@pytest.mark.slow
def test_it_costs_no_torch(tmp_path: Path) -> None:
    saved(tmp_path / "a", decoder(6).bfloat16())
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mi_crow.mechanistic.features.similar import DecoderRows, similar_features\n"
        "a = DecoderRows.open(Path(sys.argv[1]), 'a')\n"
        "assert similar_features(a, 0, a)[0].feature == 0\n"
        "assert not {'torch', 'duckdb', 'safetensors'} & set(sys.modules)\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "a")]
    assert subprocess.run(arguments, check=False).returncode == 0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two indexed SAEs with decoders and one that is wider; three features have concepts."""
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    make_index(workspace, "one")
    make_index(workspace, "two", seed=1)
    make_index(workspace, "wide", n_features=24, n_documents=8)
    for number, (sae_id, width) in enumerate((("one", 16), ("two", 16), ("wide", 24))):
        saved(workspace.saes_dir / sae_id, decoder(24, width, number))
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("one", 3, "boats", note="why", tags=["sea"])
    annotations.set_concept("one", 5, "Anchors", tags=["sea"])
    annotations.set_concept("two", 7, "the other")
    return workspace


def ask(workspace: Workspace, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    command = ["--workspace", str(workspace.root), "--json", *arguments]
    assert run_command_line(command) == 0
    return json.loads(capsys.readouterr().out)


def complaint(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, str]:
    command = ["--workspace", str(workspace.root), "--json", *arguments]
    assert run_command_line(command) == 2
    return json.loads(capsys.readouterr().err)


def test_the_command_filters_and_sorts(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    def features(*arguments: str) -> list[int]:
        rows = ask(workspace, capsys, "features", "--sae", "one", "--limit", "64", *arguments)
        return [row["feature"] for row in rows]

    assert features("--tag", "sea", "--sort", "concept", "--ascending") == [5, 3]
    assert features("--has-note") == [3]
    assert set(features("--no-has-note", "--named")) == {5}
    assert features("--search", "boats") == [3]
    arguments = ("--label", "sailing", "--min-auroc", "0.72", "--sort", "auroc")
    rows = ask(workspace, capsys, "features", "--sae", "one", *arguments)
    assert rows
    assert {row["top_label"] for row in rows} == {"sailing"}
    scores = [row["top_auroc"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] >= 0.72
    best = ask(workspace, capsys, "features", "--sae", "one", "--sort", "auroc:sailing")
    assert best[0]["top_label"] == "sailing"
    assert 33 in features("--no-alive")
    assert 33 not in features("--alive")


def test_the_command_names_what_is_wrong(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    order = complaint(workspace, capsys, "features", "--sae", "one", "--sort", "size")
    assert "'size'" in order["error"]
    assert "top_auroc" in order["hint"]
    label = complaint(workspace, capsys, "features", "--sae", "one", "--label", "sailin")
    assert "sailing" in label["hint"]
    arguments = ("feature", "--sae", "one", "3", "--similar-in")
    assert "24" in complaint(workspace, capsys, *arguments, "wide")["error"]
    assert "'none'" in complaint(workspace, capsys, *arguments, "none")["error"]


def test_features_on_a_text_as_a_command(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ask(workspace, capsys, "features", "--sae", "one", "--on-text", "harbour")
    assert 12 in [row["feature"] for row in rows], "the feature that fires on the word"
    assert all(0 < row["strength"] <= 1 and row["documents"] > 0 for row in rows)
    command = ["--workspace", str(workspace.root), "features", "--sae", "one", "--on-text"]
    assert run_command_line([*command, "zzzz"]) == 0
    assert "mi-crow inspect" in capsys.readouterr().out
    assert run_command_line([*command, "harbour"]) == 0
    assert "strength" in capsys.readouterr().out


def test_similar_features_as_a_command(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("feature", "--sae", "one", "3", "--similar-in", "two")
    answer = ask(workspace, capsys, *arguments)
    assert answer["similar_in"] == "two"
    ours, theirs = decoder(24, 16, 0), decoder(24, 16, 1)
    cosines = torch.cosine_similarity(ours[3:4], theirs)
    assert answer["similar"][0]["feature"] == int(cosines.argmax())
    named = {one["feature"]: one["concept"] for one in answer["similar"]}
    assert all(named[f] == ("the other" if f == 7 else None) for f in named)
    assert run_command_line(["--workspace", str(workspace.root), *arguments]) == 0
    assert "in two" in capsys.readouterr().out


def test_an_auroc_below_one_never_prints_as_one() -> None:
    assert [auroc_text(one) for one in (0.5, 0.994, 0.9996, 1.0, 0.0)] == [
        "0.50",
        "0.99",
        "0.999",
        "1.00",
        "0.00",
    ]
    assert [auroc_text(one, 3) for one in (0.8314, 0.99996, 1.0)] == ["0.831", "0.9999", "1.000"]
