"""Vectors: made from texts, stored, exchanged, taken apart, refined, ranked over a run."""

import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mi_crow.cli import main
from mi_crow.errors import CancelledError, CorruptDataError, UserError
from mi_crow.jobs import list_jobs
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.run import steer_prompt
from mi_crow.mechanistic.vectors.activations import TextActivations
from mi_crow.mechanistic.vectors.config import MakeConfig, VectorConfig
from mi_crow.mechanistic.vectors.exchange import export_vector, import_vector
from mi_crow.mechanistic.vectors.in_features import from_features, in_features, pooled_latents
from mi_crow.mechanistic.vectors.job import run_make
from mi_crow.mechanistic.vectors.make import make_vector, text_sets
from mi_crow.mechanistic.vectors.methods import difference_of_means, probe_direction
from mi_crow.mechanistic.vectors.stored import (
    SteeringVector,
    list_vectors,
    load_vector,
    norms_of,
    save_vector,
    vector_path,
)
from tests.helpers.index_runs import documents, save_run
from tests.helpers.progress import Watched
from tests.helpers.steering_fixture import LAYER, WIDTH, tiny_sae
from tests.helpers.tiny_models import TEXTS, build_model, build_tokenizer

SEA = [f"The ferry left harbour number {n} before dawn with gulls." for n in range(12)]
BREAD = [f"Bread needs {n} hours of flour, water and warm salt." for n in range(12)]
LAYERS = ("resid_post.1",)


def config(method: Any = "mean", **more) -> VectorConfig:
    return VectorConfig(LAYERS, tuple(SEA), tuple(BREAD), method, **more)


@pytest.mark.parametrize("method", ["mean", "pca", "probe", "reft-r1"])
def test_every_method_finds_the_direction_between_two_sets_of_texts(tiny_lm, workspace, method):
    vector = make_vector(workspace, tiny_lm, "sea", config(method, steps=3))
    [direction] = vector.directions.values()
    assert direction.shape == (WIDTH,)
    figures = vector.made["layers"]["resid_post.1"]
    assert figures["auroc"] > 0.99
    assert figures["max"] > 0
    if method != "reft-r1":
        again = make_vector(workspace, tiny_lm, "sea", config(method))
        assert torch.equal(again.directions["resid_post.1"], direction)
    assert all(one.grad is None for one in tiny_lm.model.parameters())
    assert tiny_lm.layers.get_hooks() == []


def test_a_probe_ignores_what_varies_without_telling_the_sets_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, generator=generator)
    x[:, 1] *= 30
    positive, negative = x[:100].clone(), x[100:].clone()
    positive[:, 0] += 3
    direction = probe_direction(positive, negative)
    means = difference_of_means(positive, negative)
    along = [float(one[0] / one.norm()) for one in (direction, means)]
    assert along[0] > max(along[1], 0.95)
    assert float(direction @ (means - direction)) == pytest.approx(0, abs=1e-3)


def test_texts_come_from_files_and_must_differ(workspace, tmp_path):
    (tmp_path / "sea.txt").write_text("\n\n".join(SEA))
    named = VectorConfig(LAYERS, (str(tmp_path / "sea.txt"),), tuple(BREAD))
    assert len(text_sets(workspace, named).positive) > 5
    for wrong, sentence in (
        ((("/no/such.txt",), ("b",)), "no file"),
        ((("a b",), ("a b",)), "among the texts of both sides"),
        ((("label:sea",), ("b",)), "needs a run"),
        ((("a",), ()), "'others' needs a run"),
    ):
        with pytest.raises(UserError, match=sentence):
            text_sets(workspace, VectorConfig(LAYERS, *wrong))
    with pytest.raises(UserError, match="needs 2 texts on each side, not 1"):
        text_sets(workspace, VectorConfig(LAYERS, ("a",), ("b",), "probe"))


def test_a_vector_keeps_how_it_was_made_and_is_written_once(workspace):
    vector = SteeringVector("calm", {"resid_post.1": torch.arange(4.0)}, {"method": "mean"})
    save_vector(workspace, vector)
    [summary] = list_vectors(workspace)
    assert (summary.name, summary.method, summary.widths) == ("calm", "mean", {"resid_post.1": 4})
    assert torch.equal(load_vector(workspace, "calm").directions["resid_post.1"], torch.arange(4.0))
    for wrong, sentence in (
        (vector, "'calm' exists already"),
        (SteeringVector("../a", vector.directions), "is not a valid name"),
        (SteeringVector("b", {}), "has no direction"),
        (SteeringVector("b", {"x": torch.zeros(4)}), "is zero"),
        (SteeringVector("b", {"x": torch.tensor([1.0, float("nan")])}), "not finite"),
    ):
        with pytest.raises(UserError, match=sentence):
            save_vector(workspace, wrong)
    assert [path.name for path in workspace.vectors_dir.iterdir()] == ["calm.safetensors"]
    vector_path(workspace, "calm").write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    assert list_vectors(workspace) == []
    with pytest.raises(CorruptDataError):
        load_vector(workspace, "calm")


