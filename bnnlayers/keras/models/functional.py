"""Models: a graph of layers, or a class with its own `call`."""

from __future__ import annotations

import inspect
import itertools
import json
import operator
import os
from collections import defaultdict

import numpy as np

from ...tape import Tensor
from .. import backend
from ..base_layer import InputSpec, Layer, as_shapes, context, default_config, unique
from ..layers import InputLayer, deserialize, known_classes, serialize
from ..structure import (
    TensorShape,
    flatten,
    is_nested,
    map_shapes,
    map_structure,
    pack_as,
)
from ..symbolic import KerasTensor, is_symbolic
from .training import Trainer

_CONSTANT = "_CONSTANT_VALUE"


class Graph:
    """The calls of layers that lead from some symbolic tensors to others.

    Parameters
    ----------
    inputs, outputs : KerasTensor or nested structure
    added : sequence of KerasTensor
        Computed with the outputs, for what their layers do beside: losses and metrics.

    Attributes
    ----------
    nodes : list of Node
        In an order in which they can run.
    layers : list of Layer
        By decreasing distance from the outputs, then in order of first visit, as in Keras: files
        hold weights in this order.

    Raises
    ------
    ValueError
        If an output does not depend on the inputs alone, or two layers share a name.
    """

    def __init__(self, inputs, outputs, added=()):
        self.nested_inputs, self.nested_outputs, self.added = inputs, outputs, list(added)
        self.inputs, self.outputs = flatten(inputs), flatten(outputs)
        self._check_tensors()
        visited, first_visit = self._visit()
        depths, layer_depths = {}, {}
        for node in reversed(visited):
            depth = max(depths.setdefault(node, 0), layer_depths.get(node.layer, 0))
            layer_depths[node.layer] = depths[node] = depth
            for parent in node.parent_nodes:
                depths[parent] = max(depth + 1, depths.get(parent, 0))
        for tensor in self.inputs:
            layer = tensor._keras_history.layer
            if layer not in layer_depths:
                layer_depths[layer] = 0
                first_visit[layer] = -1
                depths[tensor.node] = 0
        self.nodes = sorted(depths, key=lambda n: -depths[n])
        self.layers = sorted(layer_depths, key=lambda x: (-layer_depths[x], first_visit[x]))
        if added:
            # They come last: the weights keep the order that they have without.
            self.layers = unique(Graph(inputs, outputs).layers, self.layers)
        self._check_connected()
        self._check_names()
        self._plan()

    def _check_tensors(self):
        for what, tensors in (("Input", self.inputs), ("Output", self.outputs)):
            for tensor in tensors:
                if not isinstance(tensor, KerasTensor) or not hasattr(tensor, "_keras_history"):
                    raise ValueError(
                        f"{what} tensors of a functional Model must be the output of a Keras "
                        f"`Layer` (thus holding past layer metadata). Found: {tensor!r}"
                    )
        if len({id(t) for t in self.inputs}) != len(self.inputs):
            raise ValueError(
                "The list of inputs passed to the model contains the same input multiple times. "
                f"All inputs should only appear once. Received inputs={self.inputs}"
            )

    def _visit(self):
        """Nodes, children after their parents, and the order in which layers were met."""
        stop = {id(t) for t in self.inputs}
        visited, first_visit, done, active = [], {}, set(), set()
        for output in (*self.outputs, *self.added):
            stack = [(output.node, None)]
            while stack:
                node, pending = stack.pop()
                if pending is None:
                    if node in done:
                        continue
                    if node in active:
                        raise ValueError(f"Tensor from layer '{node.layer.name}' is part of a cycle.")
                    first_visit.setdefault(node.layer, len(first_visit))
                    active.add(node)
                    leaves = all(id(t) in stop for t in node.flat_outputs)
                    pending = iter(() if leaves else node.keras_inputs)
                parent = next(pending, None)
                if parent is None:
                    active.discard(node)
                    done.add(node)
                    visited.append(node)
                else:
                    stack.append((node, pending))
                    stack.append((parent.node, None))
        return visited, first_visit

    def _check_connected(self):
        known = {id(t) for t in self.inputs}
        for node in self.nodes:
            if all(id(t) in known for t in node.flat_outputs):
                continue
            missing = [t for t in node.keras_inputs if id(t) not in known]
            if missing or node.is_input:
                raise ValueError(
                    f"Graph disconnected: cannot obtain value for tensor "
                    f'{(missing or node.flat_outputs)[0]!r} at layer "{node.layer.name}".'
                )
            known.update(id(t) for t in node.flat_outputs)

    def _check_names(self):
        names = [layer.name for layer in self.layers]
        for name in names:
            if names.count(name) != 1:
                raise ValueError(
                    f'The name "{name}" is used {names.count(name)} times in the model. All layer '
                    "names should be unique."
                )

    def _plan(self):
        """Number the tensors, and find out after which step each is needed no more."""
        slots = {id(t): i for i, t in enumerate(self.inputs)}
        numbers = itertools.count(len(slots))
        steps = []
        for node in self.nodes:
            if all(id(t) in slots for t in node.flat_outputs):
                continue
            read = [slots[id(t)] for t in node.keras_inputs]
            written = [slots.setdefault(id(t), next(numbers)) for t in node.flat_outputs]
            plain = len(node.args) == 1 and not node.kwargs and not is_nested(node.args[0])
            steps.append([node, plain, read, written, []])
        self._let_wait(steps, slots)
        keep = {slots[id(t)] for t in self.outputs}
        for step in reversed(steps):
            step[4] = [slot for slot in {*step[2], *step[3]} if slot not in keep]
            keep.update(step[4])
        self._results = [slots[id(t)] for t in self.outputs]
        self._steps, self._size = steps, next(numbers)

    def _let_wait(self, steps, slots):
        """Let the calls wait whose output can be computed by the layers that read it, and tell them how many read."""
        readers = defaultdict(list)
        for node, _, read, _, _ in steps:
            for slot in read:
                readers[slot].append(node.layer)
        for output in self.outputs:
            readers[slots[id(output)]].append(None)
        for step in steps:
            known = readers[step[3][0]]
            waits = None not in known and all(r._dtype == "float32" for r in known)
            step.append({"later": len(known)} if waits and step[0].layer._can_wait(known) else {})

    def run(self, inputs, call):
        """Values of the outputs.

        Parameters
        ----------
        inputs : list
            One value per input.
        call : callable
            ``call(layer, *args, **kwargs)`` computes a node.
        """
        values = [None] * self._size
        values[: len(inputs)] = inputs
        for node, plain, read, written, free, later in self._steps:
            if plain:
                result = call(node.layer, values[read[0]], **later)
            else:
                supply = iter(read)
                args, kwargs = map_structure(
                    lambda t, supply=supply: values[next(supply)] if isinstance(t, KerasTensor) else t,
                    (node.args, node.kwargs),
                )
                result = call(node.layer, *args, **kwargs, **later)
            if len(written) == 1 and (type(result) is Tensor or not is_nested(result)):
                values[written[0]] = result
            else:
                for slot, value in zip(written, flatten(result), strict=True):
                    values[slot] = value
            result = None
            for slot in free:
                values[slot] = None
        return [values[slot] for slot in self._results]


