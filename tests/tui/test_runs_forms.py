"""The forms that start jobs: defaults, refusals, what to expect, command lines."""

import json
import shlex
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from mi_crow.cli.arguments import slurm_of
from mi_crow.cli.commands import capture, evaluate, index, train
from mi_crow.cli.entry import parse
from mi_crow.jobs.device_lock import QueueLook
from mi_crow.jobs.kinds import KINDS
from mi_crow.jobs.launch import checked
from mi_crow.jobs.spec import JobSpec, config_as_json
from mi_crow.jobs.status import JobState
from mi_crow.store.runs.manifest import LayerSpec
from mi_crow.store.workspace import Workspace
from tests.helpers import made_files
from tests.tui.conftest import NOW, add_run
from tests.tui.driving import press, screen_text, settle, trouble_of, where_of
from tui.screens.runs.forms.finding import Situation
from tui.screens.runs.forms.job_form import JobForm
from tui.screens.runs.forms.kinds import FORMS, form_of_job
from tui.screens.runs.starting import WITH_FORMS
from tui.widgets.forms.fields import Advice, Default, read_values
from tui.widgets.forms.line import FormInput
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.row_list import RowList

COMMANDS: dict[str, ModuleType] = {
    "capture": capture,
    "train": train,
    "index": index,
    "evaluate": evaluate,
}


def situation(workspace: Workspace, **cursor: str) -> Situation:
    from mi_crow.jobs import list_jobs

    return Situation(
        workspace,
        tuple(workspace.list_runs()),
        tuple(workspace.list_saes()),
        tuple(list_jobs(workspace)),
        **cursor,
    )


def texts_of(form: JobForm, **texts: str) -> dict[str, str]:
    """The texts of a form with some of them changed; `__` stands for the dot of a name."""
    changed = {name.replace("__", "."): text for name, text in texts.items()}
    known = {one.name: one.text for one in form.fields}
    assert changed.keys() <= known.keys()
    return known | changed


def advice(form: JobForm, **texts: str) -> Advice:
    return form.study(texts_of(form, **texts))


def jobs_of(form: JobForm, **texts: str) -> list[JobSpec]:
    """The jobs that the form would start. Fails when it would not start any."""
    found = advice(form, **texts)
    assert not trouble_of(found), trouble_of(found)
    values = read_values(form.fields, texts_of(form, **texts), found.defaults)
    return form.checked(values)


def plain(spec: JobSpec) -> dict[str, Any]:
    """What a job is to do; not when it was asked for."""
    return json.loads(json.dumps({**vars(spec), "created": 0}))


# The command line.

TRAININGS = [
    {},
    {"k": "16, 32,64", "expansion": "4,8.5", "name": "sweep"},
    {"arch": "gated", "training__target_l0": "40", "training__lr": "1e-3", "device": "cpu"},
    {"arch": "l1", "training__l1_lambda": "0.5", "training__outlier_factor": "0"},
    {"arch": "transcoder", "target_layer": "resid_post.2", "skip": "yes"},
    {"training__epochs": "3", "n_latents": "500", "training__precision": "bf16"},
    {"training__tokens": "2M", "training__shuffled": "yes", "training__seed": "7"},
    {"init": "demo-topk", "k": "20", "training__warmup_steps": "0"},
    {"job__launcher": "torchrun", "job__nproc": "2", "shares": "latents", "device": "cpu"},
    {
        "job__launcher": "slurm",
        "job__slurm__partition": "gpu",
        "job__slurm__time": "1:30:00",
        "job__slurm__args": "account=lab, qos=high",
    },
    {
        "stream": "yes",
        "layer": "resid_post.1",
        "stream__dataset__limit": "50",
        "stream__model__dtype": "fp32",
        "stream__model__offline": "yes",
        "stream__pack": "yes",
        "training__seed": "3",
    },
    {"stream": "yes", "family": "crosscoder", "layer": "resid_post.1, resid_post.2"},
]
OTHERS = [
    ("capture", {}),
    (
        "capture",
        {
            "model__model": "sample",
            "layers": "resid_post.1, model.layers.2.mlp",
            "dataset__limit": "2,000",
            "dataset__token_limit": "90k",
            "dataset__sample_seed": "4",
            "dataset__streaming": "yes",
            "dtype": "int8",
            "long_documents": "split",
            "pack": "yes",
            "bos": "no",
            "keep_special": "yes",
            "model__trust_remote_code": "yes",
            "model__device": "cuda:1",
            "batch_size": "8",
            "shard_size": "64",
            "seed": "9",
            "name": "two-layers",
        },
    ),
    ("index", {"sae_id": "demo-topk"}),
    (
        "index",
        {
            "sae_id": "demo-topk",
            "top_examples": "10",
            "append": "yes",
            "window": "16",
            "batch_size": "256",
            "seed": "2",
            "device": "cpu",
        },
    ),
    (
        "index",
        {
            "sae_id": "demo-topk",
            "live__dataset__source": "sample",
            "live__dataset__token_limit": "5000",
            "live__model__model": "sample",
            "live__model__dtype": "bf16",
            "live__context_length": "64",
            "device": "cpu",
        },
    ),
    (
        "evaluate",
        {
            "sae_id": "demo-topk",
            "documents": "10",
            "live__dataset__source": "sample",
            "live__dataset__limit": "50",
            "live__model__model": "sample",
            "live__context_length": "64",
            "device": "cpu",
        },
    ),
    ("evaluate", {"sae_id": "demo-topk"}),
    ("evaluate", {"sae_id": "demo-topk", "model": "sample", "documents": "10", "batch_size": "2"}),
]
ALL = [("train", texts) for texts in TRAININGS] + OTHERS


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's own programs are not asked for."""
    monkeypatch.setattr("mi_crow.jobs.launch.check_hand_over", lambda launcher, slurm: None)


