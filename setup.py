"""Builds the C extension: every instruction set from one generic source, chosen when the module is imported."""

import os
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = sorted(p for p in glob("csrc/**/*.c", recursive=True))
HEADERS = sorted(p for ext in ("h", "def") for p in glob(f"csrc/**/*.{ext}", recursive=True))
# The same float results on every level; and comparisons raise no flags and roots no errno that anyone reads, so loops
# with them vectorise.
FLAGS = ["-std=c11", "-O3", "-g0", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden"]


class BuildExt(build_ext):
    """Adds the flags, and NumPy, which an isolated build has only by then."""

    def build_extensions(self) -> None:
        import numpy

        for extension in self.extensions:
            extension.include_dirs.append(numpy.get_include())
            extension.extra_compile_args += FLAGS
            if os.environ.get("BNNLAYERS_WERROR") == "1":
                extension.extra_compile_args += ["-Wall", "-Wextra", "-Werror"]
            if os.name == "posix":
                extension.extra_compile_args.append("-pthread")
                extension.extra_link_args.append("-pthread")
        super().build_extensions()


setup(
    ext_modules=[Extension("bnnlayers._core", SOURCES, depends=["setup.py", *HEADERS])],
    cmdclass={"build_ext": BuildExt},
)
