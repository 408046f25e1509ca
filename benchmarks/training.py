"""larq on TensorFlow and this library train the same networks, in alternation on the same machine.

    python benchmarks/training.py --larq path/to/a/python/with/larq

Workers run this script, one in an environment with larq, larq_zoo and TensorFlow, one here. What they are asked for:

time        Milliseconds per step of `fit` in steady state. The two take turns, a block of two epochs each, so that what
            else the machine does hits both. The first epoch finds its memory anew, and caches that the other one has
            filled, and is not counted. A row is the median of the blocks, the ratio the median over pairs of blocks.
memory      Peak of the whole process, libraries and data included, and what it grows by per sample: from processes of
            their own, at two batch sizes.
trajectory  Losses of the first steps from the same weights on the same batches. Sooner or later a rounding decides a
            sign, and from there the losses of two binary networks part; so larq is also run against itself, on
            the same batches in reverse order, whose sums are rounded otherwise. The script fails if the losses differ
            by more than `--tolerance` and by more than four times what larq's then do.
profile     Operation by operation, a step of this library; the rows add up to it.
tape        What recording and the walk back cost of a step, besides the operations that they make and call.
predict     Milliseconds per image of `predict`, of one and of many, for the networks of 224x224.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}
# The first layer sees the image as it is.
FIRST = {**BINARY, "input_quantizer": None}


def mnist(lq, keras, zoo=None):
    """The network of larq's MNIST tutorial."""
    layers, conv, dense = keras.layers, lq.layers.QuantConv2D, lq.layers.QuantDense
    return keras.models.Sequential(
        [
            conv(32, 3, input_shape=(28, 28, 1), **FIRST),
            layers.MaxPooling2D(2),
            layers.BatchNormalization(scale=False),
            conv(64, 3, **BINARY),
            layers.MaxPooling2D(2),
            layers.BatchNormalization(scale=False),
            conv(64, 3, **BINARY),
            layers.BatchNormalization(scale=False),
            layers.Flatten(),
            dense(64, **BINARY),
            layers.BatchNormalization(scale=False),
            dense(10, **BINARY),
            layers.BatchNormalization(scale=False),
            layers.Activation("softmax"),
        ]
    )


def cifar(lq, keras, zoo=None):
    """The network of larq's BinaryNet tutorial on CIFAR-10."""
    layers = [lq.layers.QuantConv2D(128, 3, input_shape=(32, 32, 3), **FIRST)]

    def then(layer, pool=False):
        layers.append(keras.layers.BatchNormalization(momentum=0.999, scale=False))
        layers.append(layer)
        if pool:
            layers.append(keras.layers.MaxPooling2D(2, 2))

    for filters, pool in ((128, True), (256, False), (256, True), (512, False), (512, True)):
        then(lq.layers.QuantConv2D(filters, 3, padding="same", **BINARY), pool)
    layers += [keras.layers.BatchNormalization(momentum=0.999, scale=False), keras.layers.Flatten()]
    layers.append(lq.layers.QuantDense(1024, **BINARY))
    then(lq.layers.QuantDense(1024, **BINARY))
    then(lq.layers.QuantDense(10, **BINARY))
    then(keras.layers.Activation("softmax"))
    return keras.models.Sequential(layers)


def quicknet(lq, keras, zoo):
    """QuickNet of larq_zoo."""
    return zoo.sota.QuickNet(weights=None)


def densenet(lq, keras, zoo):
    """BinaryDenseNet28 of larq_zoo."""
    return zoo.literature.BinaryDenseNet28(weights=None)


# title, shape of an image, classes, batch size, the other batch size of the growth of memory, steps of a block
NETWORKS = {
    "mnist": ("MNIST tutorial", (28, 28, 1), 10, 64, 256, 40),
    "cifar": ("CIFAR-10 tutorial", (32, 32, 3), 10, 50, 100, 4),
    "quicknet": ("QuickNet 224x224", (224, 224, 3), 1000, 8, 16, 4),
    "densenet": ("BinaryDenseNet28 224x224", (224, 224, 3), 1000, 8, 16, 3),
}


# ---- the workers' side ----------------------------------------------------------------------------------------------


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