@pytest.mark.parametrize(("kind", "texts"), ALL)
def test_the_command_means_the_job_that_the_form_starts(
    app_workspace, monkeypatch, no_slurm, kind, texts
):
    form = FORMS[kind](situation(app_workspace, run_id="demo"))
    (wanted,) = jobs_of(form, **texts)
    asked: list[JobSpec] = []

    def run_job(workspace, kind, config, options, show) -> int:
        spec = JobSpec(
            kind,
            config_as_json(config),
            launcher=options.launcher,
            nproc=options.nproc or 1,
            slurm=slurm_of(options),
            name=getattr(options, "name", None),
            after=options.after,
        )
        asked.append(checked(workspace, spec))
        return 0

    monkeypatch.setattr(COMMANDS[kind], "run_job", run_job)
    program, *words = shlex.split(advice(form, **texts).command)
    COMMANDS[kind].run(parse(words))
    assert program == "mi-crow"
    assert [plain(one) for one in asked] == [plain(wanted)]


@pytest.mark.parametrize(
    "texts",
    [
        {"family": "crosscoder", "layer": "mlp_in.1, mlp_out.2", "k": "8"},
        {"family": "clt", "layer": "mlp_in.1, mlp_in.2", "n_latents": "64"},
    ],
)
def test_one_sae_of_several_layers(app_workspace, monkeypatch, no_slurm, texts):
    layers = [
        LayerSpec(f"model.layers.{number}.mlp{end}", f"mlp_{kind}.{number}", 128)
        for number in (1, 2)
        for kind, end in (("in", ".input"), ("out", ""))
    ]
    made_files.add_run(app_workspace, "several", layers=layers, tokens=5000)
    texts = {"run_id": "several", **texts}
    test_the_command_means_the_job_that_the_form_starts(
        app_workspace, monkeypatch, no_slurm, "train", texts
    )
    test_a_job_s_own_values_start_the_same_job(app_workspace, no_slurm, "train", texts)
    form = FORMS["train"](situation(app_workspace, run_id="several"))
    assert "is of several layers" in trouble_of(advice(form, **texts | {"layer": "mlp_in.1"}))


def test_a_crosscoder_of_two_models(app_workspace, monkeypatch, no_slurm):
    for name in ("base", "tuned"):
        layers = [LayerSpec("model.layers.1", "resid_post.1", 128)]
        made_files.add_run(app_workspace, name, layers=layers, tokens=5000)
    texts = {"run_id": "base", "tuned_run": "tuned", "family": "crosscoder", "k": "8"}
    texts["layer"] = "resid_post.1"
    test_the_command_means_the_job_that_the_form_starts(
        app_workspace, monkeypatch, no_slurm, "train", texts
    )
    test_a_job_s_own_values_start_the_same_job(app_workspace, no_slurm, "train", texts)
    form = FORMS["train"](situation(app_workspace, run_id="base"))
    assert "was given for both models" in trouble_of(advice(form, **texts | {"tuned_run": "base"}))