def _infer(layer, inputs, *args, **kwargs):
    return layer._infer_outputs(inputs, args, kwargs)


def _is_functional(args, kwargs):
    return len(args) >= 2 or (len(args) == 1 and "outputs" in kwargs) or {"inputs", "outputs"} <= set(kwargs)


class Model(Trainer, Layer):
    """Layers that are trained together.

    Either a graph, ``Model(inputs, outputs)`` with symbolic tensors, or a subclass that creates its
    layers in ``__init__`` and computes in ``call(inputs, training=None)``.

    Parameters
    ----------
    inputs, outputs : KerasTensor or nested structure, optional
    name : str, optional
    trainable : bool
    """

    _graph = None

    def __new__(cls, *args, **kwargs):
        if cls is Model and _is_functional(args, kwargs):
            cls = Functional
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args, **kwargs):
        functional = _is_functional(args, kwargs)
        if functional:
            inputs = args[0] if args else kwargs.pop("inputs")
            outputs = args[1] if len(args) > 1 else kwargs.pop("outputs")
            kwargs.setdefault("autocast", False)
            for name, value in zip(("name", "trainable"), args[2:], strict=False):
                kwargs[name] = value
        elif args:
            raise TypeError(
                f"{type(self).__name__}: expected `inputs` and `outputs`, or only keywords. Received: {args}"
            )
        graph = Graph(inputs, outputs) if functional else None
        name = kwargs.pop("name", None)
        if name is None:
            kind = "model" if type(self) is Functional else type(self).__name__
            name = backend.unique_object_name(_snake(kind), zero_based=True)
        super().__init__(name=name, **kwargs)
        self._init_training()
        if graph is not None:
            self._set_graph(graph)

    def _set_graph(self, graph):
        self.__dict__["_graph"] = graph
        self._structure_changed()
        nested = graph.nested_inputs
        names = sorted(nested) if isinstance(nested, dict) else [t._keras_history.layer.name for t in graph.inputs]
        specs = [
            InputSpec(shape=(None, *t.shape[1:]), allow_last_axis_squeeze=True, name=name)
            for t, name in zip(graph.inputs, names, strict=True)
        ]
        self.__dict__["_input_spec"] = specs
        self.built = True

    def build(self, input_shape):
        """Create the weights by running the model on zeros of a shape, unless it runs anyway."""
        self.__dict__["_build_input_shape"] = as_shapes(input_shape)
        self.built = True
        if self._graph is None and context.call is None:
            try:
                inputs = map_shapes(lambda s: KerasTensor(s, self._dtype), as_shapes(input_shape))
                # Keras names the variables that `build` makes without the model's own name.
                with context.symbolic(""):
                    self._run_on_zeros(0, inputs, (), {})
            except BaseException:
                self.built = False
                raise

    def call(self, inputs, training=None, mask=None):
        if self._graph is None:
            raise NotImplementedError(f"{type(self).__name__}: a subclass of `Model` must implement `call`.")
        return self._run_graph(inputs)

    def _run_graph(self, inputs):
        graph = self._graph
        if isinstance(inputs, dict):
            inputs = [inputs[spec.name] for spec in self._input_spec]
        inputs = [_conform(x, t) for x, t in zip(flatten(inputs), graph.inputs, strict=True)]
        outputs = graph.run(inputs, operator.call)
        return outputs[0] if graph.nested_outputs is graph.outputs[0] else pack_as(graph.nested_outputs, outputs)

    def _infer_by_running(self, inputs, args=(), kwargs=None):
        graph = self._graph
        if graph is None or not self._call_is_graph():
            return super()._infer_by_running(inputs, args, kwargs)
        if isinstance(inputs, dict):
            inputs = [inputs[spec.name] for spec in self._input_spec]
        pairs = zip(flatten(inputs), graph.inputs, strict=True)
        outputs = graph.run([KerasTensor(x.shape, t.dtype) for x, t in pairs], _infer)
        fresh = [KerasTensor(t.shape, t.dtype, self._name) for t in outputs]
        return pack_as(graph.nested_outputs, fresh)

    def _call_is_graph(self):
        return type(self).call is Model.call

    def add_loss(self, losses, **kwargs):
        """Add to the training loss a tensor of this call, a function of no argument, or a symbolic tensor of the graph.

        A symbolic tensor must depend on the inputs of the model.
        """
        symbolic = [loss for loss in flatten(losses) if isinstance(loss, KerasTensor)]
        if self._graph is None or not symbolic:
            super().add_loss(losses, **kwargs)
            return
        super().add_loss([loss for loss in flatten(losses) if not isinstance(loss, KerasTensor)], **kwargs)
        self._add([AddLoss()(loss) for loss in symbolic])

    def add_metric(self, value, name=None, **kwargs):
        """Record the mean of a tensor, perhaps a symbolic one of the graph, under `name`."""
        if self._graph is None or not isinstance(value, KerasTensor):
            super().add_metric(value, name, **kwargs)
        elif not isinstance(name, str):
            raise TypeError(f"add_metric: `name` must be a string. Received: {name!r}")
        else:
            self._add([AddMetric(name)(value)])

    def _add(self, tensors):
        graph = self._graph
        self._set_graph(Graph(graph.nested_inputs, graph.nested_outputs, [*graph.added, *tensors]))

    # What it consists of

    def _find_children(self):
        if self._graph is None:
            return super()._find_children()
        found, fixed = super()._find_children()
        return unique(self._graph.layers, found), fixed

    @property
    def layers(self):
        """The layers directly in the model."""
        return list(self._children())

    def get_layer(self, name=None, index=None):
        """A layer by its name or by its index in `layers`.

        Raises
        ------
        ValueError
            If there is none, or not exactly one of the two is given.
        """
        if (name is None) == (index is None):
            raise ValueError(
                f"Provide either a layer name or layer index at `get_layer`. Received: name={name}, index={index}"
            )
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(
                    f"Was asked to retrieve layer at index {index} but model only has {len(layers)} layers."
                )
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(f"No such layer: {name}. Existing layers are: {[layer.name for layer in layers]}.")

    def _own_weights_exist(self):
        if not self.built and type(self).build is not Model.build:
            raise ValueError(
                f"Weights for model '{self._name}' have not yet been created. Weights are created "
                "when the model is first called on inputs or `build()` is called with an "
                "`input_shape`."
            )

    @property
    def weights(self):
        """All variables, layer by layer."""
        self._own_weights_exist()
        return unique(
            *[layer.weights for layer in self._children()],
            self._trainable_weights,
            self._non_trainable_weights,
        )

    @property
    def trainable_weights(self):
        self._own_weights_exist()
        if not self._trainable:
            return []
        return unique(*[layer.trainable_weights for layer in self._children()], self._trainable_weights)

    @property
    def non_trainable_weights(self):
        self._own_weights_exist()
        children = self._children()
        return unique(
            *([] if self._trainable else [layer.trainable_weights for layer in children]),
            [] if self._trainable else self._trainable_weights,
            *[layer.non_trainable_weights for layer in children],
            self._non_trainable_weights,
        )

    @property
    def inputs(self):
        """Symbolic inputs as a list; None for a model that is not a graph."""
        return None if self._graph is None else self._graph.inputs

    @property
    def outputs(self):
        return None if self._graph is None else self._graph.outputs

    @property
    def input(self):
        return super().input if self._graph is None else self._graph.nested_inputs

    @property
    def output(self):
        return super().output if self._graph is None else self._graph.nested_outputs

    @property
    def input_shape(self):
        if self._graph is None:
            return super().input_shape
        return map_structure(lambda t: tuple(t.shape), self.input)

    @property
    def output_shape(self):
        if self._graph is None:
            return super().output_shape
        return map_structure(lambda t: tuple(t.shape), self.output)

    @property
    def input_names(self):
        return [t._keras_history.layer.name for t in self.inputs or ()]

    @property
    def output_names(self):
        """Names of the layers that give the outputs, made unique; None if not known yet."""
        if self._graph is None:
            return self.__dict__.get("_output_names")
        names, counts = [], defaultdict(int)
        for tensor in self.outputs:
            name = base = tensor._keras_history.layer.name
            while name in names:
                counts[base] += 1
                name = f"{base}_{counts[base]}"
            names.append(name)
        return names

    def summary(
        self,
        line_length=None,
        positions=None,
        print_fn=None,
        expand_nested=False,
        show_trainable=False,
        layer_range=None,
    ):
        """Print a table of the layers, their output shapes and numbers of weights.

        Parameters
        ----------
        line_length : int, optional
        positions : list of float, optional
            Where each column ends, as a share of the line.
        print_fn : callable, optional
            Receives each line instead of `print`.
        expand_nested : bool
            Whether the layers of nested models are shown.
        show_trainable : bool
            Whether there is a column that says if a layer is trained.
        layer_range : (str, str), optional
            Names of the first and last layer to show.
        """
        from .summary import print_summary

        if not self.built:
            raise ValueError(
                "This model has not yet been built. Build the model first by calling `build()` or "
                "by calling the model on a batch of data."
            )
        print_summary(self, line_length, positions, print_fn, expand_nested, show_trainable, layer_range)

    def _repr_html_(self):
        from .summary import html_summary

        return html_summary(self)

    # Files

    def save_weights(self, filepath, overwrite=True, save_format=None, options=None):
        """Write the weights to a file.

        Parameters
        ----------
        filepath : str or path
            A name that ends in ``.safetensors`` gives that format (the package `safetensors` must be
            installed); any other the HDF5 layout of Keras 2.
        overwrite : bool
            Whether an existing file may be replaced.
        save_format : {"h5", "safetensors"}, optional
            Instead of the ending of the name.

        Raises
        ------
        FileExistsError
            If the file exists and `overwrite` is False.
        """
        from .. import saving

        self._assert_has_weights("save")
        if not overwrite and os.path.exists(filepath):
            raise FileExistsError(f"save_weights: {os.fspath(filepath)} exists already.")
        if _file_format(filepath, save_format) == "safetensors":
            saving.save_weights_safetensors(filepath, self.weights)
        else:
            saving.save_weights_h5(filepath, self.layers, self._top_level_weights())

    def load_weights(self, filepath, skip_mismatch=False, by_name=False, options=None):
        """Read weights that `save_weights` or tf_keras wrote.

        Parameters
        ----------
        filepath : str or path
        skip_mismatch : bool
            With `by_name`, whether layers that do not fit are left as they are.
        by_name : bool
            Whether layers are matched by name instead of by their order.

        Raises
        ------
        ValueError
            If the file does not fit the model. Nothing has changed then.
        """
        from .. import saving

        self._assert_has_weights("load")
        if _file_format(filepath, None) == "safetensors":
            saving.load_weights_safetensors(filepath, self.weights)
        else:
            saving.load_weights_h5(filepath, self.layers, by_name, skip_mismatch, self._top_level_weights())

    def save(self, filepath, overwrite=True, include_optimizer=True, save_format=None):
        """Write architecture, weights and optimizer to an HDF5 file; see `models.save_model`."""
        from .saving import save_model

        save_model(self, filepath, overwrite, include_optimizer, save_format)

    def _top_level_weights(self):
        return [*self._trainable_weights, *self._non_trainable_weights]

    def _assert_has_weights(self, verb):
        if not self.built:
            raise ValueError(
                f"Unable to {verb} weights of model '{self._name}', which has not created its "
                "variables yet. Call the model first, or `build()` it."
            )

    # Configuration

    @default_config
    def get_config(self):
        if self._graph is None or type(self).__init__ not in (Model.__init__, Functional.__init__):
            return Layer.get_config(self)
        return _graph_config(self)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""
        from ..utils import CustomObjectScope

        if not {"layers", "input_layers", "output_layers"} <= set(config):
            return cls(**config)
        layers: dict = {}
        with CustomObjectScope(custom_objects or {}):
            inputs, outputs = _rebuild(config, layers)
        model = cls(inputs, outputs, name=config.get("name"), trainable=config.get("trainable", True))
        return _with_added(model, layers)

    def to_json(self, **kwargs):
        """The architecture as JSON; keywords go to `json.dumps`."""
        from ... import __version__

        described = {
            "class_name": type(self).__name__,
            "config": self.get_config(),
            "keras_version": f"bnnlayers {__version__}",
            "backend": "bnnlayers",
        }
        return json.dumps(described, default=jsonable, **kwargs)