def test_a_control_vector_goes_to_gguf_and_back(tmp_path):
    rows = {f"resid_post.{n}": torch.linspace(-n, n, 5) for n in (1, 12)}
    path = tmp_path / "v.gguf"
    export_vector(SteeringVector("v", rows, {"model_type": "llama"}), path)
    again = import_vector(path, "again")
    assert again.made["model_type"] == "llama"
    assert list(again.directions) == list(rows)
    assert all(torch.equal(again.directions[key], row) for key, row in rows.items())
    reader = pytest.importorskip("gguf").GGUFReader(path)
    assert [one.name for one in reader.tensors] == ["direction.1", "direction.12"]
    assert reader.tensors[1].data.tolist() == rows["resid_post.12"].tolist()
    with pytest.raises(UserError, match=r"no place for a direction at resid_post\.0"):
        export_vector(SteeringVector("v", {"resid_post.0": torch.ones(3)}), tmp_path / "w.gguf")
    assert not (tmp_path / "w.gguf").exists()


def test_a_file_of_the_gguf_package_is_read(tmp_path):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "repeng.gguf"
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 1)
    writer.add_tensor("direction.3", torch.arange(4.0).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = import_vector(path, "r")
    assert found.directions["resid_post.3"].tolist() == [0, 1, 2, 3]


def test_what_is_no_vector_is_refused_in_a_sentence(tmp_path):
    from safetensors.torch import save_file

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    model = tmp_path / "model.gguf"
    keys = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    model.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + keys)
    save_file({"w": torch.ones(2, 3)}, tmp_path / "sae.safetensors")
    save_file({"w": torch.ones(3)}, tmp_path / "bare.safetensors")
    (tmp_path / "torn.gguf").write_bytes(b"GGUF\x03")
    (tmp_path / "torn.safetensors").write_bytes(b"x")
    for name, sentence in (
        ("model.gguf", "is a GGUF file of 'llama', not a control vector"),
        ("sae.safetensors", "not a vector"),
        ("bare.safetensors", "does not say for which layer"),
        ("torn.gguf", "damaged GGUF header"),
        ("torn.safetensors", "not a readable safetensors file"),
        ("none.gguf", "no file"),
        ("model.pt", "no file"),
    ):
        with pytest.raises(UserError, match=sentence) as caught:
            import_vector(tmp_path / name, "v")
        assert "\n" not in caught.value.sentence
    found = import_vector(tmp_path / "bare.safetensors", "v", "resid_post.4")
    assert found.directions["resid_post.4"].tolist() == [1, 1, 1]


def test_a_vector_of_features_is_taken_apart_into_them():
    sae = tiny_sae()
    vector = from_features(sae, [(3, 2.0), (7, 1.0), (12, -0.5)])
    found = in_features(sae, vector, 3)
    assert {feature for feature, _ in found.pursuit} == {3, 7, 12}
    assert dict(found.pursuit)[3] == pytest.approx(2.0, rel=1e-4)
    assert found.explained == pytest.approx(1.0, abs=1e-5)
    assert found.nearest[0][0] == 3
    with pytest.raises(UserError, match="width 4"):
        in_features(sae, torch.ones(4), 3)


