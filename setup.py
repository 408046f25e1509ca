"""Builds the C extension: every instruction set from one generic source, chosen when the module is imported."""

import os
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = sorted(p for p in glob("csrc/**/*.c", recursive=True))
HEADERS = sorted(p for ext in ("h", "def") for p in glob(f"csrc/**/*.{ext}", recursive=True))
# The same float results on every level; and comparisons raise no flags that anyone reads, so loops with them vectorise.
FLAGS = ["-std=c11", "-O3", "-g0", "-ffp-contract=off", "-fno-trapping-math", "-fvisibility=hidden"]

OPENMP_PROGRAM = """
#include <omp.h>
int main(void) {
  int sum = 0;
#pragma omp parallel for reduction(+ : sum) num_threads(2)
  for (int i = 0; i < 4; i++) sum += i;
  return sum != 6 || omp_get_max_threads() < 1;
}
"""


class BuildExt(build_ext):
    """Adds what only the compiler can tell: whether it knows OpenMP."""

    def build_extensions(self) -> None:
        import numpy

        for extension in self.extensions:
            extension.include_dirs.append(numpy.get_include())
            extension.extra_compile_args += FLAGS
            if os.environ.get("BNNLAYERS_WERROR") == "1":
                extension.extra_compile_args += ["-Wall", "-Wextra", "-Werror"]
            if self.knows_openmp():
                extension.extra_compile_args.append("-fopenmp")
                extension.extra_link_args.append("-fopenmp")
            else:
                extension.extra_compile_args.append("-Wno-unknown-pragmas")
        super().build_extensions()

    def knows_openmp(self) -> bool:
        """Whether a program that needs OpenMP compiles, links and runs."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "openmp.c")
            source.write_text(OPENMP_PROGRAM)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=["-fopenmp"])
                self.compiler.link_executable(objects, "openmp", output_dir=folder, extra_postargs=["-fopenmp"])
                return subprocess.run([str(Path(folder, "openmp"))], timeout=60).returncode == 0
            except Exception as error:
                print(f"OpenMP is not available ({error}): building for one thread", file=sys.stderr)
                return False


setup(
    ext_modules=[Extension("bnnlayers._core", SOURCES, depends=["setup.py", *HEADERS])],
    cmdclass={"build_ext": BuildExt},
)
