"""Files that we export give the same in the real SAELens and sparsify, and theirs in ours."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mi_crow.cli import main
from mi_crow.mechanistic.sae import SparseAutoencoder, load_sae
from mi_crow.mechanistic.sae.architectures import BY_NAME, TABLE
from mi_crow.mechanistic.sae.rules.matching_pursuit import MatchingPursuitSae
from mi_crow.mechanistic.sae.rules.transcoder import JumpReluTranscoder, ReluTranscoder
from mi_crow.mechanistic.sae.saving import saelens_name
from tests.helpers.sae_reference import MAKERS, OUT, D, M, noisy
from tests.peer.environment import DownloadFailed, make_environment, run_tool

pytestmark = pytest.mark.peer

STORED = {"batchtopk", "matryoshka_batchtopk"}  # as what they are at inference: jumprelu


@pytest.fixture(scope="module")
def peer_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return make_environment(tmp_path_factory.mktemp("peers") / "venv")
    except DownloadFailed as error:
        pytest.skip(f"the peers cannot be downloaded: {error}")


def assert_same(sae: SparseAutoencoder, x: Tensor, found: dict[str, Tensor], name: str) -> None:
    ours = {"latents": sae.encode(x), "reconstruction": sae(x).reconstruction}
    assert (ours["latents"] > 0).any(), name
    for what, tensor in ours.items():
        torch.testing.assert_close(
            tensor,
            found[what],
            atol=1e-5,
            rtol=1e-5,
            msg=lambda text, where=f"{what} of {name}": f"{where}: {text}",
        )


def variants() -> dict[str, SparseAutoencoder]:
    """Every architecture, and the ways an SAE can take its input."""
    saes = {name: noisy(name).float() for name in MAKERS}
    for kind in ("constant_norm_rescale", "layer_norm"):
        saes[f"l1-{kind}"] = noisy("l1").float()
        saes[f"l1-{kind}"].input_norm = kind
    # Those that are made in tests of their own, and transcoders with and without a skip.
    saes["matching-pursuit"] = MatchingPursuitSae(M, D, max_iterations=4)
    saes["transcoder-l1-skip"] = ReluTranscoder(M, D, OUT, skip=True)
    saes["transcoder-jumprelu-plain"] = JumpReluTranscoder(M, D, OUT)
    saes["topk-plain"] = noisy("topk").float()
    saes["topk-plain"].apply_b_dec_to_input = False
    return saes


def export(sae: SparseAutoencoder, root: Path, name: str, target: Path, *flags: str) -> None:
    """Puts an SAE into a workspace and exports it by the command."""
    workspace = ["--workspace", str(root / "w")]
    sae.save(root / "saved" / name)
    saved = str(root / "saved" / name)
    assert main([*workspace, "import", saved, "--name", name, "--layer", "resid_post.1"]) == 0
    assert main([*workspace, "export", name, str(target), *flags]) == 0


def draw(root: Path) -> Tensor:
    x = torch.randn(32, D, generator=torch.Generator().manual_seed(1)) * 2
    save_file({"x": x}, root / "x.safetensors")
    return x


def test_what_we_export_gives_the_same_in_saelens(peer_python: Path, tmp_path: Path) -> None:
    saes = {name: sae for name, sae in variants().items() if BY_NAME[sae.architecture].in_saelens}
    names = {saelens_name(sae) for sae in saes.values()}
    assert names == {name for row in TABLE if row.in_saelens for name in row.saelens_names} - STORED
    (tmp_path / "out").mkdir()
    for name, sae in saes.items():
        export(sae, tmp_path, name, tmp_path / "out" / name)
    x = draw(tmp_path / "out")
    run_tool(peer_python, "saelens_tool", "run", tmp_path / "out")
    for name, sae in saes.items():
        assert_same(sae, x, load_file(tmp_path / "out" / name / "answer.safetensors"), name)


def test_what_we_export_gives_the_same_in_sparsify(peer_python: Path, tmp_path: Path) -> None:
    names = ("topk", "topk-plain", "groupmax")
    saes = {name: sae for name, sae in variants().items() if name in names}
    (tmp_path / "out").mkdir()
    for name, sae in saes.items():
        export(sae, tmp_path, name, tmp_path / "out" / name, "--format", "sparsify")
    x = draw(tmp_path / "out")
    run_tool(peer_python, "sparsify_tool", "run", tmp_path / "out")
    for name, sae in saes.items():
        found = load_file(tmp_path / "out" / name / "layers.1" / "answer.safetensors")
        assert_same(sae, x, found, name)


@pytest.mark.parametrize(("tool", "kinds"), [("saelens_tool", 12), ("sparsify_tool", 4)])
def test_what_a_peer_writes_gives_the_same_here(
    peer_python: Path, tmp_path: Path, tool: str, kinds: int
) -> None:
    run_tool(peer_python, tool, "make", tmp_path)
    folders = sorted(path.parent for path in tmp_path.glob("*/expected.safetensors"))
    assert len(folders) == kinds
    for folder in folders:
        found = load_file(folder / "expected.safetensors")
        assert_same(load_sae(folder), found["x"], found, folder.name)