def test_the_command_line_makes_shows_refines_and_steers(workspace, tiny_model_dir, capsys):
    sae = tiny_sae(model=str(tiny_model_dir))
    sae.save(workspace.make_sae_dir("tiny", "tiny"))

    def run(*words: str) -> dict:
        code = main(["vector", *words, "--json", "--workspace", str(workspace.root)])
        found = capsys.readouterr()
        return json.loads(found.out if code == 0 else found.err) | {"code": code}

    texts = [word for text in SEA for word in ("--for", text)]
    texts += [word for text in BREAD for word in ("--against", text)]
    model = ["--model", str(tiny_model_dir), "--layer", "resid_post.1"]
    made = run("make", "sea", *model, *texts, "--device", "cpu")
    assert made["layers"] == {"resid_post.1": WIDTH}
    assert run("make", "sea", *model, *texts)["code"] == 2
    assert run("from-feature", "three", "3+0.5*7", "--sae", "tiny")["layers"]
    shown = run("show", "three", "--sae", "tiny", "--top", "2")
    assert {one["feature"] for one in shown["pursuit"]} == {3, 7}
    refined = run("refine", "sea", "--sae", "tiny", "--keep", "4", "--device", "cpu")
    assert (refined["name"], len(refined["made"]["refined"]["features"])) == ("sea-4", 4)
    # Of several layers only that of the SAE changes.
    found = load_vector(workspace, "sea")
    (own,) = found.directions.values()
    figures = {"resid_post.0": {"max": 2.0}, **found.made["layers"]}
    both = {"resid_post.0": 2 * own, "resid_post.1": own}
    made = {**found.made, "layers": figures}
    save_vector(workspace, replace(found, name="both", directions=both, made=made))
    refined = run("refine", "both", "--sae", "tiny", "--keep", "4", "--device", "cpu")
    assert list(refined["layers"]) == ["resid_post.0", "resid_post.1"]
    new, alone = (load_vector(workspace, name) for name in ("both-4", "sea-4"))
    assert torch.equal(new.directions["resid_post.0"], 2 * own)
    assert torch.equal(new.directions["resid_post.1"], alone.directions["resid_post.1"])
    assert (new.figure("resid_post.0", "max"), new.figure("resid_post.1", "max")) == (2.0, None)
    # What is of another layer or width is not refined: the result would not be that vector.
    found = load_vector(workspace, "sea")
    (own,) = found.directions.values()
    for name, directions, sentence in (
        ("early", {"resid_post.0": own}, "vector 'early' is for another layer than SAE 'tiny'"),
        ("wide", {"resid_post.1": own.repeat(2)}, f"vector 'wide' has width {2 * WIDTH}, SAE"),
    ):
        save_vector(workspace, replace(found, name=name, directions=directions))
        said = run("refine", name, "--sae", "tiny", "--keep", "4", "--device", "cpu")
        assert sentence in said["error"]
        assert said["code"] == 2
        assert "not found" in run("show", f"{name}-4")["error"]
    assert "is not in the SAE" in run("from-feature", "x", "999", "--sae", "tiny")["error"]
    assert "does not say from which texts" in run("refine", "three", "--sae", "tiny")["error"]
    one = parse_intervention("vector:sea=+1norm@feedback")
    found = steer_prompt(workspace, "tiny", "The ferry", [one], device="cpu", max_new_tokens=4)
    assert found["metrics"]["kl"] > 0
    words = ["inspect", "--sae", "tiny", "--vector", "sea", "The ferry left", "--device", "cpu"]
    assert main([*words, "--json", "--workspace", str(workspace.root)]) == 0
    inspected = json.loads(capsys.readouterr().out)
    [row] = inspected["vectors"]
    assert len(row["acts"]) == len(inspected["tokens"])
    assert row["acts"][0] == 0  # the start token
    assert row["max_act"] == max(row["acts"])
    assert run("rm", "sea")["removed"] == "sea"
    assert "vector 'sea' not found" in run("show", "sea")["error"]


def test_the_texts_of_a_run_are_ranked_along_a_vector(workspace):
    generator = np.random.default_rng(3)
    acts = [generator.normal(size=(9, 6)).astype(np.float32) for _ in TEXTS]
    docs = [
        replace(doc, label="sea" if number % 2 else "land")
        for number, doc in enumerate(documents(build_tokenizer(), TEXTS, acts))
    ]
    save_run(workspace, docs, "0" * 16, part_documents=5)
    run_id, layer = "run", "resid_post.1"
    from mi_crow.mechanistic.vectors.texts import run_documents
    from mi_crow.mechanistic.vectors.top_texts import top_texts
    from mi_crow.store.runs.reader import RunReader

    reader = RunReader(workspace.run_dir(run_id), LAYER)
    direction = torch.randn(reader.width, generator=torch.Generator().manual_seed(1))
    vector = SteeringVector("v", {layer: direction})
    found = top_texts(workspace, vector, run_id, count=3)
    limit = 10 * found.median_norm
    best: dict[int, float] = {}
    total = 0
    for part in reader.parts():
        rows = part.take(slice(0, len(part))).float()
        own = rows @ direction / direction.square().sum()
        for value, document, norm in zip(own, part.row_document, part.norms, strict=True):
            if norm <= limit:
                total += 1
                best[int(document)] = max(best.get(int(document), -1e9), float(value))
    wanted = sorted(best, key=lambda one: -best[one])[:3]
    assert [one.document for one in found.top] == wanted
    assert [one.projection for one in found.top] == pytest.approx([best[n] for n in wanted], 1e-4)
    assert found.tokens == total
    assert len(list(run_documents(workspace, run_id))) == len(best)
    assert set(found.label_means) == {"sea", "land"}
    named = VectorConfig((layer,), ("label:sea",), (), run_id=run_id)
    sets = text_sets(workspace, named)
    assert {*sets.positive, *sets.positive_heldout} == set(TEXTS[1::2])
    assert {*sets.negative, *sets.negative_heldout} == set(TEXTS[0::2])
    with pytest.raises(UserError, match="has label 'fog'"):
        text_sets(workspace, VectorConfig((layer,), ("label:fog",), (), run_id=run_id))
    with pytest.raises(UserError, match="has width 3"):
        top_texts(workspace, SteeringVector("w", {layer: torch.ones(3)}), run_id)


