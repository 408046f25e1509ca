"""`Sequential`: a chain of layers with one input and one output."""

from __future__ import annotations

from ..base_layer import Layer, default_config
from ..layers import Input, InputLayer, deserialize, known_classes, serialize
from ..structure import TensorShape, is_nested
from ..symbolic import KerasTensor
from .functional import Graph, Model


class Sequential(Model):
    """A chain of layers.

    Parameters
    ----------
    layers : list of Layer, optional
    name : str, optional

    Notes
    -----
    If the first layer knows its `input_shape` (or is an `InputLayer`), weights exist at once; else
    they are created when the model first sees data or `build` is called.
    """

    def __init__(self, layers=None, name=None):
        super().__init__(name=name, autocast=False)
        self.__dict__["_chain"] = []
        self.__dict__["_output"] = None
        # Whether the input shape came from data: such a chain adapts when other data comes.
        self.__dict__["_inferred"] = False
        if layers is not None:
            for layer in layers if isinstance(layers, (list, tuple)) else [layers]:
                self.add(layer)

    def _find_children(self):
        return [layer for layer in self._chain if not isinstance(layer, InputLayer)], True

    def add(self, layer):
        """Append a layer.

        Raises
        ------
        TypeError
            If it is not a layer.
        ValueError
            If its name is taken, or it has several inputs or outputs.
        """
        if isinstance(layer, KerasTensor) and isinstance(getattr(layer, "_keras_history", (None,))[0], InputLayer):
            layer = layer._keras_history.layer
        if not isinstance(layer, Layer):
            raise TypeError(
                f"The added layer must be an instance of class Layer. Received: layer={layer} of type {type(layer)}."
            )
        if any(layer.name == other.name for other in self._chain):
            raise ValueError(
                "All layers added to a Sequential model should have unique names. Name "
                f'"{layer.name}" is already the name of a layer in this model. Update the `name` '
                "argument to pass a unique name."
            )
        if self._inferred:
            self._disconnect()
        chain = [*self._chain, layer]
        output = self._output
        if output is None and not self._chain:
            if isinstance(layer, InputLayer):
                output = layer.output
            elif (shape := _input_shape(layer)) is not None:
                output = Input(batch_shape=shape, dtype=layer.dtype, name=f"{layer.name}_input")
                chain.insert(0, output._keras_history.layer)
                output = layer(output)
        elif output is not None:
            output = layer(output)
        self._connect(chain, output)

    def pop(self):
        """Remove the last layer.

        Raises
        ------
        TypeError
            If there is none.
        """
        if not self._children():
            raise TypeError("There are no layers in the model.")
        if self._inferred:
            self._disconnect()
        removed = self._chain[-1]
        output = None
        if self._output is not None:
            output = self._output.node.args[0]
            removed._inbound_nodes.clear()
            output._keras_history.layer._outbound_nodes.clear()
        self._connect(self._chain[:-1], output)

    def _connect(self, chain, output):
        if is_nested(output):
            raise ValueError(
                "All layers in a Sequential model should have a single output tensor. For "
                "multi-output layers, use the functional API."
            )
        self.__dict__["_chain"] = chain
        self.__dict__["_output"] = output
        self.__dict__["_graph"] = None
        self._structure_changed()
        self.built = False
        if output is not None and self._children():
            self._set_graph(Graph(chain[0].output, output))

    def _disconnect(self):
        """Forget what was inferred from data."""
        for layer in self._chain:
            layer._inbound_nodes.clear()
            layer._outbound_nodes.clear()
        self.__dict__["_inferred"] = False
        self._connect(self._children(), None)

    def build(self, input_shape=None):
        """Create the weights for an input shape, batch axis included."""
        if self._graph is not None and not self._inferred:
            return
        if input_shape is None:
            raise ValueError("You must provide an `input_shape` argument.")
        if not self._children():
            raise ValueError(f"Sequential model '{self._name}' cannot be built: it has no layers.")
        layers = self._children()
        if self._inferred:
            self._disconnect()
        shape = TensorShape((None, *input_shape[1:]))
        output = Input(batch_shape=shape, dtype=self._dtype, name=f"{layers[0].name}_input")
        chain = [output._keras_history.layer, *layers]
        try:
            for layer in layers:
                output = layer(output)
            self._connect(chain, output)
        except BaseException:
            self._disconnect()
            raise
        self.__dict__["_inferred"] = True
        self.__dict__["_build_input_shape"] = TensorShape(input_shape)

    def __call__(self, inputs, *args, **kwargs):
        if self._inferred and hasattr(inputs, "shape"):
            known = self._chain[0].output.shape
            if len(known) == len(inputs.shape) and any(
                a is not None and a != b for a, b in zip(known[1:], inputs.shape[1:], strict=True)
            ):
                relaxed = (a if a == b else None for a, b in zip(known, inputs.shape, strict=True))
                self.build(TensorShape(relaxed))
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if self._graph is None:
            raise ValueError(f"Sequential model '{self._name}' has no layers to call.")
        return self._run_graph(inputs)

    def _call_is_graph(self):
        return type(self).call is Sequential.call

    @default_config
    def get_config(self):
        if type(self).__init__ is not Sequential.__init__:
            return Layer.get_config(self)
        config = {"name": self._name, "layers": [serialize(layer) for layer in self._chain]}
        if self._inferred:
            config["layers"] = [serialize(layer) for layer in self._children()]
            config["build_input_shape"] = list(self._build_input_shape)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""
        from ..utils import CustomObjectScope

        if isinstance(config, list):
            config = {"layers": config}
        with CustomObjectScope(custom_objects or {}):
            layers = [deserialize(layer) for layer in config["layers"]]
        model = cls(layers, name=config.get("name"))
        shape = config.get("build_input_shape")
        if model._graph is None and shape:
            model.build(shape)
        return model


known_classes.update(Sequential=Sequential)


def _input_shape(layer):
    """The batch input shape that the first layer of a chain was given, or None."""
    while isinstance(layer, Model):
        if layer._graph is not None:
            return tuple(layer.inputs[0].shape)
        if not layer.layers:
            return None
        layer = layer.layers[0]
    return layer.__dict__.get("_batch_input_shape")


__all__ = ["Sequential"]
