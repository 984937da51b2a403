"""The kernels alone, without Python: against a plain loop, under sanitizers, after a fork."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secateurs.realise.sparse import available

CHECK = Path(__file__).with_name("kernels_check.c")
COMPILER = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("flags", "cases"),
    [
        pytest.param(["-O1"], 150, id="optimised"),
        pytest.param(["-O0", *SANITIZERS], 300, id="sanitized", marks=pytest.mark.slow),
    ],
)
def test_random_layers_are_those_of_a_triple_loop_in_double(tmp_path, flags, cases):
    program = tmp_path / "check"
    command = [*COMPILER.split(), *flags, "-std=gnu11", "-pthread", str(CHECK), "-o", str(program)]
    subprocess.run([*command, "-lm"], check=True, capture_output=True)
    done = subprocess.run([program, str(cases)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"plain: {cases} layers\n0 wrong\n")
    for instructions in available():
        assert f"{instructions}: {cases} layers" in done.stdout


FORK = """
import os, torch
from torch import nn
from secateurs.realise.sparse import accelerate
layer, x = nn.Conv2d(16, 16, 3, padding=1), torch.randn(1, 16, 20, 20)
layer.weight.data *= torch.rand(layer.weight.shape) < 0.1
fast = accelerate(layer, x, threads=3, cache=None, rounds=0)
wanted = fast.engine.run((x,), {})
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(fast.engine.run((x,), {}), wanted) else 1)
print(os.waitpid(child, 0)[1], torch.equal(fast.engine.run((x,), {}), wanted))
"""


@pytest.mark.skipif(not hasattr(os, "fork") or not available(), reason="no fork, or no kernels")
def test_a_forked_child_runs_what_its_parent_ran_on_threads():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "0 True\n"), done.stderr