def peak():
    """Peak memory of this process in MiB; what the system counts for it otherwise starts with its parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


class Session:
    """What a worker can be asked for."""

    def __init__(self, library):
        self.lq, self.keras, self.zoo = libraries(library)

    def build(self, network):
        self.keras.utils.set_random_seed(0)
        self.network, self.model = network, globals()[network](self.lq, self.keras, self.zoo)
        self.model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    def data(self, samples):
        import numpy as np

        _, shape, classes, *_ = NETWORKS[self.network]
        rng = np.random.default_rng(0)
        return rng.uniform(-1, 1, (samples, *shape)).astype(np.float32), rng.integers(0, classes, samples)

    def fit(self, steps, batch, epochs=1):
        """Milliseconds per step of each epoch: from its first batch to its last, without what `fit` does around."""
        begin, taken = [], []
        clock = self.keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: begin.append(time.perf_counter()),
            on_epoch_end=lambda epoch, logs: taken.append(1e3 * (time.perf_counter() - begin[-1]) / steps),
        )
        x, y = self.data(steps * batch)
        self.model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=[clock])
        return taken

    def memory(self, batch):
        """After some steps with one batch, which is all the data there is."""
        self.fit(1, batch, epochs=4)
        return peak()

    def predict(self, images):
        """Milliseconds per image, in batches of 32 if there are so many."""
        x, _ = self.data(images)
        self.model.predict(x[:32], verbose=0)
        start = time.perf_counter()
        self.model.predict(x, verbose=0)
        return 1e3 * (time.perf_counter() - start) / images

    def save(self, path):
        import numpy as np

        np.savez(path, *self.model.get_weights())

    def load(self, path):
        import numpy as np

        with np.load(path) as file:
            self.model.set_weights([file[name] for name in file.files])

    def losses(self, steps, batch, backwards):
        x, y = self.data(steps * batch)
        order = slice(None, None, -1 if backwards else 1)
        parts = [slice(i * batch, (i + 1) * batch) for i in range(steps)]
        return [float(self.model.train_on_batch(x[part][order], y[part][order])[0]) for part in parts]

    def profile(self, steps, batch):
        with self.lq.profiler.Profile() as profile:
            self.fit(steps, batch)
        rows = [{**row._asdict(), "milliseconds": row.milliseconds / steps} for row in profile.rows]
        return {"milliseconds": profile.milliseconds / steps, "rows": rows, "table": str(profile)}

    def tape(self, repeats, batch):
        """Median milliseconds of a step, of what a tape adds to its forward pass, and of a walk less its operations.

        Signs and masks that backward needs are made while recording and count to it.
        """
        tape = sys.modules[self.lq.__name__ + ".tape"]
        clock, inside, found = time.perf_counter, [], []  # a clock of the thread alone takes ten times as long to read
        x, y = map(self.lq.constant, self.data(batch))
        variables = self.model.trainable_variables

        def observer(phase, name, function):
            def timed(*args, **kwargs):
                start = clock()
                result = function(*args, **kwargs)
                inside.append(clock() - start)
                return result

            return timed

        for _ in range(repeats):
            times = [clock()]
            self.model.train_on_batch(x, y)
            times.append(clock())
            self.model.compute_loss(x, y, self.model(x, training=True))
            times.append(clock())
            with self.lq.GradientTape() as recording:
                loss = self.model.compute_loss(x, y, self.model(x, training=True))
            times.append(clock())
            inside.clear()
            tape.observe(observer)
            recording.gradient(loss, variables)
            tape.observe(None)
            times.append(clock())
            step, plain, recorded, walk = (1e3 * (b - a) for a, b in zip(times, times[1:], strict=False))
            found.append((step, recorded - plain, walk - 1e3 * sum(inside)))
        return [statistics.median(column) for column in zip(*found, strict=True)]


def serve(library):
    """Answer every line of standard input, a call of a `Session`, with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    session = Session(library)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps(getattr(session, method)(**arguments)), file=answers, flush=True)


# ---- the asking side ------------------------------------------------------------------------------------------------


class Worker:
    """A process in which one of the libraries trains one network."""

    def __init__(self, library, python, threads, network):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        self._library = library
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, __file__, "--worker", library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self.ask("build", network=network)

    def ask(self, method, **arguments):
        try:
            self._process.stdin.write(json.dumps([method, arguments]) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self._process.wait()
            self._log.seek(0)
            raise SystemExit(f"the worker of {self._library} ended:\n{self._log.read()[-4000:]}") from None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


@contextlib.contextmanager
def workers(pythons, threads, network):
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Worker(name, python, threads, network)) for name, python in pythons.items()}


def time_section(pythons, network, options):
    _, _, _, batch, _, steps = NETWORKS[network]
    steps = max(2, round(steps * options.scale))
    for threads in options.threads:
        blocks = {name: [] for name in pythons}
        with workers(pythons, threads, network) as both:
            for worker in both.values():
                worker.ask("fit", steps=2, batch=batch, epochs=2)
            for _ in range(options.rounds):
                for name, worker in both.items():
                    blocks[name] += worker.ask("fit", steps=steps, batch=batch, epochs=2)[1:]
        yield compared("ms per step", threads, blocks)


def memory_section(pythons, network, options):
    _, _, _, batch, other, _ = NETWORKS[network]
    peaks = {name: [] for name in pythons}
    for name, found in peaks.items():
        for size in (batch, other):
            with workers({name: pythons[name]}, options.threads[0], network) as one:
                found.append(one[name].ask("memory", batch=size))
    growth = {name: [(more - less) / (other - batch)] for name, (less, more) in peaks.items()}
    yield compared(f"peak MiB, batch {batch}", options.threads[0], {name: found[:1] for name, found in peaks.items()})
    yield compared("peak MiB, per sample more", options.threads[0], growth)


