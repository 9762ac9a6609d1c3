"""The plan of an index: its bytes are those of what is made, and it follows the sizes."""

import json
from pathlib import Path

import pytest
import torch

from mi_crow.cli import main
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.codes import CodedTokens, make_chunk
from mi_crow.mechanistic.features.index.estimate import IndexSizes, codes_bytes, plan_index
from mi_crow.store import Workspace
from tests.helpers.steering_fixture import tiny_sae


@pytest.mark.parametrize("latents", [40, 1 << 16])
def test_the_bytes_of_codes_are_those_of_a_chunk(latents: int) -> None:
    tokens, each = 30, 3
    number = torch.arange(tokens, dtype=torch.int32)
    numbers = torch.arange(tokens * each) % 40
    coded = CodedTokens(
        document=number // 10,
        position=number % 10,
        rows=number.repeat_interleave(each),
        latents=numbers.to(torch.int16 if latents <= 1 << 15 else torch.int32),
        values=torch.ones(tokens * each),
    )
    assert make_chunk(coded, latents, 0).bytes == codes_bytes(tokens, tokens * each, latents)


def test_what_does_not_fit_goes_through_the_disk() -> None:
    config = IndexConfig("sae")
    small = plan_index(config, IndexSizes(100_000, 1024, 64, 16.0), 50, 2)
    assert small.temporary == 0
    assert small.seconds["codes through the disk"] == 0
    large = plan_index(config, IndexSizes(10**9, 10**6, 4096, 64.0, vocabulary=128_000), 50, 2)
    assert large.temporary > 10**9 * 64 * 12
    assert large.encoding == 2 * 10**9 * 10**6 * 4096
    faster = plan_index(config, large.sizes, 100, 4)
    assert sum(faster.seconds.values()) == pytest.approx(sum(large.seconds.values()) / 2)


def test_the_command_counts_without_building(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, folder = tmp_path / "ws", tmp_path / "ws" / "saes" / "one"
    Workspace.open(workspace)
    tiny_sae(model="sample").save(folder)
    command = ["index", "--sae", "one", "--workspace", str(workspace), "--json"]
    capsys.readouterr()
    assert main([*command, "--estimate"]) == 2
    assert "give --for-tokens" in capsys.readouterr().err
    assert main([*command, "--for-tokens", "5"]) == 2
    assert "is for --estimate" in capsys.readouterr().err
    assert main([*command, "--estimate", "--for-tokens", "1000000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["encoding"] == 2 * 10**6 * found["sizes"]["latents"] * found["sizes"]["width"]
    assert not (folder / "features.duckdb").exists()