def test_what_the_command_takes_anyway_is_not_in_it(app_workspace):
    form = FORMS["index"](situation(app_workspace, sae_id="smol-sae"))
    root = str(app_workspace.root)
    assert shlex.split(advice(form).command) == [
        *("mi-crow", "index", "--sae", "smol-sae", "--workspace", root)
    ]


# An earlier job's values.


@pytest.mark.parametrize(("kind", "texts"), ALL)
def test_a_job_s_own_values_start_the_same_job(app_workspace, no_slurm, kind, texts):
    at = situation(app_workspace, run_id="demo")
    (before,) = jobs_of(FORMS[kind](at), **texts)
    (again,) = jobs_of(FORMS[kind](situation(app_workspace, run_id="smol-l15"), before))
    assert plain(again) == plain(before)


def test_what_no_field_asks_for_is_kept(app_workspace):
    at = situation(app_workspace)
    (before,) = jobs_of(FORMS["train"](at), run_id="demo")
    before.params["training"]["decay_share"] = 0.5
    form = FORMS["train"](at, before)
    (again,) = jobs_of(form)
    assert again.params["training"]["decay_share"] == 0.5
    assert "as before: training.decay_share" in advice(form).lines
    assert advice(form).command == ""


def test_a_name_that_is_taken_by_now_gets_a_number(app_workspace):
    at = situation(app_workspace)
    (before,) = jobs_of(FORMS["capture"](at), name="new", model__model="sample")
    add_run(app_workspace, "new", "sample", NOW)
    assert texts_of(FORMS["capture"](at, before))["name"] == "new-2"


def test_several_layers_are_a_training_each(app_workspace):
    form = FORMS["train"](situation(app_workspace))
    found = jobs_of(form, run_id="demo", layer="resid_post.2, model.layers.2", name="both")
    assert [job.params["layer"] for job in found] == ["resid_post.2", "model.layers.2"]
    assert [job.name for job in found] == ["both-resid_post.2", "both-model.layers.2"]
    said = advice(form, run_id="demo", layer="resid_post.2, model.layers.2")
    assert said.lines[0] == "2 jobs, one after the other; of each:"
    assert said.command.count("mi-crow train") == 2


# Defaults and candidates.


def test_defaults_say_where_they_come_from(app_workspace):
    at = situation(app_workspace, run_id="demo")
    found = advice(FORMS["train"](at)).defaults
    assert str(found["run_id"]) == "demo  ·  under the cursor"
    assert str(found["layer"]) == "resid_post.2  ·  the only one of demo"
    assert str(found["training.steps"]) == "400  ·  the least; 2 passes would be fewer"
    more = advice(FORMS["train"](at), training__batch_size="64").defaults
    passes = "2 passes over 72.3k tokens to train on"
    assert str(more["training.steps"]) == f"2260  ·  {passes}"
    assert "training.steps" not in advice(FORMS["train"](at), training__epochs="2").defaults


def test_a_run_that_is_still_captured_is_not_trained_on(app_workspace):
    at = situation(app_workspace)
    unfinished = [replace(run, manifest=replace(run.manifest, status="running")) for run in at.runs]
    found = advice(FORMS["train"](replace(at, runs=tuple(unfinished))))
    assert found.defaults["run_id"] == Default("", "none is complete yet")
    assert trouble_of(found) == "no run given"


def test_the_layers_of_a_model_come_with_their_widths(app_workspace):
    form = FORMS["capture"](situation(app_workspace))
    found = advice(form, model__model="sample")
    notes = {one.text: one.note for one in found.candidates["layers"]}
    assert notes["resid_post.3"] == "192 wide"
    assert notes["model.layers.0.mlp"] == "module"
    assert "resid_post.4" not in notes
    assert str(found.defaults["layers"]) == "resid_post.2  ·  halfway through 4 blocks"


def test_a_capture_tells_what_the_weights_take_in_the_dtype_that_they_get(app_workspace):
    form = FORMS["capture"](situation(app_workspace))
    for dtype, told in (("auto", "10 MB of weights in fp32"), ("bf16", "5 MB of weights in bf16")):
        lines = advice(form, model__model="sample", model__dtype=dtype, model__device="cpu").lines
        assert any(line.startswith(f"{told} on cpu, of ") for line in lines), lines


def test_the_device_is_that_of_the_settings(app_workspace):
    for kind in COMMANDS:
        made = FORMS[kind](
            situation(app_workspace, run_id="demo", sae_id="demo-topk", device="cuda:1")
        )
        (field,) = (one for one in made.fields if one.flag == "--device")
        assert str(field.default) == "cuda:1  ·  your settings"
        texts = {"model__model": "sample"} if kind == "capture" else {}
        assert jobs_of(made, **texts)[0].device == "cuda:1"
        assert "--device" not in advice(made, **texts).command


