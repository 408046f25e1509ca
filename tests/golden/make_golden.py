"""Record what larq 0.14 on tf_keras and TensorFlow computes, for the tests to compare with.

    python -m venv reference && reference/bin/pip install -r tests/golden/requirements.txt
    reference/bin/python tests/golden/make_golden.py            # every family
    reference/bin/python tests/golden/make_golden.py QuantDense # these only

Every module in `families/` registers functions that yield the cases of one file; a new family is a
new function. Seeds are fixed and TensorFlow runs on one thread without oneDNN, so a second run
gives the same files, up to the last bit of float sums on another processor.
"""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"
# With oneDNN some three-dimensional gradients end the process.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import logging

import tensorflow as tf
from archive import write
from families import FAMILIES

tf.get_logger().setLevel(logging.ERROR)
logging.getLogger("larq").setLevel(logging.ERROR)
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


def main(names):
    unknown = set(names) - set(FAMILIES)
    if unknown:
        sys.exit(f"no such family: {sorted(unknown)}; there are {sorted(FAMILIES)}")
    for name in names or FAMILIES:
        cases = list(FAMILIES[name]())
        write(name, cases)
        print(f"{name}: {len(cases)} cases")


if __name__ == "__main__":
    main(sys.argv[1:])
