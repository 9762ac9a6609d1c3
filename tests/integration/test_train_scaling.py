"""What 1, 2 and 4 processes read and send, counted: each its own rows, gradients in one go."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mi_crow.mechanistic.sae.config import ARCHITECTURES
from mi_crow.store.runs.manifest import PartSpec
from mi_crow.store.runs.parts import stored_rows, write_part
from tests.helpers.shared_training import LATENTS, WIDTH, Trained, tokens, train, train_shared
from tests.helpers.stored_runs import LAYER, documents_table, manifest_of
from tests.integration.test_train_ranks import furthest

pytestmark = pytest.mark.slow

STEPS, BATCH = 20, 32
FIELDS = {"batch_size": BATCH, "steps": STEPS, "dead_tokens": 20, "outlier_factor": None}
GRADIENTS = 4 * (2 * LATENTS * WIDTH + LATENTS + WIDTH)  # bytes of all gradients of a step


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 3,000 tokens in five parts."""
    folder = tmp_path_factory.mktemp("run")
    manifest, rows = manifest_of(folder, "fp32", WIDTH), tokens(WIDTH).float()
    for number, some in enumerate(rows.split(600)):
        part = PartSpec(0, number, 60, len(some), shard=number)
        table = documents_table([10] * 60, number * 60)
        write_part(folder, part, table, {LAYER: stored_rows(some, "fp32")})
        manifest.parts.append(part)
    manifest.save(folder)
    return folder


def cases(run: Path) -> list[dict[str, Any]]:
    plain = {"arch": "topk", "fields": FIELDS, "run": str(run)}
    # The second is larger than its buffer: it is read block by block.
    return [plain, {**plain, "buffer": 600 * WIDTH * 4}, {**plain, "gradients": "bf16"}]


@pytest.fixture(scope="module")
def alone(run: Path) -> list[Trained]:
    return [train(**case) for case in cases(run)]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_reading_and_sending_scale_with_the_processes(
    run: Path, alone: list[Trained], world: int, tmp_path: Path
) -> None:
    found = train_shared(tmp_path, cases(run), world)
    for case, ranks in enumerate(found):
        for weights, _ in ranks:
            assert furthest(weights, alone[case][0]) <= (1e-5 if case < 2 else 0.02)
    permuted, blocks, rounded = ([told["counts"][0] for _, told in ranks] for ranks in found)
    # Every row of every batch is gathered by one process.
    assert [one["rows"] for one in permuted] == [STEPS * BATCH // world] * world
    # Blocks are read ahead; what is read of each is this process's share.
    read = [one["read"] for one in blocks]
    assert STEPS * BATCH * (world > 1) <= sum(read) / (WIDTH * 4) <= 3000
    assert max(read) <= 1.25 * sum(read) / world
    if world == 1:
        assert {one["calls"] for one in (*permuted, *blocks, *rounded)} == {0}
        return
    for one in (*permuted, *blocks):
        assert (one["calls"], one["sent"]) == (STEPS, STEPS * GRADIENTS)
    for one in rounded:
        assert (one["calls"], one["sent"]) == (STEPS, STEPS * GRADIENTS // 2)


def test_latents_and_tokens_are_shared_at_once(tmp_path: Path) -> None:
    mesh = [
        {"arch": arch, "shares": "latents", "copies": 2, "double": True, "fields": fields}
        for arch in ARCHITECTURES
        for fields in [{"batch_size": 31, "dead_tokens": 20, "steps": 6}]
    ]
    found = train_shared(tmp_path, mesh, 4)
    for case, ranks in zip(mesh, found, strict=True):
        weights, history = train(case["arch"], case["fields"], double=True)
        for shared, told in ranks:
            assert furthest(shared, weights) <= 1e-5, case["arch"]
            assert told["loss"] == pytest.approx(history["loss"], rel=1e-9)
        assert torch.equal(ranks[0][0]["W_dec"], ranks[3][0]["W_dec"])
