"""Four calls, by the instructions they take: what no other work on the machine disturbs.

`tests/c/count.c` makes the calls under callgrind, with the kernels of AVX2 where there are any, for that is the best
level valgrind knows. The bounds leave room for another compiler, not for another loop.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bnnlayers import _core

ROOT = Path(__file__).parent.parent
LEVEL = "avx2" if "avx2" in _core.variants else "portable"

# As gcc 12 makes them: two convolutions of 26 million multiply-adds without their padding, one of an eighth of the
# channels, and 401,408 floats.
COUNTS = {
    "avx2": {"xnor": 905026, "folded": 261920, "signed_right": 3260854, "pack": 777885},
    "portable": {"xnor": 3567820, "folded": 1018067, "signed_right": 28657586, "pack": 4967573},
}
ROOM = 1.2


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CC", "cc").split()[-1])
    if not shutil.which("valgrind"):
        pytest.skip("valgrind, which counts the instructions, is not installed")
    if not compiler:
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("count") / "count"
    sources = [ROOT / "tests/c/count.c", ROOT / "csrc/geometry.c", ROOT / f"csrc/isa/{LEVEL}.c"]
    flags = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-trapping-math", f"-I{ROOT / 'csrc'}"]
    subprocess.run([compiler, *flags, f"-DCOUNTED_LEVEL=bnn_{LEVEL}", "-o", path, *sources, "-lm"], check=True)
    return path


@pytest.mark.parametrize("call", ["xnor", "folded", "signed_right", "pack"])
def test_instructions(program, call):
    counts = program.parent / call
    options = ["--tool=callgrind", "--toggle-collect=counted*", f"--callgrind-out-file={counts}"]
    subprocess.run(["valgrind", "--quiet", *options, program, call], check=True, capture_output=True)
    count = int(re.search(r"^(?:summary|totals): (\d+)", counts.read_text(), re.MULTILINE)[1])
    print(f"{call} on {LEVEL}: {count} instructions")
    assert count <= ROOM * COUNTS[LEVEL][call]
