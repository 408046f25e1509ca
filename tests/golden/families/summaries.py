"""The tables that larq prints of the networks in `networks.py`."""

import larq as lq
import tensorflow as tf
from larq.models import LayersTable, ModelProfile
from networks import NETWORKS

from .registry import family


@family
def summaries():
    for network in NETWORKS:
        tf.keras.backend.clear_session()
        model = network(lq, tf.keras)
        printed = []
        lq.models.summary(model, print_fn=printed.append)
        without = []
        lq.models.summary(model, print_fn=without.append, include_macs=False)
        # larq leaves the multiply-adds out of the totals alone, not of the table of layers.
        table = ModelProfile(model).generate_table(include_macs=False)
        without[0] = LayersTable(table, title=f"{model.name} stats").table
        yield {"id": network.__name__, "printed": printed, "without_macs": without}, {}