def test_a_kind_that_is_offered_again_has_a_form():
    ours = {name for name, kind in KINDS.items() if kind.config.__module__.startswith("mi_crow")}
    assert set(WITH_FORMS) == set(FORMS) == ours  # other tests add kinds of their own


def test_paths_are_completed_as_they_are_typed(app_workspace, tmp_path):
    (tmp_path / "texts").mkdir()
    for name in ("talk.jsonl", "notes.txt", "picture.png", ".hidden.txt"):
        (tmp_path / "texts" / name).write_text("{}")
    form = FORMS["capture"](situation(app_workspace))

    def listed(typed: str) -> list[str]:
        found = advice(form, dataset__source=typed).candidates["dataset.source"]
        return [one.text for one in found if one.text.startswith(str(tmp_path))]

    assert listed(f"{tmp_path}/te") == [f"{tmp_path}/texts/"]
    assert listed(f"{tmp_path}/texts/") == [
        f"{tmp_path}/texts/notes.txt",
        f"{tmp_path}/texts/talk.jsonl",
    ]
    assert listed(f"{tmp_path}/nowhere/") == []


# What is wrong.


@pytest.mark.parametrize(
    ("kind", "texts", "sentence", "where"),
    [
        (
            "capture",
            {"model__model": "./no/such"},
            "model './no/such' is neither a folder",
            "model.model",
        ),
        ("capture", {"layers": "resid_post.9"}, "the model has no layer 'resid_post.9'", "layers"),
        (
            "capture",
            {"layers": "resid_post.1, model.layers.2.mpl"},
            "the model has no layer 'model.layers.2.mpl'; it has 4 blocks, with model.layers.2.mlp",
            "layers",
        ),
        (
            "train",
            {"stream": "yes", "layer": "banana"},
            "the model has no layer 'banana'; it has 4 blocks, with ",
            "layer",
        ),
        ("capture", {"name": "demo"}, "run 'demo' exists already; choose another name", "name"),
        ("capture", {"name": "../up"}, "run id '../up' is not a valid name", "name"),
        (
            "capture",
            {"dataset__source": "./none.txt"},
            "dataset './none.txt' not f",
            "dataset.source",
        ),
        ("train", {"run_id": "nothing"}, "run 'nothing' not found", "run_id"),
        ("train", {"layer": "h.99"}, "layer 'h.99' is not in run", "layer"),
        ("train", {"k": "9999"}, "k = 9999 is more than latents = 1024; lower k or raise", "k"),
        ("train", {"arch": "transcoder"}, "a transcoder needs the layer", "target_layer"),
        ("train", {"skip": "yes"}, "skip connection is for transcoders; choose a trans", "skip"),
        (
            "train",
            {"training__steps": "5", "training__epochs": "2"},
            "steps and epochs were both given",
            "training.epochs",
        ),
        ("train", {"stream__pack": "yes"}, "pack is for a training without a run", "stream.pack"),
        ("train", {"init": "x", "arch": "l1"}, "architecture is decided by the SAE", "arch"),
        (
            "train",
            {"job__nproc": "4"},
            "4 processes need a launcher; choose the launc",
            "job.launcher",
        ),
        ("train", {"job__slurm__partition": "gpu"}, "partition, time limit", "job.slurm.partition"),
        ("train", {"job__after": "nothing"}, "job 'nothing' not found", "job.after"),
        ("train", {"device": "tpu"}, "device 'tpu' is not known", "device"),
        ("index", {"sae_id": "/etc"}, "SAE id '/etc' is not a valid name", "sae_id"),
        ("index", {"live__pack": "yes"}, "pack is for an index without a run", "live.pack"),
        (
            "evaluate",
            {"live__dataset__source": "sample", "model": "sample"},
            "model is for a run",
            "model",
        ),
        ("evaluate", {"documents": "0"}, "documents must be at least 1, not 0", "documents"),
    ],
)
def test_what_is_wrong_is_one_sentence_in_the_app_s_words(
    app_workspace, kind, texts, sentence, where
):
    form = FORMS[kind](situation(app_workspace, run_id="demo", sae_id="demo-topk"))
    if kind == "capture":
        texts = {"model__model": "sample"} | texts
    found = advice(form, **texts)
    assert trouble_of(found).startswith(sentence)
    assert where_of(found) == where
    assert "--" not in trouble_of(found)
    assert "\n" not in trouble_of(found)
    assert not found.command


