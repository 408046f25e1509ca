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


class TestProfile:
    def test_layers(self):
        profile = ModelProfile(NETWORK["convolutions"](lq, keras))
        expected = {
            "input_precision": [None, None, 2, None, 1, None, None],
            "output_pixels": [560, 140, 35, 35, 35, 1, 1],
            "unique_param_bidtwidths": [[1, 32], [], [2], [32], [1, 32], [], [32]],
            "unique_op_precisions": [[32], [], [2], [], [1], [], [32]],
            "memory": [648 + 32 * 24, 0, 2 * 216, 32 * 48, 984 + 32 * 32, 0, 32 * 11210],
            "int8_fp_weights_memory": [648 + 8 * 24, 0, 2 * 216, 8 * 48, 984 + 8 * 32, 0, 8 * 11210],
            "fp_equivalent_memory": [32 * n for n in (672, 0, 216, 48, 1016, 0, 11210)],
        }
        for name, values in expected.items():
            assert [getattr(p, name) for p in profile.layer_profiles] == values
        shapes = [p.output_shape for p in profile.layer_profiles]
        assert shapes[0] == (-1, 20, 28, 24)
        assert shapes[-2:] == [(-1, 1120), (-1, 10)]
        dense = profile.layer_profiles[-1]
        assert dense.weight_count() == dense.weight_count(trainable=False) == 11210
        assert dense.op_count("mac", 32) == 11200
        assert dense.op_count("mac", 1) == 0

    def test_a_model_within_sums_its_layers(self):
        whole = ModelProfile(NETWORK["convolutions"](lq, keras))
        keras.backend.clear_session()
        nested = ModelProfile(NETWORK["nested"](lq, keras))
        block, parts = nested.layer_profiles[2], whole.layer_profiles[2:5]
        assert block.input_precision == parts[0].input_precision
        assert (block.output_shape, block.output_pixels) == (parts[-1].output_shape, parts[-1].output_pixels)
        for name in ("memory", "fp_equivalent_memory", "int8_fp_weights_memory"):
            assert getattr(block, name) == sum(getattr(p, name) for p in parts)
        assert block.weight_count() == sum(p.weight_count() for p in parts)
        for precision in (None, 1, 2):
            assert block.op_count("mac", precision) == sum(p.op_count("mac", precision) for p in parts)
        assert nested.generate_summary() == whole.generate_summary()

    def test_only_macs_are_counted(self):
        profile = ModelProfile(NETWORK["weightless"](lq, keras))
        with pytest.raises(ValueError, match="mac"):
            profile.layer_profiles[0].op_count("flop")

    def test_layers_that_larq_does_not_count(self):
        volumes = ModelProfile(NETWORK["uncounted_volumes"](lq, keras))
        assert [p.op_count("mac") for p in volumes.layer_profiles] == [216 * 6 * 7 * 8, 0, 96 * 6 * 6 * 8]
        assert volumes.op_count("mac", 1) == 96 * 6 * 6 * 8
        images = ModelProfile(NETWORK["uncounted_images"](lq, keras))
        counts = [p.op_count("mac") for p in images.layer_profiles]
        assert counts == [72 * 11 * 13, 5 * 6 * (2 * 2 * 4) * 3, None, 26 * (5 * 3) * 2]

    @pytest.mark.parametrize("implementation", [1, 2, 3])
    def test_locally_connected_counts_what_it_computes(self, implementation):
        layer = lq.layers.QuantLocallyConnected1D(2, 3, implementation=implementation, input_shape=(8, 5))
        assert ModelProfile(keras.models.Sequential([layer])).op_count("mac") == 6 * (3 * 5) * 2

    def test_channels_first(self):
        layer = lq.layers.QuantConv2D(4, 3, data_format="channels_first", input_shape=(5, 8, 9))
        assert ModelProfile(keras.models.Sequential([layer])).layer_profiles[0].output_pixels == 6 * 7