def test_reft_trains_on_a_model_of_another_kind(workspace):
    tokenizer = build_tokenizer(bos=False, pad=False)
    lm = LanguageModel.from_local_torch(build_model("gpt_neox", len(tokenizer)), tokenizer)
    vector = make_vector(workspace, lm, "sea", config("reft-r1", steps=2))
    assert bool(vector.directions["resid_post.1"].isfinite().all())


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_latents_are_pooled_text_by_text(pool: str) -> None:
    sae = tiny_sae()
    x = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(0))
    x[4] *= 1000  # the only token of the second text
    side = TextActivations(x, torch.tensor([4, 5, 20, 30]), [0, 1, 2, 3])
    z = sae.encode(x)
    texts = [z[0:4], z[5:20], z[20:30]]
    expected = torch.stack([one[-1] if pool == "last" else one.mean(dim=0) for one in texts])
    torch.testing.assert_close(pooled_latents(sae, side, 100.0, pool), expected)


@pytest.mark.parametrize("after", [1, 26])  # while texts are read, and in the training
def test_a_stopped_vector_goes_on_to_the_same_one(workspace, tiny_model_dir, after, monkeypatch):
    monkeypatch.setattr("mi_crow.mechanistic.vectors.reft._KEPT_EVERY", 4)
    how = MakeConfig(
        LAYERS, tuple(SEA), tuple(BREAD), "reft-r1", steps=30, name="sea", model=str(tiny_model_dir)
    )
    whole = run_make(workspace, replace(how, name="whole"))
    with pytest.raises(CancelledError):
        run_make(workspace, how, Watched(updates=after + 1))
    assert list_vectors(workspace)[0].name == "whole"
    resumed = run_make(workspace, how)
    one, other = (load_vector(workspace, name) for name in ("whole", "sea"))
    assert torch.equal(one.directions["resid_post.1"], other.directions["resid_post.1"])
    assert resumed["made"]["layers"] == whole["made"]["layers"]
    assert [path.name for path in workspace.vectors_dir.iterdir() if path.is_dir()] == []
    length = float(one.directions["resid_post.1"].norm())
    assert norms_of(vector_path(workspace, "sea")) == {"resid_post.1": pytest.approx(length, 1e-6)}


def test_a_vector_is_made_by_a_job_and_renamed(workspace, tiny_model_dir, capsys):
    made = [*("vector", "make", "sea", "--model", str(tiny_model_dir), "--layer", "resid_post.1")]
    made += ["--for", SEA[0], "--against", BREAD[0], "--workspace", str(workspace.root)]
    assert main([*made, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["name"], result["layers"]) == ("sea", {"resid_post.1": WIDTH})
    assert [(job.kind, job.status) for job in list_jobs(workspace)] == [("vector", "finished")]
    for wrong, sentence in (
        (made, "vector 'sea' exists already"),
        ([*made[:2], "b", *made[3:], "--layer", "resid_post.9"], "has no layer 'resid_post.9'"),
        ([*made[:2], "b", *made[3:], "--for", "label:x"], "'label:x' needs a run"),
        ([*made[:2], "b", *made[3:], "--for", "no.txt"], "no file 'no.txt'"),
        (["vector", "rename", "sea", "../up", "--workspace", str(workspace.root)], "'../up'"),
    ):
        assert main(wrong) == 2
        assert sentence in capsys.readouterr().err
    assert len(list_jobs(workspace)) == 1
    assert main(["vector", "rename", "sea", "calm", "--workspace", str(workspace.root)]) == 0
    assert [one.name for one in list_vectors(workspace)] == ["calm"]