def test_each_wrong_field_has_its_own_sentence(app_workspace):
    form = FORMS["train"](situation(app_workspace, run_id="demo"))
    wrong = {"layer": "h.99", "k": "0", "name": "../up", "device": "tpu", "job__after": "nothing"}
    found = advice(form, **wrong)
    assert list(found.troubles) == ["layer", "k", "name", "device", "job.after"]
    assert found.troubles["layer"].startswith("layer 'h.99' is not in run 'demo'")
    assert found.troubles["k"].startswith("k must be at least 1, not 0")
    assert found.troubles["name"].startswith("SAE id '../up' is not a valid name")
    assert found.troubles["device"].startswith("device 'tpu' is not known")


def test_a_model_with_random_weights_is_where_its_architecture_is(app_workspace):
    at = situation(app_workspace)
    (run,) = [one for one in at.runs if one.run_id == "demo"]
    control = replace(run, manifest=replace(run.manifest, model_id="random:sample"))
    form = FORMS["capture"](replace(at, runs=(control,)))
    found = advice(form, model__offline="yes")
    assert str(found.defaults["model.model"]) == "random:sample  ·  as run demo"
    assert not found.troubles
    assert "--model random:sample --layer resid_post.2" in found.command


@pytest.mark.parametrize(
    ("kind", "texts", "model"),
    [
        ("capture", {"model__model": "no-such"}, "model.model"),
        ("train", {"stream": "yes", "stream__model__model": "no-such"}, "stream.model.model"),
    ],
)
def test_an_unknown_model_is_said_at_the_model(app_workspace, kind, texts, model):
    form = FORMS[kind](situation(app_workspace))
    found = advice(form, **texts)
    assert found.troubles == {
        model: "model 'no-such' is neither a folder nor in the hub's cache; check the name, or "
        "name a layer: the job then downloads the model"
    }
    layer = {"capture": "layers", "train": "layer"}[kind]
    assert not advice(form, **texts, **{layer: "resid_post.3"}).troubles
    offline = texts | {layer: "resid_post.3", f"{model.replace('.', '__')[:-5]}offline": "yes"}
    assert advice(form, **offline).troubles == {
        model: "model 'no-such' is neither a folder nor in the hub's cache; name one that is, or "
        "allow the network"
    }


HOSTILE = (
    "\0",
    "x" * 20_000,
    "9" * 5000,
    "--help",
    "-",
    "\x1b[2J[bold]",
    " ",
    ",,",
    "~nobody/x",
    "²",
    "1e999",
    "nan",
    "../../..",
    "a/b/c/d.gguf",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMS)
def test_no_text_is_too_strange_for_a_form(app_workspace, kind):
    form = FORMS[kind](situation(app_workspace, run_id="demo", sae_id="demo-topk"))
    for field in form.fields:
        if not field.section:
            for text in HOSTILE:
                found = form.study(texts_of(form) | {field.name: text})
                assert "\n" not in trouble_of(found)
                assert trouble_of(found) or shlex.split(found.command)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMS)
def test_no_text_is_too_strange_for_any_field(app_workspace, kind):
    form = FORMS[kind](situation(app_workspace, run_id="demo", sae_id="demo-topk"))
    for field in form.fields:
        for text in HOSTILE:
            found = form.study(texts_of(form) | {field.name: text})
            assert trouble_of(found) or shlex.split(found.command)


@pytest.mark.parametrize("kind", sorted(FORMS))
def test_every_empty_field_says_what_it_stands_for_and_every_field_what_it_asks(
    app_workspace, kind
):
    form = FORMS[kind](situation(app_workspace))
    defaults = advice(form).defaults
    for one in form.fields:
        assert str(defaults.get(one.name, one.default)) or one.required, (kind, one.label)
        assert one.hint, (kind, one.label)


def test_a_vector_begins_with_the_layer_of_its_run(app_workspace):
    form = FORMS["vector"](situation(app_workspace, run_id="demo"))
    assert str(advice(form).defaults["layers"]) == "resid_post.2  ·  the only one of demo"
    assert "layers" not in advice(form, model="sample").defaults


def test_an_empty_vector_form_says_what_it_needs_in_words(app_workspace):
    found = advice(FORMS["vector"](situation(app_workspace))).troubles
    assert found["for"].startswith("no texts given that the vector is for")
    assert found["name"] == "no name given"


