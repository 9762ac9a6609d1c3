"""What every test may use: a fresh workspace, a tiny random model, the sample model."""

import os
import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import FakeJobs, own_queues

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

# Spinning OpenMP threads starve the processes that the tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# Read when the libraries are imported: no test depends on the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# What a shell starts in the background is deaf to ctrl+c, and so is all that it starts in turn; the
# tests of ctrl+c need processes that hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine, not about the code. The same examples
# are drawn each time, so that a change is judged by what it changed; `exploring` draws others.
settings.register_profile("mi-crow", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("thorough", deadline=None, derandomize=True)
settings.register_profile("exploring", deadline=None, max_examples=400)
settings.load_profile("mi-crow")  # `--hypothesis-profile thorough` has the last word

MOST_PROCESSES = 4  # each holds torch and a model or two: about 1.5 GB


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Shares a run of the whole suite among processes; one file or test stays in this process.

    Whole files go to a process, so that their fixtures are built once, in the order in which they
    are collected: the long files of `integration` first. `-n` decides otherwise.
    """
    option = config.option
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS or hasattr(
        config, "workerinput"
    ):
        return
    # pytest-cov has to hear of the processes before this: give `-n 2 --dist loadfile` with it.
    if getattr(option, "cov_source", None):
        return
    # The option is there with pytest-xdist, and None unless somebody says `-n`.
    if option.usepdb or option.collectonly or getattr(option, "numprocesses", 0) is not None:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not cores or cores < 2:
        return
    # Read when torch is imported: with more threads the processes are in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    option.numprocesses = min(cores, MOST_PROCESSES)
    option.dist = "loadfile"
    option.loadscopereorder = False


@pytest.fixture(scope="session", autouse=True)
def _queues_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Path]]:
    """No test waits for the user's jobs or reads the user's config, nor do they wait for a test:
    holds for fixtures that outlive a test. Gives names of folders that are not there yet."""
    # `mktemp` would look through the folders of all tests for each of them.
    folders = map(tmp_path_factory.mktemp("queues").joinpath, map(str, count()))
    with pytest.MonkeyPatch.context() as patch:
        own_queues(next(folders), patch)
        yield folders


@pytest.fixture(autouse=True)
def _own_queues(_queues_of_the_tests: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that one test leaves behind holds up no other test."""
    own_queues(next(_queues_of_the_tests), monkeypatch)


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Work that a test does in this process has its denormals flushed to zero, as a job's process;
    drawing floats refuses to go on in that state."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace that nobody else uses."""
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def jobs(workspace: Workspace) -> Iterator[FakeJobs]:
    """Jobs of that workspace, in whatever state a test wants them."""
    fake = FakeJobs(workspace)
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random 3-block Llama of width 32 and its tokenizer. Do not write to it."""
    from tests.helpers.tiny_models import save_tiny_llama

    return save_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_tuned_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model of `tiny_model_dir` as if trained further. Do not write to it."""
    from tests.helpers.tiny_models import save_tuned

    return save_tuned(tiny_model_dir, tmp_path_factory.mktemp("tuned") / "tiny-tuned")


@pytest.fixture(scope="session")
def _tiny_lm(tiny_model_dir: Path) -> "LanguageModel":
    from mi_crow.language_model import LanguageModel

    return LanguageModel.from_huggingface(tiny_model_dir, device="cpu")


@pytest.fixture
def tiny_lm(_tiny_lm: "LanguageModel", tmp_path: Path) -> "LanguageModel":
    """The model of `tiny_model_dir`, without hooks, with a store of its own."""
    from mi_crow.language_model import LanguageModel
    from mi_crow.store import LocalStore

    return LanguageModel(
        _tiny_lm.model,
        _tiny_lm.tokenizer,
        model_id=_tiny_lm.model_id,
        device=_tiny_lm.device,
        store=LocalStore(tmp_path / "store"),
    )


@pytest.fixture(scope="session")
def sample_lm() -> "LanguageModel":
    """The sample model; leave it without hooks."""
    from mi_crow.language_model import LanguageModel

    return LanguageModel.from_huggingface("sample", device="cpu")
