"""A process that was told to end with its parent does, on Linux and elsewhere."""

import subprocess
import sys

import pytest

from mi_crow.jobs.process import pid_start
from tests.helpers.jobs_fixture import wait_until

CHILD = """
import os, sys, time
sys.platform = {platform!r}
from mi_crow.jobs.process import die_with
die_with(os.getppid() if {alive} else -1)
sys.stdout.write(f"{{os.getpid()}}\\n")
sys.stdout.flush()
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_child_does_not_outlive_the_kill_of_its_parent(platform: str) -> None:
    code = CHILD.format(platform=platform, alive=True)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert pid_start(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not pid_start(child))


def test_a_child_whose_parent_is_gone_already_ends_too() -> None:
    code = CHILD.format(platform="linux", alive=False)
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 1
