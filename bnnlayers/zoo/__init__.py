"""The architectures of larq_zoo, with its published weights.

>>> model = lq.zoo.sota.QuickNet()
>>> lq.zoo.decode_predictions(model.predict(lq.zoo.preprocess_input(image)[None]))

`literature` holds what papers describe and `sota` larq's own; every architecture is here too.
"""

from . import literature, sota
from .imagenet import decode_predictions, preprocess_input
from .literature import *  # noqa: F403
from .sota import *  # noqa: F403

__all__ = ["decode_predictions", "literature", "preprocess_input", "sota", *literature.__all__, *sota.__all__]