class AddLoss(Layer):
    """Adds what it is given to the losses; what `Model.add_loss` makes of a symbolic tensor."""

    def __init__(self, unconditional=False, **kwargs):
        super().__init__(**kwargs)
        self.unconditional = unconditional

    def call(self, inputs):
        self.add_loss(inputs)
        return inputs

    def get_config(self):
        return {**super().get_config(), "unconditional": self.unconditional}


class AddMetric(Layer):
    """Records the mean of what it is given; what `Model.add_metric` makes of a symbolic tensor."""

    def __init__(self, metric_name, aggregation="mean", **kwargs):
        super().__init__(**kwargs)
        self.metric_name = metric_name

    def call(self, inputs):
        self.add_metric(inputs, name=self.metric_name)
        return inputs

    def get_config(self):
        return {**super().get_config(), "aggregation": "mean", "metric_name": self.metric_name}


class Functional(Model):
    """A graph of layers; what ``Model(inputs, outputs)`` makes."""


known_classes.update(AddLoss=AddLoss, AddMetric=AddMetric, Functional=Functional, Model=Functional)


def _file_format(filepath, given):
    suffix = os.path.splitext(os.fspath(filepath))[1].removeprefix(".")
    chosen = given or ("safetensors" if suffix == "safetensors" else "h5")
    if chosen not in ("h5", "hdf5", "keras", "safetensors"):
        raise ValueError(f"Weights can be saved as 'h5' or 'safetensors'. Received: {chosen!r}")
    return chosen


