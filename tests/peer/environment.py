"""A virtual environment of its own with SAELens and sparsify in it.

It sees the packages of the environment that the tests run in, so that torch is not installed once
more; what the peers need besides goes into it alone.
"""

import hashlib
import os
import site
import subprocess
import sys
import venv
from pathlib import Path

from platformdirs import user_cache_dir

PEERS = ("sae-lens==6.54.12", "eai-sparsify==1.3.3")
TOOLS = Path(__file__).parent / "tools"


class DownloadFailed(Exception):
    """The peers cannot be had."""


def make_environment(folder: Path) -> Path:
    """The Python of a new environment. Raises DownloadFailed."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    (packages / "parent.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", *PEERS]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        raise DownloadFailed(str(getattr(error, "stderr", "") or error).strip()) from error
    return python


def kept_environment() -> Path:
    """The same, made on first use and kept in the user's cache. Raises DownloadFailed.

    One for every set of peers and every environment that they look into.
    """
    seen = "\n".join([*PEERS, sys.version, *site.getsitepackages()])
    name = hashlib.sha256(seen.encode()).hexdigest()[:12]
    folder = Path(user_cache_dir("mi-crow")) / "peers" / name
    marker = folder / "whole"
    if not marker.is_file():
        make_environment(folder)
        marker.touch()
    return folder / "bin" / "python"


def surroundings(device: str) -> dict[str, str]:
    """Environment variables for a peer's process that works on `device`, `cpu` or `cuda`."""
    quiet = {"TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled"}
    if device == "cuda":
        return os.environ | quiet
    # On CUDA sparsify computes in bf16; its Triton kernels do not run anywhere else, but are
    # taken wherever Triton is installed.
    return os.environ | quiet | {"CUDA_VISIBLE_DEVICES": "", "SPARSIFY_DISABLE_TRITON": "1"}


def run_tool(python: Path, name: str, action: str, folder: Path) -> None:
    """Runs one of the tools on a folder; its complaint is the test's."""
    done = subprocess.run(
        [str(python), str(TOOLS / f"{name}.py"), action, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env=surroundings("cpu"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