def test_an_empty_workspace_has_no_run_to_train_on(empty_workspace):
    found = advice(FORMS["train"](situation(empty_workspace)))
    assert trouble_of(found) == "no run given"
    assert not advice(FORMS["capture"](situation(empty_workspace))).troubles


def test_a_continued_sae_keeps_its_architecture_and_size(app_workspace):
    form = FORMS["train"](situation(app_workspace))
    found = advice(form, run_id="demo", init="demo-topk")
    assert found.defaults["arch"].source == "as the SAE that is continued"
    (job,) = jobs_of(form, run_id="demo", init="demo-topk")
    assert "--arch" not in found.command
    assert (job.params["init"], job.params["arch"]) == ("demo-topk", "topk")


def test_a_stream_of_two_models_names_both(app_workspace):
    form = FORMS["train"](situation(app_workspace))
    texts = {
        "stream": "yes",
        "family": "crosscoder",
        "layer": "resid_post.2",
        "stream__model__model": "sample",
        "tuned_model": "random:sample",
    }
    assert not trouble_of(advice(form, **texts))
    (job,) = jobs_of(form, **texts)
    assert (job.params["tuned_model"], job.params["layers"]) == ("random:sample", ["resid_post.2"])
    assert "--tuned-model random:sample" in advice(form, **texts).command
    twice = texts | {"tuned_model": "sample"}
    assert "was given for both models" in trouble_of(advice(form, **twice))
    stored = {"run_id": "demo", "family": "crosscoder", "tuned_model": "random:sample"}
    assert "name the tuned model's run" in trouble_of(advice(form, **stored))


def test_an_index_of_several_layers_is_of_a_run_or_of_texts(app_workspace):
    at = situation(app_workspace)
    across = replace(at.saes[0], run_id=None, layers=("resid_post.1", "resid_post.2"))
    form = FORMS["index"](replace(at, saes=(across,)))
    assert not trouble_of(advice(form, live__dataset__source="sample"))
    (job,) = jobs_of(form, live__dataset__source="sample")
    assert job.params["live"]["dataset"]["source"] == "sample"


# What to expect.


def test_the_length_of_a_training_is_told_in_epochs(app_workspace):
    form = FORMS["train"](situation(app_workspace))
    lines = advice(form, run_id="demo", training__steps="1000").lines
    assert lines[0] == "1,000 steps x 2,048 rows on 72.3k tokens = 28.3 epochs"
    assert lines[1] == "time not known before a first training here"


def test_a_form_says_what_has_the_device_before_its_job(app_workspace, monkeypatch, no_slurm):
    form = FORMS["train"](situation(app_workspace))
    looks = [QueueLook("cpu", "train-a", "/data/w", ()), QueueLook("cuda-7", "b", "/data/w", ())]
    monkeypatch.setattr("mi_crow.jobs.device_lock.look_at_queues", lambda: looks)
    on_cpu = {"run_id": "demo", "device": "cpu"}
    assert advice(form, **on_cpu).lines[0] == "starts after job train-a, which has cpu"
    looks[0] = QueueLook("cpu", "train-a", "/data/w", ("index-b", "train-c"))
    assert advice(form, **on_cpu).lines[0] == "starts after 3 jobs that have or wait for cpu"
    looks[0] = QueueLook("cuda-0", "train-a", "/data/w", ())
    assert not any("starts after" in line for line in advice(form, **on_cpu).lines)
    slurm = {"device": "cuda:0", "job__launcher": "slurm"}
    assert not any("starts after" in one for one in advice(form, run_id="demo", **slurm).lines)


def test_the_time_of_a_training_is_that_of_earlier_ones(app_workspace):
    told = {
        "config": {"arch": "topk", "sweep_k": [], "sweep_expansion": []},
        "result": {"tokens": 100_000, "seconds": 10.0},
    }
    path = app_workspace.sae_dir("demo-topk") / "training.json"  # 128 inputs, 2,048 latents
    path.write_text(json.dumps(told))
    form = FORMS["train"](situation(app_workspace))
    texts = {"run_id": "demo", "n_latents": "4096", "training__steps": "1000"}
    lines = advice(form, **texts, training__batch_size="1000").lines
    assert "about 3m 20s, as measured on 1 training" in lines


def test_a_finetune_is_told_with_its_model_and_whitening_with_its_covariance(app_workspace):
    form = FORMS["train"](situation(app_workspace))
    plain = advice(form, run_id="demo", init="demo-topk").lines
    tuned = advice(form, run_id="demo", init="demo-topk", finetune="kl").lines
    assert tuned[1].startswith("at least ")
    assert "as fast as run demo was captured" in tuned[1]
    assert "for the model" in tuned[-1]
    assert "for the model" not in plain[-1]
    white = advice(form, run_id="demo", training__whiten="yes").lines
    assert "for whitening" in white[-1]


