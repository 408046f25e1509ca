"""Optimizers of networks in which some weights are binary and others are not.

`Bop` flips binary weights without latent ones behind them. `CaseOptimizer` gives each variable to one of several
optimizers:

>>> optimizer = lq.optimizers.CaseOptimizer(
...     (lq.optimizers.Bop.is_binary_variable, lq.optimizers.Bop(threshold=1e-6, gamma=1e-3)),
...     default_optimizer=keras.optimizers.Adam(0.01),
... )
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import utils
from .keras import optimizers
from .keras.optimizers import Optimizer
from .ops import update
from .tape import Variable

__all__ = ["Bop", "CaseOptimizer"]


class _Optimizer(Optimizer):
    def get_config(self) -> dict[str, Any]:
        # There is one class of each here, so a configuration need not say which; larq's does not.
        return {name: value for name, value in super().get_config().items() if name != "is_legacy_optimizer"}


@utils.register_keras_custom_object
class CaseOptimizer(_Optimizer):
    """Gives each variable to the optimizer whose predicate claims it.

    Parameters
    ----------
    *predicate_optimizer_pairs : tuple of (callable, Optimizer)
        A predicate takes a variable and returns whether its optimizer trains it.
    default_optimizer : Optimizer, optional
        Trains what no predicate claims. Without it such variables are not trained, and a warning says so.
    name : str

    Attributes
    ----------
    optimizers : list of Optimizer
        Those of the pairs, and the default one last.
    var_opt_mapping : dict of str to int, or None
        From a variable to the place of its optimizer in `optimizers`; None before the first update, which asks the
        predicates. `get_config` writes it instead of the predicates.

    Raises
    ------
    TypeError
        If a predicate is not callable, or an optimizer is none.
    ValueError
        At the first update, if two predicates claim a variable, or one claims none.
    """

    def __init__(
        self,
        *predicate_optimizer_pairs: tuple[Callable[[Any], bool], Optimizer],
        default_optimizer: Optimizer | None = None,
        name: str = "optimizer_case",
    ) -> None:
        for i, pair in enumerate(predicate_optimizer_pairs):
            if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
                raise TypeError(f"CaseOptimizer: expected pairs of predicate and optimizer, received {pair!r} at {i}")
            predicate, optimizer = pair
            if not callable(predicate):
                raise TypeError(f"CaseOptimizer: predicate {i}: expected a callable, received {type(predicate)}")
            if not isinstance(optimizer, Optimizer):
                raise TypeError(f"CaseOptimizer: optimizer {i}: expected an Optimizer, received {type(optimizer)}")
        if not (default_optimizer is None or isinstance(default_optimizer, Optimizer)):
            raise TypeError(
                f"CaseOptimizer: default_optimizer: expected an Optimizer or None, received {type(default_optimizer)}"
            )
        super().__init__(name)
        self.pred_opt_pairs = predicate_optimizer_pairs
        self.default = default_optimizer
        self.optimizers = [optimizer for _, optimizer in predicate_optimizer_pairs]
        if default_optimizer is not None:
            self.optimizers.append(default_optimizer)
        # A file holds the state of all of them, by name.
        for i, optimizer in enumerate(self.optimizers):
            optimizer.iterations.name = f"{name}/{optimizer.name}_{i}/iteration:0"
        self.var_opt_mapping: dict[str, int] | None = None
        self._known: dict[int, tuple[str, Any]] = {}

    def _key(self, variable: Any) -> str:
        # A name outlives the process, but need not be unique: the second of a name is told by its number.
        if id(variable) not in self._known:
            number = sum(known.name == variable.name for _, known in self._known.values())
            self._known[id(variable)] = f"{variable.name}_{number}" if number else variable.name, variable
        return self._known[id(variable)][0]

    def _claims(self, variables: Iterable[Any]) -> dict[str, int]:
        mapping = {}
        unclaimed = []
        for variable in variables:
            claims = [i for i, (predicate, _) in enumerate(self.pred_opt_pairs) if predicate(variable)]
            if len(claims) > 1:
                raise ValueError(f"{self.name}: Variable {variable.name!r} is claimed by optimizers {claims}")
            if claims:
                mapping[self._key(variable)] = claims[0]
            elif self.default is not None:
                mapping[self._key(variable)] = len(self.pred_opt_pairs)
            else:
                unclaimed.append(variable.name)
        for i, (_, optimizer) in enumerate(self.pred_opt_pairs):
            if i not in mapping.values():
                raise ValueError(f"{self.name}: optimizer {i}, {optimizer.name!r}, claims no variable")
        if unclaimed:
            warnings.warn(
                f"{self.name}: no optimizer trains {unclaimed}: no predicate claims them and there is no "
                "`default_optimizer`",
                stacklevel=3,
            )
        return mapping

    def _groups(self, variables: Iterable[Any]) -> list[list[int]]:
        """For each optimizer the places of its variables."""
        variables = list(variables)
        if self.var_opt_mapping is None:
            self.var_opt_mapping = self._claims(variables)
        groups: list[list[int]] = [[] for _ in self.optimizers]
        for i, variable in enumerate(variables):
            place = self.var_opt_mapping.get(self._key(variable))
            if place is not None:
                groups[place].append(i)
        return groups

    def build(self, var_list: Iterable[Any]) -> None:
        variables = list(var_list)
        for optimizer, group in zip(self.optimizers, self._groups(variables), strict=True):
            optimizer.build([variables[i] for i in group])

    def apply_gradients(self, grads_and_vars: Any, name: str | None = None, **kwargs: Any) -> Variable:
        pairs = list(grads_and_vars)
        self._groups(variable for _, variable in pairs)
        pairs = self._checked(pairs)
        for optimizer, group in zip(self.optimizers, self._groups(v for _, v in pairs), strict=True):
            if group:
                optimizer.apply_gradients([pairs[i] for i in group], **kwargs)
        self._iterations.assign_add(1)
        return self._iterations

    @property
    def iterations(self) -> Variable:
        """How many updates have been applied; cannot be set."""
        return self._iterations

    @iterations.setter
    def iterations(self, value: Any) -> None:
        raise NotImplementedError(f"{self.name}: iterations cannot be set; set those of its optimizers")

    @property
    def variables(self) -> Any:
        """Those of its optimizers, one after the other; may also be called."""
        return type(super().variables)(weight for optimizer in self.optimizers for weight in optimizer.weights)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "optimizer_configs": [optimizers.serialize(optimizer) for _, optimizer in self.pred_opt_pairs],
            "default_config": optimizers.serialize(self.default),
            "var_opt_mapping": self.var_opt_mapping,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> CaseOptimizer:
        """Make an optimizer from a configuration.

        The predicates are not in it: what was claimed stays claimed, by the variables' names. So a configuration that
        was written before the first update cannot train.
        """
        pairs = [
            (_claims_nothing, optimizers.deserialize(part, custom_objects)) for part in config["optimizer_configs"]
        ]
        default = config["default_config"] and optimizers.deserialize(config["default_config"], custom_objects)
        case = cls(*pairs, default_optimizer=default, name=config.get("name", "optimizer_case"))
        case.var_opt_mapping = config["var_opt_mapping"]
        return case


def _claims_nothing(variable: Any) -> bool:
    return False


@utils.register_keras_custom_object
class Bop(_Optimizer):
    """Binary optimizer: no latent weights, only flips.

    It keeps a moving average of each gradient, and flips the weight when the average pushes against it by more than
    `threshold`.

    Parameters
    ----------
    threshold : float or LearningRateSchedule
        High values learn little, low ones make training noisy.
    gamma : float or LearningRateSchedule
        Share of the new gradient in the average; acts like a learning rate.
    name : str
    **kwargs
        `clipnorm`, `clipvalue`, `global_clipnorm`, as for every optimizer.

    Notes
    -----
    Only variables that are marked as binary by ``NoOp(precision=1)`` are meant for it. Whatever their values were, they
    are +1 and -1 after the first update. Where average times weight equals the threshold, the weight becomes +1.

    References
    ----------
    Helwegen et al., "Latent Weights Do Not Exist: Rethinking Binarized Neural Network Optimization", arXiv:1906.02107.
    """

    def __init__(self, threshold: Any = 1e-8, gamma: Any = 1e-4, name: str = "Bop", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self._set_hyper("threshold", threshold)
        self._set_hyper("gamma", gamma)

    def _create_slots(self, var_list: Iterable[Any]) -> None:
        for variable in var_list:
            self.add_slot(variable, "m")

    def _coefficients(self, dtype: Any) -> Mapping[str, Any]:
        return {name: self._get_hyper(name, dtype) for name in ("gamma", "threshold")}

    def update_step(self, gradient: Any, variable: Any) -> None:
        value = variable._writable_()
        update.bop(
            value,
            self.get_slot(variable, "m")._writable_(),
            gradient,
            limit=self._take_limit(),
            **self._shared(value.dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "threshold": self._serialize_hyperparameter("threshold"),
            "gamma": self._serialize_hyperparameter("gamma"),
        }

    @staticmethod
    def is_binary_variable(var: Any) -> bool:
        """Whether a variable is marked as binary, ``var.precision == 1``; a predicate for `CaseOptimizer`."""
        return getattr(var, "precision", 32) == 1