def _snake(name):
    from ..utils import to_snake_case

    return to_snake_case(name)


def _conform(x, reference):
    """An input in the dtype of its symbolic tensor, with or without a last axis of size one."""
    rank = len(reference.shape)
    if len(x.shape) == rank + 1 and x.shape[-1] == 1:
        x = x[..., 0]
    elif len(x.shape) == rank - 1 and reference.shape[-1] == 1:
        x = x[..., np.newaxis]
    if isinstance(x, np.ndarray) and x.dtype != reference.dtype:
        x = x.astype(reference.dtype)
    return x


def jsonable(value):
    """For `json.dumps`: what a configuration may hold beside JSON's own types."""
    if isinstance(value, (np.ndarray, Tensor)):
        return np.asarray(value).tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, TensorShape):
        return list(value)
    raise TypeError(f"to_json: {value!r} (of type {type(value).__name__}) cannot be written as JSON.")


def _first_node(layer):
    """The index Keras gives the first call of a layer: a nested graph counts its own making."""
    return int(isinstance(layer, Model) and layer._graph is not None)


def _graph_config(model):
    graph = model._graph
    in_graph = set(graph.nodes)
    index = {}
    for layer in graph.layers:
        kept = [node for node in layer._inbound_nodes if node in in_graph]
        index.update({node: i for i, node in enumerate(kept, _first_node(layer))})

    def reference(tensor):
        layer, _, tensor_index = tensor._keras_history
        return [layer.name, index[tensor.node], tensor_index]

    def written(value):
        if isinstance(value, KerasTensor):
            return reference(value)
        return np.asarray(value).tolist() if isinstance(value, (np.ndarray, np.generic)) else value

    def call_of(node):
        first, *others = node.args
        names = list(inspect.signature(node.layer.call).parameters)
        extra = {**dict(zip(names[1:], others, strict=False)), **node.kwargs}
        extra = map_structure(written, extra)

        def leaf(value):
            if isinstance(value, KerasTensor):
                return [*reference(value), extra]
            return [_CONSTANT, -1, written(value), extra]

        data = map_structure(leaf, first)
        return data if is_nested(first) or node.layer._keeps_structure else [data]

    layers = []
    for layer in graph.layers:
        calls = [call_of(node) for node in layer._inbound_nodes if node in in_graph and not node.is_input]
        if isinstance(layer, InputLayer) or not calls:
            calls = []
        layers.append({**serialize(layer), "name": layer.name, "inbound_nodes": calls})

    def ends(nested):
        data = map_structure(reference, nested)
        return data if is_nested(nested) else [data]

    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": layers,
        "input_layers": ends(graph.nested_inputs),
        "output_layers": ends(graph.nested_outputs),
    }