def test_a_capture_says_its_tokens_disk_and_time(app_workspace, tmp_path):
    form = FORMS["capture"](situation(app_workspace))
    lines = advice(form, model__model="sample", layers="resid_post.2").lines
    assert lines[0] == "about 80.3k tokens"  # as run demo, over the same texts
    assert lines[1].startswith("31.7 MB on disk, ")
    assert lines[2] == "about 15s, as measured on 1 capture of this model"
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(("word " * 86)[:-1] + "s" for _ in range(50)))
    other = {"model__model": "sample", "dataset__source": str(texts)}
    assert advice(form, **other).lines[0] == "about 5,000 tokens"
    assert advice(form, **other, context_length="10").lines[0] == "about 500 tokens"
    assert advice(form, **other, dataset__limit="10").lines[0] == "about 1,000 tokens"


def test_a_demo_is_a_measure_of_index_and_evaluation(app_workspace, fake_jobs):
    stages = {
        "index": {"features": 2048, "tokens": 80_300, "seconds": 20.0, "bytes": 2048 * 1000},
        "evaluate": {"documents": 128, "seconds": 6.0},
    }
    fake_jobs.add("finished", "demo", created=NOW, result={"stages": {"index": None}})
    of_index, of_evaluation = FORMS["index"], FORMS["evaluate"]
    for form in (of_index, of_evaluation):
        lines = advice(form(situation(app_workspace, sae_id="demo-topk"))).lines
        assert any(line.startswith("time not known before") for line in lines)
    fake_jobs.add("finished", "demo", created=NOW, result={"stages": stages})
    now = situation(app_workspace, sae_id="demo-topk")
    assert "about 20s, as measured on 1 index job" in advice(of_index(now)).lines
    lines = advice(of_evaluation(now), documents="64").lines
    assert "about 3s, as measured on 1 evaluation" in lines


def finished(kind: str, took: float, params: dict[str, Any], **result: Any) -> JobState:
    return JobState(
        f"{kind}-{took}",
        kind,
        "finished",
        started=NOW,
        ended=NOW + took,
        params=params,
        result=result,
    )


def test_the_time_of_a_job_has_what_it_takes_to_start(app_workspace):
    sample = {"model": {"model": "sample"}}
    jobs = (
        finished("capture", 21.0, sample, seconds=15.0),
        finished("capture", 90.0, {"model": {"model": "another"}}, seconds=15.0),
        finished("index", 9.0, {}, seconds=3.0, features=2048, tokens=80_300),
    )
    at = replace(situation(app_workspace, sae_id="demo-topk"), jobs=jobs)
    lines = advice(FORMS["capture"](at), model__model="sample", layers="resid_post.2").lines
    assert "about 21s, as measured on 1 capture of this model" in lines
    assert "about 9s, as measured on 1 index job" in advice(FORMS["index"](at)).lines


@pytest.mark.parametrize(
    ("share", "said"), [(0.01, "at most 8m 20s"), (1, "about 5s"), (50, "at least 0s")]
)
def test_work_of_another_size_only_bounds_the_time(app_workspace, share, said):
    at = situation(app_workspace, sae_id="demo-topk")
    (run,) = [one for one in at.runs if one.run_id == "demo"]
    tokens = share * run.manifest.n_tokens
    job = finished("index", 5.0, {}, seconds=5.0, features=2048, tokens=tokens)
    far = finished("index", 500.0, {}, seconds=500.0, features=2048, tokens=1e12)
    at = replace(at, jobs=(job, far))
    assert f"{said}, as measured on 1 index job" in advice(FORMS["index"](at)).lines


def test_an_evaluation_reads_no_more_documents_than_are_held_out(app_workspace):
    done = finished("evaluate", 30.0, {"documents": 128}, documents=60)
    at = replace(situation(app_workspace, sae_id="demo-topk"), jobs=(done,))
    (run,) = [one for one in at.runs if one.run_id == "demo"]
    few = round(run.manifest.n_documents / 10)
    form = FORMS["evaluate"](at)
    lines = advice(form, documents="100000").lines
    assert lines[0] == f"about {few} held-out documents, all of the run's"
    assert lines[1] == f"about {few // 2}s, as measured on 1 evaluation"
    assert advice(form, documents="30").lines[0] == "30 held-out documents"


