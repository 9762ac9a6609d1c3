"""What real jobs and the library workflows share."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mi_crow.jobs import list_jobs
from mi_crow.store.workspace import Workspace


@pytest.fixture
def workspace(workspace: Workspace) -> Iterator[Workspace]:
    """A workspace that nobody else uses; no job of it outlives its test."""
    yield workspace
    for state in list_jobs(workspace):
        if state.process is not None:
            state.process.signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def sample_sae_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a TopK SAE of the sample model's third block. Do not write to it."""
    from mi_crow.datasets import TextDataset
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.sae import SaeTrainer, SaeTrainingConfig, TopKSae
    from mi_crow.store import LocalStore
    from sample_data import corpus_path

    folder = tmp_path_factory.mktemp("sample-sae")
    store = LocalStore(folder / "store")
    lm = LanguageModel.from_huggingface("sample", store=store, device="cpu")
    texts = TextDataset.from_local(corpus_path()).random_sample(120, seed=0)
    run_id = lm.activations.save(layer_signature="resid_post.2", dataset=texts)
    sae = TopKSae(n_latents=512, n_inputs=lm.layers.width("resid_post.2"), k=16)
    SaeTrainer(sae).train(
        store, run_id, "resid_post.2", SaeTrainingConfig(steps=80, batch_size=512)
    )
    return sae.save(folder / "sae")
