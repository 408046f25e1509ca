"""`models.summary`: larq's tables to the character, apart from the columns that larq does not have."""

import numpy as np
import pytest
from golden.archive import read
from golden.networks import NETWORKS

import bnnlayers as lq
from bnnlayers import keras
from bnnlayers.models import ModelProfile, _bitsize_as_str, _number_as_readable_str

NETWORK = {network.__name__: network for network in NETWORKS}
CASES = read("summaries")


@pytest.fixture(autouse=True)
def fresh_names():
    keras.backend.clear_session()


def printed(model, **kwargs):
    lines = []
    lq.models.summary(model, print_fn=lines.append, **kwargs)
    assert len(lines) == 2
    return lines


def without_last_column(box):
    """A box with its last column cut out of every line."""
    lines = box.split("\n")
    header = lines[1]
    width = len(header) - len(header[:-1].rstrip().rpartition("  ")[0]) - 2
    return "\n".join(line[: -width - 1] + line[-1] for line in lines)


def larqs(box):
    assert without_last_column(box) != box
    return without_last_column(box)


@pytest.mark.parametrize("case", [c for c in CASES if not c["id"].startswith("uncounted")], ids=repr)
def test_tables_are_larqs(case):
    table, totals = printed(NETWORK[case["id"]](lq, keras))
    assert larqs(table) == case["printed"][0]
    assert totals == case["printed"][1]


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_tables_without_macs_are_larqs(case):
    table, totals = printed(NETWORK[case["id"]](lq, keras), include_macs=False)
    assert larqs(table) == case["without_macs"][0]
    assert totals == case["without_macs"][1]
