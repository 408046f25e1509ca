"""larq on TensorFlow and this library on the same work, in alternation on the same machine.

Two worker processes run the same script, one in an environment with larq (``--larq path/to/its/python``), one here.
They take turns, so that what else the machine does hits both; what is printed are medians, and the peak memory of each
whole process. The work: a step of larq's MNIST tutorial network at batch 64 in `fit`, and a prediction of QuickNet for
one image of 224 x 224.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path


def libraries(name):
    if name == "larq":
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import larq as lq
        import larq_zoo as zoo
        import tensorflow as tf

        threads = int(os.environ["OMP_NUM_THREADS"])
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        return lq, tf.keras, zoo
    import bnnlayers as lq

    return lq, lq.keras, lq.zoo


def tutorial(lq, keras):
    """The network of larq's MNIST tutorial."""
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    first = {key: value for key, value in binary.items() if key != "input_quantizer"}
    layers = [
        lq.layers.QuantConv2D(32, 3, use_bias=False, input_shape=(28, 28, 1), **first),
        keras.layers.MaxPooling2D(2),
        keras.layers.BatchNormalization(scale=False),
        lq.layers.QuantConv2D(64, 3, use_bias=False, **binary),
        keras.layers.MaxPooling2D(2),
        keras.layers.BatchNormalization(scale=False),
        lq.layers.QuantConv2D(64, 3, use_bias=False, **binary),
        keras.layers.BatchNormalization(scale=False),
        keras.layers.Flatten(),
        lq.layers.QuantDense(64, use_bias=False, **binary),
        keras.layers.BatchNormalization(scale=False),
        lq.layers.QuantDense(10, use_bias=False, **binary),
        keras.layers.BatchNormalization(scale=False),
        keras.layers.Activation("softmax"),
    ]
    model = keras.models.Sequential(layers)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def training(lq, keras, zoo):
    import numpy as np

    rng = np.random.default_rng(0)
    model, steps = tutorial(lq, keras), 20
    x = rng.uniform(-1, 1, (64 * steps, 28, 28, 1)).astype(np.float32)
    y = rng.integers(0, 10, len(x))
    return lambda: model.fit(x, y, batch_size=64, epochs=1, verbose=0), steps


def prediction(lq, keras, zoo):
    import numpy as np

    model = zoo.sota.QuickNet(weights=None)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    return lambda: model.predict(image, verbose=0), 1


WORK = {"MNIST tutorial, training step, batch 64": training, "QuickNet 224x224, prediction of one image": prediction}


def work(name, case):
    """Answer every line on standard input with the milliseconds of one unit of work and the peak memory in MiB."""
    run, units = WORK[case](*libraries(name))
    run()
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        taken = 1e3 * (time.perf_counter() - start) / units
        print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


def compare(case, pythons, threads, rounds):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    workers = {
        name: subprocess.Popen(
            [python, __file__, "--worker", name, case],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        for name, python in pythons.items()
    }
    for name, worker in workers.items():
        for line in worker.stdout:
            if line.strip() == "ready":
                break
        else:
            raise SystemExit(f"the worker for {name} ended before it was ready")
    times, memory = {name: [] for name in workers}, {}
    for _ in range(rounds):
        for name, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            taken, memory[name] = json.loads(worker.stdout.readline())
            times[name].append(taken)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    return {
        "case": case,
        "threads": threads,
        "milliseconds": {name: statistics.median(values) for name, values in times.items()},
        "larq / bnnlayers": statistics.median(ratios),
        "peak MiB": memory,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--larq", default=sys.executable, help="a Python that has larq, larq_zoo and TensorFlow")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("out/against_larq.json"))
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(*options.worker)
    rows = []
    print(f"{'':<44}{'threads':>8}{'larq ms':>10}{'ours ms':>10}{'ratio':>8}{'larq MiB':>10}{'ours MiB':>10}")
    for threads in options.threads:
        for case in WORK:
            row = compare(case, {"larq": options.larq, "bnnlayers": sys.executable}, threads, options.rounds)
            rows.append(row)
            ms, mib = row["milliseconds"], row["peak MiB"]
            print(
                f"{case:<44}{threads:>8}{ms['larq']:>10.1f}{ms['bnnlayers']:>10.1f}"
                f"{row['larq / bnnlayers']:>8.2f}{mib['larq']:>10.0f}{mib['bnnlayers']:>10.0f}",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1))
    print(f"\nwrote {options.out}")


if __name__ == "__main__":
    main()