class TestArithmetic:
    def test_each_layer(self):
        model = NETWORK["nested"](lq, keras)
        rows = printed(model)[0].split("\n")
        last = {row.split()[1]: row.rstrip(" |").rpartition("  ")[2] for row in rows if row.startswith("| ")}
        assert last["quant_conv2d"] == "signed"
        assert last["max_pooling2d"] == "-"
        assert last["dense"] == "float"
        assert set(last["block"].split(" + ")) == {"xnor", "signed"}

    def test_a_call_decides(self):
        layer = lq.layers.QuantDense(3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", input_shape=(4,))
        model = keras.models.Sequential([layer])
        model(np.full((1, 4), np.nan, np.float32))
        assert printed(model)[0].count(" signed |") == 1


class TestKept:
    """A layer that follows another one with weights, whose sums are too long to run again: what comes in is traced."""

    @pytest.mark.parametrize(
        ("quantizer", "bits"),
        [
            (None, 32),
            ("ste_sign", 1 + 1),
            (lq.quantizers.SteSign(clip_value=None), 1),
            ("ste_heaviside", 1 + 1),
            ("ste_tern", 2 + 1),
            (lq.quantizers.DoReFa(2), 2 + 1),
            (lq.quantizers.DoReFa(4), 4 + 1),
            ("approx_sign", 1 + 32),
            ("swish_sign", 1 + 32),
        ],
        ids=str,
    )
    def test_quantizers(self, quantizer, bits):
        layer = lq.layers.QuantDense(5, input_quantizer=quantizer, kernel_quantizer="ste_sign")
        model = keras.models.Sequential([keras.layers.Input((300,)), keras.layers.Dense(96), layer])
        first, second = ModelProfile(model, training=True).layer_profiles
        assert first.kept == (32 * 300, 300)
        assert second.kept == (bits * 96, 96)
        assert second.kept.bits_per_activation == bits

    @pytest.mark.parametrize("units, bits", [(65, 0), (64, 32 * 64)])
    def test_what_is_computed_again_is_not_kept(self, units, bits):
        """But where a sample has so few values that it is not worth the call."""
        binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        layers = [keras.layers.Input((64,)), lq.layers.QuantDense(units, use_bias=False, **binary)]
        layers += [keras.layers.BatchNormalization(), lq.layers.QuantDense(2, input_quantizer="approx_sign")]
        kept = [p.kept.bits for p in ModelProfile(keras.models.Sequential(layers), training=True).layer_profiles]
        assert kept[0] == 64
        assert kept[1] == bits

    def test_table(self):
        model = NETWORK["nested"](lq, keras)
        table, totals = printed(model, training=True)
        header, units = table.split("\n")[1:3]
        assert header.split()[-3:] == ["Kept", "Arithmetic", "|"]
        assert units.split()[-2:] == ["(bit)", "|"]
        profile = ModelProfile(model, training=True)
        assert profile.kept.activations == sum(p.kept.activations for p in profile.layer_profiles)
        assert f"| Kept for backward, per sample {profile.kept.bits / 8 / 1024:.2f} KiB |" in " ".join(totals.split())

    def test_the_model_stays_as_it_is(self):
        with lq.context.metrics_scope(["flip_ratio"]):
            dense = lq.layers.QuantDense(3, kernel_quantizer="ste_sign", input_shape=(4,))
        layers = [dense, keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
        model = keras.models.Sequential(layers)
        random = keras.backend.random_generator().bit_generator
        before, state = model.get_weights(), random.state
        printed(model, training=True)
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert random.state == state
        assert dense.kernel_quantizer.flip_ratio.count.numpy() == 0
        assert "call" not in vars(dense)

    def test_needs_the_shape_of_the_inputs(self):
        model = NETWORK["subclassed"](lq, keras)
        with pytest.raises(ValueError, match="inputs of model 'subclassed'"):
            printed(model, training=True)


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="built"):
        printed(keras.models.Sequential([keras.layers.Dense(2)]))


def test_unit_of_memory():
    assert [_bitsize_as_str(bits) for bits in (8, 8 * 1024)] == ["byte", "kB"]
    with pytest.raises(NotImplementedError):
        _bitsize_as_str(-1)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999.4, "999"),
        (999.5, "1 k"),
        (1234, "1.23 k"),
        (1900, "1.9 k"),
        (123456, "123 k"),
        (999999, "1 M"),
        (1.5e9, "1.5 B"),
        (2e12, "2 T"),
        (1e16, "1.00E+16"),
    ],
)
def test_readable_numbers(number, text):
    assert _number_as_readable_str(number) == text
