"""What the flags of `mi-crow train` ask for: architectures, sweeps, sparsity, starting points."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.cli.commands import train
from mi_crow.cli.commands.index import live_texts
from mi_crow.cli.entry import parse
from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_train
from mi_crow.jobs.spec import config_as_json, config_from_json
from mi_crow.mechanistic.sae.config import ARCHITECTURES, TRANSCODERS, TrainConfig
from mi_crow.store.runs.manifest import LayerSpec
from mi_crow.store.workspace import Workspace
from tests.helpers.made_files import add_run

Start = Callable[..., TrainConfig]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs `mi-crow train` on a run of two layers, gives the config of the job it would start."""
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    layers = (LayerSpec("a", "resid_post.1", 8), LayerSpec("b", "mlp_out.1", 8))
    add_run(workspace, layers=layers, tokens=5000)
    jobs: list[TrainConfig] = []

    def take(_: Workspace, kind: str, given: Any, options: Namespace, show: Any) -> int:
        config = config_from_json(TrainConfig, config_as_json(given))
        check_train(workspace, config)
        jobs.append(config)
        return 0

    monkeypatch.setattr(train, "run_job", take)

    def run(*arguments: str) -> TrainConfig:
        assert main(["train", "--run", "run", "--layer", "a", *arguments]) == 0
        return jobs.pop()

    return run


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_can_be_asked_for(start: Start, arch: str) -> None:
    target = ("--target-layer", "b", "--skip") if arch in TRANSCODERS else ()
    config = start("--arch", arch, "--k", "4", *target)
    assert (config.arch, config.k) == (arch, 4)
    assert (config.target_layer, config.skip) == (("b", True) if target else (None, False))


