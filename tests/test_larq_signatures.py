"""Everything that is public in larq is here under its name, with its arguments in their order and their defaults."""

import ast
import inspect

import pytest
from golden.archive import read

import bnnlayers as lq

# What larq draws its tables with.
INTERNAL = {
    "models.LayersTable",
    "models.OperationProfile",
    "models.SummaryTable",
    "models.sanitize_table",
}
CASES = [case for case in read("signatures") if case["id"] not in INTERNAL]


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_arguments(case):
    module, name = case["id"].split(".")
    given = inspect.signature(getattr(getattr(lq, module), name)).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ours = [(p.name, p.default) for p in given if p.kind not in kinds]
    theirs = [
        (name, inspect.Parameter.empty if default is None else ast.literal_eval(default))
        for name, default in case["arguments"]
    ]
    # What this library adds comes after what larq has, and may be left out.
    assert ours[: len(theirs)] == theirs
    assert all(default is not inspect.Parameter.empty for _, default in ours[len(theirs) :])
