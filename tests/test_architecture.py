"""The laws of the house, read from the tree: which file may know what."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import reference

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bnnlayers"
CSRC = ROOT / "csrc"

INCLUDE = re.compile(r"^\s*#\s*include\s+([<\"][^>\"]+[>\"])", re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
GROUND = {"tape", "bits", "geometry"}


def sources(folder, *suffixes):
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in suffixes]
    assert found, f"no sources in {folder}"
    return found


def includes(path):
    return INCLUDE.findall(path.read_text())


# ---- C -------------------------------------------------------------------------------------------


def test_kernels_are_generic():
    """No system header and no instruction set: what a kernel needs of either is a primitive."""
    isa = re.compile(r"_mm\d*_|\b_tile_|__m\d|__AVX|__SSE|__ARM|immintrin|arm_neon|__x86|__builtin_ia32")
    for path in sources(CSRC / "kernels", ".h", ".c"):
        assert not [name for name in includes(path) if name.startswith("<")], path
        assert not isa.findall(path.read_text()), path


def test_instruction_sets_hold_no_loop():
    for path in sources(CSRC / "isa", ".h", ".c"):
        code = COMMENT.sub("", path.read_text())
        assert not re.findall(r"\b(for|while|do|goto)\b", code), path


def test_only_the_binding_knows_python():
    for path in sources(CSRC, ".h", ".c"):
        python = [name for name in includes(path) if re.match(r"<(Python|numpy/)", name)]
        assert not python or path == CSRC / "py" / "numpy_api.h", path
        if path.parent.name != "py":
            assert not re.search(r"\bPy[A-Z_]\w*|\bnpy_", COMMENT.sub("", path.read_text())), path


def test_the_binding_reaches_kernels_only_through_the_table():
    """What computes lies in kernels/; the binding includes none of it, and no mathematics."""
    for path in sources(CSRC / "py", ".h", ".c"):
        for name in includes(path):
            local = name.startswith('"') and "/" not in name
            ours = name in ('"../bnn.h"', '"../threads.h"', '"../ops.def"')
            system = name.startswith("<") and name not in ("<math.h>", "<tgmath.h>", "<pthread.h>")
            assert local or ours or system, f"{path} includes {name}"


def test_threads_have_one_home():
    for path in sources(CSRC, ".h", ".c"):
        if "pthread" in path.read_text() or "#pragma omp" in path.read_text():
            assert path.stem == "threads", path


def test_every_elementwise_operation_has_a_reference():
    """With the same parameters; the tests of kernels then find it by its name."""
    entries = re.findall(r'BNN_OP\((\w+), (\d), "([^"]+)"', (CSRC / "ops.def").read_text())
    assert entries
    for name, inputs, signature in entries:
        parameters = signature.split(", ")
        assert len(parameters) == int(inputs), name
        assert list(inspect.signature(getattr(reference, name)).parameters) == parameters


# ---- Python --------------------------------------------------------------------------------------


def imports(path):
    """Modules of the package that a file imports, as ("ops", "quantize"), ("_core",), ..."""
    package = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            yield from (name[1:] for name in names if name[0] == "bnnlayers")
        elif isinstance(node, ast.ImportFrom):
            base = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            elif base[:1] == ("bnnlayers",):
                base = base[1:]
            else:
                continue
            yield from ((*base, alias.name) for alias in node.names)


def floor(path):
    """The first part of a file's place in the package: "keras", "ops", "tape", ..."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


MODULES = sources(PACKAGE, ".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_go_one_way(path):
    here = floor(path)
    wanted = {name[0] for name in imports(path)} - {"__version__"}
    if here in GROUND:
        assert wanted <= GROUND | {"_core"}
    elif here == "ops":
        assert wanted <= GROUND | {"_core", "ops"}
    elif here == "keras":
        assert wanted <= GROUND | {"ops", "keras"}
    if here not in ("ops", "bits"):
        assert "_core" not in wanted
    if here == "geometry":
        assert not wanted


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if re.match(r"layers|base_layer", path.stem) or "layers" in path.parts],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_layers_know_neither_optimizers_nor_models(path):
    wanted = {part for name in imports(path) for part in name}
    assert not wanted & {"optimizers", "models"}


def test_import_reader_sees_every_form(tmp_path, monkeypatch):
    """The laws above are only as good as what they read."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    path = tmp_path / "keras" / "layers" / "core.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import bnnlayers.bits\nfrom ... import tape\nfrom ...ops import product\n"
        "from .. import backend\nfrom .core import x\nfrom bnnlayers.models import y\n"
        "import numpy\nfrom os import path\n"
    )
    assert list(imports(path)) == [
        ("bits",),
        ("tape",),
        ("ops", "product"),
        ("keras", "backend"),
        ("keras", "layers", "core", "x"),
        ("models", "y"),
    ]


# ---- everything ----------------------------------------------------------------------------------


def test_no_file_names_a_machine_path():
    roots = ["home", "root", "Users", "work", "tmp"]
    machine = re.compile(rf"(?<![\w.~$}})])/(?:{'|'.join(roots)})/\w")
    folders = ("csrc", "bnnlayers", "tests", "benchmarks", "examples", "docs", ".ci", ".github")
    paths = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    texts = (".py", ".pyi", ".c", ".h", ".def", ".md", ".toml", ".cfg", ".yml", ".json", "")
    for path in paths:
        cached = any(re.fullmatch(r"\..*cache|__pycache__", part) for part in path.parts)
        if not cached and path.suffix in texts and path.name != ".git" and path.is_file() and path.stat().st_size < 1e6:
            found = machine.findall(path.read_text(errors="ignore"))
            assert not found, f"{path.relative_to(ROOT)} names {found}"