def test_a_second_run_makes_a_crosscoder_of_two_models(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = (LayerSpec("a", "resid_post.1", 8), LayerSpec("b", "mlp_out.1", 8))
    add_run(Workspace.open(), "tuned", layers=layers, tokens=5000)
    config = start("--crosscoder", "--tuned-run", "tuned")
    assert (config.run_id, config.tuned_run, config.layers) == ("run", "tuned", ("a",))
    arguments = ["train", "--run", "run", "--layer", "a", "--tuned-run", "tuned"]
    assert main(arguments) == 2
    assert "--tuned-run is for crosscoders" in capsys.readouterr().err


def test_layers_together_or_each(start: Start) -> None:
    both = start("--layer", "b")
    assert (both.family, both.layer, both.layers, both.arch) == ("sae", "a", ("a", "b"), "topk")
    assert [one.layer for one in both.of_each_layer()] == ["a", "b"]
    assert start("--layer", "a").layers == ()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--layer", "b", "--k", "2,4"], "a sweep is of one layer"),
        (["--layer", "b", "--crosscoder"], "are of the same block"),
        (["--clt"], "a cross-layer transcoder is of several layers"),
        (["--crosscoder"], "one layer is enough for a crosscoder of two models"),
        (["--layer", "b", "--clt", "--crosscoder"], "not allowed with"),
    ],
)
def test_layers_that_do_not_go_together(
    start: Start, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    assert main(["train", "--run", "run", "--layer", "a", *flags]) == 2
    assert says in capsys.readouterr().err


def test_one_value_is_no_sweep(start: Start) -> None:
    config = start("--k", "16", "--expansion", "4")
    assert (config.k, config.expansion, config.variants()) == (16, 4.0, [config])
    assert start().variants()[0].k == 32


def test_several_values_are_a_sweep_however_they_are_given(start: Start) -> None:
    config = start("--k", "2,4", "--k", "8", "--k", "4", "--expansion", "2,4")
    assert (config.sweep_k, config.sweep_expansion) == ((2, 4, 8), (2.0, 4.0))
    assert [(one.expansion, one.k) for one in config.variants()] == [
        *((2.0, 2), (2.0, 4), (2.0, 8), (4.0, 2), (4.0, 4), (4.0, 8))
    ]


def test_sparsity_is_steered_or_fixed(start: Start) -> None:
    assert start("--arch", "l1", "--target-l0", "20").training.target_l0 == 20
    assert start("--arch", "gated", "--l1-lambda", "2.5").training.l1_lambda == 2.5
    training = start("--accumulate", "4", "--precision", "bf16", "--shuffled").training
    assert (training.accumulate, training.precision, training.shuffled) == (4, "bf16", True)


def test_an_sae_to_start_from_decides_the_shape(start: Start) -> None:
    config = start("--init", "elsewhere/sae", "--steps", "9")
    assert (config.init, config.training.steps) == ("elsewhere/sae", 9)


def test_tokens_say_how_long_and_what_is_shared_is_chosen(start: Start) -> None:
    config = start("--tokens", "1000000", "--share", "latents")
    assert (config.training.tokens, config.training.steps) == (1_000_000, None)
    assert (config.shares, start().shares) == ("latents", "tokens")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--tokens 9 --steps 9", "not allowed with"),
        ("--share features", "invalid choice: 'features'"),
        ("--k 2,99", "k = 99 is more than n_latents = 64"),
        ("--k 2,x", "'x' is not a whole number"),
        ("--expansion 2,x", "'x' is not a number"),
        ("--arch dense", "invalid choice: 'dense'"),
        ("--arch transcoder", "needs the layer"),
        ("--arch transcoder --target-layer nope", "layer 'nope'"),
        ("--arch l1 --target-l0 3 --l1-lambda 2", "not allowed with"),
        ("--target-l0 -1", "above 0"),
        ("--init a --arch l1", "--arch is decided by the SAE"),
        ("--init a --expansion 4", "--expansion is decided"),
        ("--init a --k 2,4", "several --k"),
        ("--batch-size 4 --accumulate 5", "cannot be split into 5 pieces"),
    ],
)
def test_flags_that_make_no_sense_are_explained(
    start: Start, arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--run", "run", "--layer", "a", *arguments.split()]) == 2
    assert words in capsys.readouterr().err


def test_the_result_of_a_sweep_shows_every_sae(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"steps": 9, "tokens": 99, "seconds": 1.0, "fvu": 0.1, "fvu_all": 0.2}
    one |= {"outlier_share": 0.01, "l0": 32.0, "dead_share": 0.1}
    saes = [{"sae_id": name, **one} for name in ("s", "s-x8-k64")]
    train.show_result({**saes[0], "saes": saes})
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[lines.index("SAE    s") + 6].endswith("mi-crow index --sae s")
    assert lines[-1].endswith("mi-crow index --sae s-x8-k64")


def test_a_stream_takes_what_is_given_and_the_defaults_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[Any] = []

    def take(_: Workspace, kind: str, given: Any, options: Namespace, show: Any) -> int:
        streams.append(config_from_json(TrainConfig, config_as_json(given)).stream)
        return 0

    monkeypatch.setattr(train, "run_job", take)
    line = ["--stream", "--layer", "resid_post.1", "--split", "test", "--workspace"]
    assert main(["train", *line, str(tmp_path / "w"), "--pack", "--steps", "3"]) == 0
    stream = streams.pop()
    assert (stream.dataset.split, stream.dataset.text_field, stream.pack) == ("test", "text", True)
    assert (stream.context_length, stream.long_documents, stream.bos) == (128, "truncate", "auto")
    assert (stream.model.dtype, stream.keep_special, stream.dataset.streaming) == (
        *("auto", False, False),
    )


@pytest.mark.parametrize("flags", [[], ["--crosscoder", "--layer", "2"]])
def test_an_index_after_a_stream_needs_its_texts(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quality = {"fvu": 0.1, "fvu_all": 0.1, "outlier_share": 0.0, "l0": 4.0, "dead_share": 0.0}
    result = {"sae_id": "s", "steps": 3, "tokens": 9, "seconds": 1.0} | quality

    def finish(_: Workspace, kind: str, given: Any, options: Namespace, show: Any) -> int:
        show(result)
        return 0

    monkeypatch.setattr(train, "run_job", finish)
    line = ["--stream", "--layer", "1", *flags, "--steps", "3", "--workspace", str(tmp_path / "w")]
    assert main(["train", *line]) == 0
    assert capsys.readouterr().out.rstrip().endswith("mi-crow index --sae s --dataset sample")


def test_an_index_of_a_run_refuses_what_is_for_texts() -> None:
    for flag in ("--split test", "--pack", "--limit 3", "--context-length 128", "--bos no"):
        options = parse(["index", "--sae", "s", *flag.split()])
        with pytest.raises(UserError, match=f"{flag.split()[0]} is for --dataset"):
            live_texts(options)
    for flag in ("--quantize 8bit", "--revision main"):  # would silently have no effect
        for kind in ("index", "evaluate"):
            options = parse([kind, "--sae", "s", "--dataset", "d", *flag.split()])
            with pytest.raises(UserError, match=f"{flag.split()[0]} is for a model that is named"):
                live_texts(options)
    live = live_texts(parse(["index", "--sae", "s", "--dataset", "d", "--split", "test"]))
    assert live is not None
    assert (live.dataset.split, live.context_length, live.bos) == ("test", 128, "auto")


def test_options_of_the_losses(start: Start) -> None:
    plain = start().training
    assert (plain.penalty, plain.orthogonality, plain.aligned) == ("step", 0.0, False)
    asked = start("--arch", "jumprelu", "--penalty", "tanh", "--orthogonality", "0.25", "--aligned")
    told = asked.training
    assert (told.penalty, told.orthogonality, told.aligned) == ("tanh", 0.25, True)
    assert (plain.whiten, plain.shrinkage) == (False, 0.1)
    whitened = start("--whiten", "--shrinkage", "0.5").training
    assert (whitened.whiten, whitened.shrinkage) == (True, 0.5)


def test_a_penalty_of_another_architecture_is_refused(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError):
        start("--arch", "batchtopk", "--penalty", "tanh")
    assert "batchtopk has no tanh penalty" in capsys.readouterr().err


def test_a_finetune_is_short_and_of_an_sae(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    config = start("--init", "some-sae", "--finetune", "kl")
    assert (config.finetune, config.init, config.training.steps) == ("kl", "some-sae", 100)
    with pytest.raises(AssertionError):
        start("--finetune", "kl")
    assert "name it with --init" in capsys.readouterr().err
