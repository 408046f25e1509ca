"""`models.summary`: larq's tables to the character, apart from the columns that larq does not have."""

import pytest
from golden.archive import read
from golden.networks import NETWORKS

import bnnlayers as lq
from bnnlayers import keras

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


def larqs(box):
    """A table of layers without its last column, which larq does not have."""
    lines = box.split("\n")
    rules = [i for i, line in enumerate(lines) if line.startswith("+--")]
    rows = [lines[1], *lines[rules[0] + 1 : rules[1]]]
    assert rows[0].endswith(" Arithmetic |")
    width = max(len(row.removesuffix(" |").rpartition("  ")[2]) for row in rows)
    return "\n".join(line[: -width - 3] + line[-1] for line in lines)


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