def predict_section(pythons, network, options):
    if network not in ("quicknet", "densenet"):
        return
    for threads in options.threads:
        with workers(pythons, threads, network) as both:
            for images in (1, 160):
                blocks = {name: [] for name in pythons}
                for _ in range(options.rounds):
                    for name, worker in both.items():
                        blocks[name].append(worker.ask("predict", images=images))
                yield compared(f"ms per image, predict of {images}", threads, blocks)


def trajectory_section(pythons, network, options):
    batch, threads = NETWORKS[network][3], options.threads[-1]
    with workers(pythons, threads, network) as both, tempfile.TemporaryDirectory() as folder:
        start = str(Path(folder) / "start.npz")
        both["larq"].ask("save", path=start)
        runs = (("larq", "larq", False), ("bnnlayers", "bnnlayers", False), ("larq backwards", "larq", True))
        losses = {}
        for name, library, backwards in runs:
            both[library].ask("build", network=network)
            both[library].ask("load", path=start)
            losses[name] = both[library].ask("losses", steps=options.steps, batch=batch, backwards=backwards)
    differences = {
        name: [abs(a - b) / abs(b) for a, b in zip(losses[name], losses["larq"], strict=True)]
        for name in ("bnnlayers", "larq backwards")
    }
    here, itself = (max(found) for found in differences.values())
    together = next((i for i, d in enumerate(differences["bnnlayers"]) if d > options.tolerance), options.steps)
    print(
        f"  losses of {options.steps} steps: equal to {differences['bnnlayers'][0]:.0e} at first and to "
        f"{options.tolerance:.0e} for {together} steps; differ by {here:.0e} at most, larq from itself by {itself:.0e}"
    )
    equal = here <= max(options.tolerance, 4 * itself)
    yield {"what": "trajectory", "threads": threads, "losses": losses, "differences": differences, "equal": equal}


def profile_section(pythons, network, options):
    _, _, _, batch, _, steps = NETWORKS[network]
    with workers({"bnnlayers": pythons["bnnlayers"]}, options.threads[0], network) as one:
        one["bnnlayers"].ask("fit", steps=2, batch=batch)
        found = one["bnnlayers"].ask("profile", steps=max(2, round(steps * options.scale)), batch=batch)
    print(textwrap.indent(found.pop("table"), "  "))
    yield {"what": "profile", "threads": options.threads[0], **found}


def tape_section(pythons, network, options):
    _, _, _, batch, _, steps = NETWORKS[network]
    with workers({"bnnlayers": pythons["bnnlayers"]}, 1, network) as one:
        one["bnnlayers"].ask("fit", steps=2, batch=batch)
        repeats = max(2, round(8 * steps * options.scale))  # what it adds is a small difference of two times
        step, recording, walk = one["bnnlayers"].ask("tape", repeats=repeats, batch=batch)
    share = (recording + walk) / step
    print(f"  of {step:.2f} ms recording takes {recording:.2f}, the walk back {walk:.2f}: {100 * share:.1f} %")
    yield {"what": "tape", "threads": 1, "step": step, "recording": recording, "walk": walk, "share": share}


def compared(what, threads, blocks):
    ratio = statistics.median(a / b for a, b in zip(*blocks.values(), strict=True))
    medians = {name: statistics.median(values) for name, values in blocks.items()}
    print(f"  {what:<28}{threads:>8}{medians['larq']:>12.2f}{medians['bnnlayers']:>12.2f}{ratio:>9.2f}", flush=True)
    return {"what": what, "threads": threads, "larq / bnnlayers": ratio, "medians": medians, "blocks": blocks}


SECTIONS = {
    "time": time_section,
    "memory": memory_section,
    "trajectory": trajectory_section,
    "profile": profile_section,
    "tape": tape_section,
    "predict": predict_section,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--larq", default=sys.executable, help="a Python that has larq, larq_zoo and TensorFlow")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7, help="blocks of steps")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the steps of a block")
    parser.add_argument("--steps", type=int, default=20, help="of the trajectory")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest relative difference of a loss")
    parser.add_argument("--out", type=Path, default=Path("out/training.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options.worker)
        return 0
    pythons = {"larq": options.larq, "bnnlayers": sys.executable}
    results = {
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
        "isa": os.environ.get("BNNLAYERS_ISA", "best"),
        "networks": {},
    }
    for network in options.networks:
        title, _, _, batch, *_ = NETWORKS[network]
        print(f"{title}, batch {batch}\n  {'':<28}{'threads':>8}{'larq':>12}{'here':>12}{'ratio':>9}", flush=True)
        rows = results["networks"][title] = []
        for section in options.sections:
            rows += SECTIONS[section](pythons, network, options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1))
    print(f"wrote {options.out}")
    return 0 if all(row.get("equal", True) for rows in results["networks"].values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
