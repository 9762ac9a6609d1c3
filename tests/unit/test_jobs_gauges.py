"""What the machine says of itself, and what is not believed."""

import pytest

from mi_crow.jobs.gauges import parse_gpu, read_gauges


def test_a_line_of_nvidia_smi_is_a_gauge():
    gauge = parse_gpu("0, NVIDIA H200, 37, 1024, 143771")
    assert gauge is not None
    assert (gauge.name, gauge.busy) == ("0 NVIDIA H200", 0.37)
    assert (gauge.used, gauge.total) == (1 << 30, 143771 << 20)


def test_a_gpu_in_parts_has_no_share_in_use():
    gauge = parse_gpu("1, NVIDIA A100, [N/A], 10, 40")
    assert gauge is not None
    assert gauge.busy is None


@pytest.mark.parametrize("line", ["", "No devices were found", "0, X, 1, [N/A], [N/A]"])
def test_a_line_without_memory_is_no_gauge(line):
    assert parse_gpu(line) is None


def test_a_program_that_fails_means_no_gpus(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert read_gauges().gpus == ()