def test_a_form_says_why_its_texts_cannot_be_read(app_workspace, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "fine"}\n{"text": broken}\n')
    form = FORMS["capture"](situation(app_workspace))
    found = advice(form, model__model="sample", dataset__source=str(texts)).lines[0]
    assert "line 2 is not valid JSON (column 10: Expecting value)" in found


def test_memory_is_what_the_last_job_alike_used(app_workspace, fake_jobs):
    fake_jobs.add(
        "finished",
        "evaluate",
        created=NOW,
        params={"sae_id": "demo-topk", "documents": 64},
        metrics={"memory_peak": 812e6},
    )
    form = FORMS["evaluate"](situation(app_workspace, sae_id="demo-topk"))
    assert "812 MB of memory, as the last similar job took" in advice(form).lines


def test_an_evaluation_without_a_run_says_what_goes_through_the_model(app_workspace):
    form = FORMS["evaluate"](situation(app_workspace, sae_id="demo-topk"))
    lines = advice(form, live__dataset__source="sample", live__dataset__token_limit="5000").lines
    assert "about 5,000 tokens through the model first" in lines
    assert not any("through the model" in line for line in advice(form).lines)


# In the app.


@pytest.mark.slow
async def test_a_failed_job_opens_its_form_with_its_own_values(
    app_workspace, fake_jobs, run_app, submitted
):
    params = {"run_id": "demo", "layer": "resid_post.2", "k": 77}
    failed = fake_jobs.add("failed", "train", name="wide", created=NOW, params=params)
    async with run_app(app_workspace) as pilot:
        jobs = pilot.app.screen.query_one("#list-jobs", RowList)
        jobs.focus()
        jobs.select(failed)
        await settle(pilot)
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, FormPopup)
        assert "It failed: the device ran out of memory; use a smaller batch" in screen_text(pilot)
        inputs = {one.field.name: one for one in pilot.app.screen.query(FormInput)}
        assert inputs["k"].value == "77"
        inputs["k"].value = "70"
        await press(pilot, "ctrl+r")
        assert submitted[0]["params"]["k"] == 70
        assert submitted[0]["params"]["run_id"] == "demo"


async def test_e_edits_the_values_of_any_job(app_workspace, fake_jobs, run_app, submitted):
    params = {"sae_id": "demo-topk", "documents": 64}
    done = fake_jobs.add("finished", "evaluate", created=NOW, params=params)
    async with run_app(app_workspace) as pilot:
        jobs = pilot.app.screen.query_one("#list-jobs", RowList)
        jobs.focus()
        jobs.select(done)
        await settle(pilot)
        await press(pilot, "E", "ctrl+r")
        assert submitted[0]["kind"] == "evaluate"
        assert submitted[0]["params"]["documents"] == 64


def test_the_demo_has_a_form_that_says_what_is_in_its_way(empty_workspace, fake_jobs):
    form = FORMS["demo"](situation(empty_workspace))
    (spec,) = jobs_of(form, seed="7", device="cpu")
    assert (spec.kind, spec.params) == ("demo", {"device": "cpu", "seed": 7})
    command = advice(form, seed="7").command
    words = shlex.split(command)
    assert words[:4] == ["mi-crow", "demo", "--seed", "7"]
    again = FORMS["demo"](situation(empty_workspace), spec)
    assert texts_of(again)["seed"] == "7"
    add_run(empty_workspace, "demo", "another", NOW)
    found = advice(FORMS["demo"](situation(empty_workspace)))
    assert trouble_of(found) == (
        "the demo calls its run demo, and another run has this name; rename that one"
    )
    assert not found.command


def test_a_job_without_a_readable_file_opens_no_form(app_workspace, fake_jobs):
    from mi_crow.errors import CorruptDataError

    broken = fake_jobs.add("failed", "train", created=NOW)
    (app_workspace.job_dir(broken) / "spec.json").write_text("{}")
    with pytest.raises(CorruptDataError):
        form_of_job(situation(app_workspace), broken)


async def test_what_a_field_asks_for_is_whole_at_80_columns(app_workspace, run_app):
    async with run_app(app_workspace, size=(80, 24)) as pilot:
        await press(pilot, "n", "t", "tab", "tab")
        text = screen_text(pilot)
        assert "an SAE of a layer, or one of several: a crosscoder, a cross-layer" in text
        assert "transcoder (clt); ↓ lists" in text
        assert "Copy command" in text