def _is_reference(data):
    """Whether a list is ``[layer, node, tensor]`` or that with keywords: the leaf of a call."""
    return (
        isinstance(data, (list, tuple))
        and len(data) in (3, 4)
        and isinstance(data[0], str)
        and isinstance(data[1], int)
    )


def _map_references(function, data):
    if _is_reference(data):
        return function(data)
    if isinstance(data, dict):
        return {k: _map_references(function, v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_map_references(function, v) for v in data]
    return data


def _rebuild(config, layers):
    """Call the layers of a configuration as it says.

    Parameters
    ----------
    config : dict
    layers : dict of str to Layer
        Taken instead of new ones; extended by the layers that are made.

    Returns
    -------
    inputs, outputs
    """
    outputs_of, waiting = {}, []
    for data in config["layers"]:
        name = data["name"]
        if name not in layers:
            layers[name] = deserialize({k: v for k, v in data.items() if k not in ("name", "inbound_nodes")})
        layer = layers[name]
        if isinstance(layer, InputLayer):
            outputs_of[name, 0] = [layer._inbound_nodes[0].outputs]
        for i, call in enumerate(data["inbound_nodes"], _first_node(layer)):
            waiting.append((name, i, call))

    def tensor(reference):
        if reference[0] == _CONSTANT:
            return reference[2]
        return outputs_of[reference[0], reference[1]][reference[2]]

    while waiting:
        later = []
        for name, i, call in waiting:
            keywords = {}

            def leaf(reference, keywords=keywords):
                if len(reference) == 4:
                    keywords.update(reference[3])
                return tensor(reference)

            try:
                inputs = _map_references(leaf, call)
                keywords = {k: _map_references(tensor, v) if _refers(v, layers) else v for k, v in keywords.items()}
            except KeyError:
                later.append((name, i, call))
                continue
            single = isinstance(inputs, list) and len(inputs) == 1
            if single and not layers[name]._keeps_structure:
                inputs = inputs[0]
            outputs_of[name, i] = flatten(layers[name](inputs, **keywords))
        if len(later) == len(waiting):
            raise ValueError(
                f"Improperly formatted model config: the inputs of layer '{later[0][0]}' are never computed."
            )
        waiting = later

    def ends(data):
        if _is_reference(data):
            return tensor(data)
        found = _map_references(tensor, data)
        return found[0] if isinstance(found, list) and len(found) == 1 else found

    return ends(config["input_layers"]), ends(config["output_layers"])


def _with_added(model, layers):
    added = [layer.output for layer in layers.values() if isinstance(layer, (AddLoss, AddMetric))]
    if added:
        model._add(added)
    return model


def _refers(value, layers):
    return is_nested(value) and (
        (_is_reference(value) and value[0] in layers)
        or any(_refers(v, layers) for v in (value.values() if isinstance(value, dict) else value))
    )


def clone_model(model, input_tensors=None, clone_function=None):
    """A model of the same architecture with newly initialized weights.

    Parameters
    ----------
    model : Model
        Functional or `Sequential`.
    input_tensors : KerasTensor or list, optional
        To build the clone upon.
    clone_function : callable, optional
        Makes the clone of each layer; by default from its configuration.

    Raises
    ------
    ValueError
        For a subclassed model, whose architecture is code.
    """
    from .sequential import Sequential

    if model._graph is None and not isinstance(model, Sequential):
        raise ValueError(
            "Expected `model` argument to be a functional `Model` instance or a `Sequential` "
            f"model, but got a subclassed model instead: {model}"
        )

    def copy(layer):
        if isinstance(layer, InputLayer) or clone_function is None:
            return type(layer).from_config(layer.get_config())
        return clone_function(layer)

    if isinstance(model, Sequential):
        layers = [copy(layer) for layer in model._chain if not isinstance(layer, InputLayer)]
        if input_tensors is not None:
            layers.insert(0, flatten(input_tensors)[0]._keras_history.layer)
        elif model._chain and isinstance(model._chain[0], InputLayer):
            layers.insert(0, copy(model._chain[0]))
        return Sequential(layers, name=model.name)

    layers = {}
    given = flatten(input_tensors) if input_tensors is not None else []
    for old, new in zip(model.inputs, given, strict=False):
        if not is_symbolic(new):
            raise ValueError(f"clone_model: `input_tensors` must be symbolic. Received: {new!r}")
        layers[old._keras_history.layer.name] = new._keras_history.layer
    for layer in model._graph.layers:
        layers.setdefault(layer.name, copy(layer))
    inputs, outputs = _rebuild(_graph_config(model), layers)
    return _with_added(Functional(inputs, outputs, name=model.name), layers)


def model_from_config(config, custom_objects=None):
    """The model that a dictionary with ``class_name`` and ``config`` describes."""
    return deserialize(config, custom_objects)


def model_from_json(json_string, custom_objects=None):
    """The model that `Model.to_json` wrote, with newly initialized weights."""
    return model_from_config(json.loads(json_string), custom_objects)
