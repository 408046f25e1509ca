"""The base of all optimizers, and the three of them."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ...ops import memory, update
from ...tape import GradientTape, Tensor, Variable, constant, observed, plain
from .. import backend, initializers
from ..utils import Configurable
from . import schedules


class _CallableList(list):
    # Read as a property by Keras 2.11 and later, called as a method before.
    def __call__(self):
        return self


class Optimizer(Configurable):
    """Base class of optimizers.

    A subclass hands its hyperparameters to `_set_hyper`, makes its state with `add_slot` in
    ``_create_slots(var_list)`` and changes one variable in ``update_step(gradient, variable)``. What
    all variables of a dtype share in a step it computes in ``_coefficients(dtype)``, and reads with
    ``_shared(dtype)``. An update rule that clips what it writes may ask `_take_limit` for the magnitude that the
    constraint of the variable wants, which is then done with.
    Hyperparameters read as variables and can be set: ``optimizer.lr = 0.1`` and
    ``keras.backend.set_value(optimizer.lr, 0.1)`` are the same.

    Parameters
    ----------
    name : str, optional
        Defaults to the class name.
    clipnorm, clipvalue, global_clipnorm : float, optional
        Clip each gradient to a norm, each of its elements to an interval, or all gradients to a
        common norm.
    decay : float
        Divides the learning rate by ``1 + decay * iterations``. Given to `Adam`, `SGD` or
        `RMSprop`, it makes the class of `keras.optimizers.legacy`, which is what has it in Keras.

    Raises
    ------
    ValueError
        If a clip or the decay is negative, or both norms are to be clipped.
    """

    _legacy: ClassVar[type["Optimizer"] | None] = None
    _is_legacy = False

    def __init_subclass__(cls, legacy_of=None, **kwargs):
        super().__init_subclass__(**kwargs)
        cls._legacy = None
        if legacy_of is not None:
            cls._is_legacy = True
            legacy_of._legacy = cls

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls._legacy if cls._legacy and "decay" in kwargs else cls)

    def __init__(
        self, name=None, *, clipnorm=None, clipvalue=None, global_clipnorm=None, decay=0.0
    ):
        given = {
            "clipnorm": clipnorm,
            "clipvalue": clipvalue,
            "global_clipnorm": global_clipnorm,
            "decay": decay,
        }
        for argument, value in given.items():
            if value is not None and not value >= 0:
                raise ValueError(
                    f"{type(self).__name__}: {argument}: expected at least 0, received {value!r}"
                )
        if clipnorm is not None and global_clipnorm is not None:
            raise ValueError(
                f"{type(self).__name__}: expected at most one of clipnorm and global_clipnorm, "
                f"received {clipnorm} and {global_clipnorm}"
            )
        self._hyper: dict[str, Any] = {}
        self.name = name or type(self).__name__
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self._initial_decay = float(decay)
        self._iterations = Variable(np.int64(0), trainable=False, name="iteration")
        self._slots: dict[int, dict[str, Variable]] = {}
        # What keeps the identities that are the keys of the slots alive.
        self._owners: list[Variable] = []
        self._slot_variables: list[Variable] = []
        # The coefficients of the step that is being applied, by dtype.
        self._of_step: dict[Any, Mapping[str, Any]] | None = None
        # To which magnitude the variable that is being updated has yet to be clipped, if to any.
        self._limits: list[float] = []
        # Of steps that a model does not make, nobody can tell which is the last.
        self._memory: memory.Hold | None = None

    # Hyperparameters

    def _set_hyper(self, name, value):
        current = self._hyper.get(name)
        if isinstance(current, Variable) and not callable(value):
            current.assign(np.asarray(plain(value), np.float64))
        elif isinstance(current, schedules.LearningRateSchedule) and not callable(value):
            raise TypeError(
                f"{self.name}: {name}: a schedule computes it, so it cannot be set to {value!r}"
            )
        elif callable(value) and not isinstance(value, Variable):
            self._hyper[name] = value
        else:
            # float64: what is read back is what was given. An update casts to the weight's dtype.
            value = np.asarray(plain(value), np.float64)
            self._hyper[name] = Variable(value, trainable=False, name=name)

    def _get_hyper(self, name, dtype=None):
        """Return the variable or schedule, or with a dtype the current value as a NumPy scalar."""
        value = self._hyper[name]
        if dtype is None:
            return value
        if isinstance(value, Variable):
            value = value.numpy()
        elif isinstance(value, schedules.LearningRateSchedule):
            value = plain(value(constant(self._iterations.numpy())))
        else:
            value = plain(value())
        return np.dtype(dtype).type(value)

    def _decayed_lr(self, dtype):
        """Return the learning rate of this step as a NumPy scalar."""
        lr = self._get_hyper("learning_rate", dtype)
        if self._initial_decay:
            dtype = np.dtype(dtype).type
            lr = lr / (1 + dtype(self._initial_decay) * dtype(self._iterations.numpy()))
        return lr

    def __getattr__(self, name):
        hyper = self.__dict__.get("_hyper", {})
        name = "learning_rate" if name == "lr" else name
        if name not in hyper:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = hyper[name]
        if isinstance(value, schedules.LearningRateSchedule):
            return constant(self._get_hyper(name, np.float32))
        return value

    def __setattr__(self, name, value):
        name = "learning_rate" if name == "lr" else name
        if name in self.__dict__.get("_hyper", ()):
            self._set_hyper(name, value)
        else:
            super().__setattr__(name, value)

    def __dir__(self):
        return [
            *super().__dir__(),
            *self._hyper,
            *(["lr"] if "learning_rate" in self._hyper else []),
        ]

    @property
    def decay(self) -> float:
        """What the learning rate is divided by, less one, per iteration."""
        return self._initial_decay

    def _serialize_hyperparameter(self, name):
        value = self._hyper[name]
        if isinstance(value, schedules.LearningRateSchedule):
            return schedules.serialize(value)
        return float(self._get_hyper(name, np.float64))

    # State

    @property
    def iterations(self) -> Variable:
        """How many updates have been applied, an int64 variable."""
        return self._iterations

    @iterations.setter
    def iterations(self, value):
        self._iterations.assign(np.asarray(plain(value), np.int64))

    def build(self, var_list) -> None:
        """Make the state of variables; `apply_gradients` does it for those that have none."""
        new = [variable for variable in var_list if id(variable) not in self._slots]
        for variable in new:
            self._slots[id(variable)] = {}
            self._owners.append(variable)
        if new:
            self._create_slots(new)

    def _create_slots(self, var_list):
        """Make the state of new variables; a subclass calls `add_slot` here."""

    def add_slot(self, var, slot_name, initializer="zeros") -> Variable:
        """Make a variable of the shape and dtype of another, to be found by `get_slot`."""
        slots = self._slots.setdefault(id(var), {})
        if slot_name not in slots:
            value = initializers.get(initializer)(tuple(var.shape), dtype=var.dtype)
            name = f"{var.name.split(':')[0]}/{slot_name}"
            slots[slot_name] = Variable(value, trainable=False, name=name)
            self._slot_variables.append(slots[slot_name])
        return slots[slot_name]

    def get_slot(self, var, slot_name) -> Variable:
        """Return what `add_slot` made."""
        return self._slots[id(var)][slot_name]

    @property
    def variables(self):
        """The number of iterations, and the state of every variable; may also be called."""
        return _CallableList([self._iterations, *self._slot_variables])

    @property
    def weights(self) -> list[Variable]:
        """The same as `variables`."""
        return list(self.variables)

    def get_weights(self) -> list[np.ndarray]:
        """Return the state as arrays."""
        return [variable.numpy() for variable in self.weights]

    def set_weights(self, weights) -> None:
        """Set the state from arrays; `build` must have made it.

        Raises
        ------
        ValueError
            If their number or a shape differs. Nothing has been changed then.
        """
        variables = self.weights
        values = [np.asarray(value) for value in weights]
        if len(values) != len(variables):
            raise ValueError(
                f"{self.name}: set_weights: expected {len(variables)} arrays, "
                f"received {len(values)}"
            )
        for variable, value in zip(variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise ValueError(
                    f"{self.name}: set_weights: {variable.name}: expected shape "
                    f"{tuple(variable.shape)}, received {value.shape}"
                )
        backend.batch_set_value(zip(variables, values, strict=True))

    # Updates

    def update_step(self, gradient, variable):
        """Change one variable; a subclass implements it."""
        raise NotImplementedError(f"{type(self).__name__} must implement update_step()")

    def _coefficients(self, dtype) -> Mapping[str, Any]:
        """Arguments of the update rule that all variables share, as scalars of a NumPy type."""
        return {}

    def _shared(self, dtype) -> Mapping[str, Any]:
        """The coefficients for variables of a dtype, computed once in a step."""
        if self._of_step is None:
            return self._coefficients(dtype.type)
        if dtype not in self._of_step:
            self._of_step[dtype] = self._coefficients(dtype.type)
        return self._of_step[dtype]

    def apply_gradients(self, grads_and_vars, name=None, **kwargs):
        """Apply one update and the constraints of the variables.

        Parameters
        ----------
        grads_and_vars : iterable of (gradient, Variable)
            Where the gradient is None, the variable is left as it is.

        Raises
        ------
        ValueError
            If there is no gradient at all, or one has not the shape of its variable. Nothing has
            been changed then.
        """
        pairs = self._checked(grads_and_vars)
        if memory.holders() == 0:
            self._memory = memory.Hold()
        variables = [variable for _, variable in pairs]
        gradients = self._clip_gradients([gradient for gradient, _ in pairs])
        self.build(variables)
        self._of_step = {}
        update_step = observed("update", self.name, self.update_step)
        try:
            for gradient, variable in zip(gradients, variables, strict=True):
                constraint = getattr(variable, "constraint", None)
                limit = None if constraint is None else getattr(constraint, "_limit_", None)
                if limit is not None:
                    self._limits.append(limit)
                update_step(gradient, variable)
                if self._limits or (constraint is not None and limit is None):
                    self._limits.clear()
                    observed("update", type(constraint).__name__, _constrain)(variable, constraint)
        finally:
            self._of_step = None
            self._limits.clear()
        iterations = self._iterations._writable_()
        iterations += 1
        return self._iterations

    def _take_limit(self) -> float:
        return self._limits.pop() if self._limits else math.inf

    def _checked(self, grads_and_vars):
        """The pairs with a gradient, each an array of the shape of its variable; raises as `apply_gradients` says."""
        pairs, missing = [], []
        for gradient, variable in grads_and_vars:
            if gradient is None:
                missing.append(variable.name)
                continue
            gradient = gradient.view(np.ndarray) if type(gradient) is Tensor else plain(gradient)
            if gradient.shape != variable.shape:
                raise ValueError(
                    f"{self.name}: gradient of {variable.name}: expected shape "
                    f"{variable.shape}, received {gradient.shape}"
                )
            pairs.append((gradient, variable))
        if missing and not pairs:
            raise ValueError(f"{self.name}: no gradients provided for any variable: {missing}")
        if missing:
            warnings.warn(f"{self.name}: no gradients exist for {missing}", stacklevel=3)
        return pairs

    def minimize(self, loss, var_list, tape=None, **kwargs):
        """Differentiate a loss and apply the gradients.

        Parameters
        ----------
        loss : callable or Tensor
            A callable takes no arguments; a tensor needs the `tape` that recorded it.
        var_list : list of Variable, or a callable that returns it
        tape : GradientTape, optional
        """
        if not callable(loss) and tape is None:
            raise ValueError(f"{self.name}: minimize: a tensor as loss needs the tape that made it")
        if callable(loss):
            with tape or GradientTape() as tape:
                loss = loss()
        variables = list(var_list() if callable(var_list) else var_list)
        return self.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def _clip_gradients(self, gradients):
        if self.clipvalue is not None:
            gradients = [np.clip(g, -self.clipvalue, self.clipvalue) for g in gradients]
        if self.clipnorm is not None:
            gradients = [
                g * (self.clipnorm / np.maximum(_norm(g), g.dtype.type(self.clipnorm)))
                for g in gradients
            ]
        if self.global_clipnorm is not None and gradients:
            norm = np.sqrt(sum(np.square(_norm(g)) for g in gradients))
            # An infinite norm gives NaN, as in TensorFlow, rather than silent zeros.
            scale = self.global_clipnorm / np.maximum(norm, self.global_clipnorm)
            scale = scale if np.isfinite(norm) else np.nan
            gradients = [g * g.dtype.type(scale) for g in gradients]
        return gradients

    def get_config(self):
        config: dict[str, Any] = {"name": self.name}
        for name in ("clipnorm", "clipvalue", "global_clipnorm"):
            if getattr(self, name) is not None:
                config[name] = getattr(self, name)
        if self._is_legacy:
            config["decay"] = self._initial_decay
        else:
            config["is_legacy_optimizer"] = False
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]):
        """Make an optimizer from a configuration, also one that tf_keras wrote.

        Raises
        ------
        ValueError
            If it asks for weight decay or averaged weights, which this library does not have.
        """
        config = dict(config)
        for name in ("weight_decay", "use_ema"):
            if config.pop(name, None):
                raise ValueError(f"{cls.__name__}: {name}: not supported, expected None or False")
        for name in (
            "adaptive_epsilon",
            "ema_momentum",
            "ema_overwrite_frequency",
            "is_legacy_optimizer",
            "jit_compile",
        ):
            config.pop(name, None)
        if "lr" in config:
            config["learning_rate"] = config.pop("lr")
        for name, value in config.items():
            if isinstance(value, Mapping) and "class_name" in value:
                config[name] = schedules.deserialize(value)
        return cls(**config)


def _constrain(variable, constraint):
    """Apply a constraint: in the memory of the value if it only clips, or by its call."""
    limit = getattr(constraint, "_limit_", None)
    if limit is None:
        variable.assign(constraint(variable))
    else:
        update.clip(variable._writable_(), limit)


def _norm(gradient):
    return np.sqrt(np.sum(np.square(gradient)))


def _learning_rate(learning_rate, kwargs):
    return kwargs.pop("lr", learning_rate)


class SGD(Optimizer):
    """Gradient descent, with momentum (Sutskever et al., 2013).

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        May also be called ``lr``.
    momentum : float
        In ``[0, 1]``.
    nesterov : bool
        Whether a step looks ahead along the accumulated direction.
    name, clipnorm, clipvalue, global_clipnorm, decay
        As for `Optimizer`.
    """

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, name="SGD", **kwargs):
        learning_rate = _learning_rate(learning_rate, kwargs)
        super().__init__(name, **kwargs)
        if isinstance(momentum, (int, float)) and not 0 <= momentum <= 1:
            raise ValueError(f"SGD: momentum: expected a value in [0, 1], received {momentum}")
        self._set_hyper("learning_rate", learning_rate)
        self._set_hyper("momentum", momentum)
        self.nesterov = nesterov

    def _create_slots(self, var_list):
        if self._get_hyper("momentum", np.float32):
            for variable in var_list:
                self.add_slot(variable, "momentum")

    def _coefficients(self, dtype):
        return {"lr": self._decayed_lr(dtype), "momentum": self._get_hyper("momentum", dtype)}

    def update_step(self, gradient, variable):
        value = variable._writable_()
        shared = self._shared(value.dtype)
        if not shared["momentum"]:
            update.sgd(value, gradient, lr=shared["lr"], limit=self._take_limit())
            return
        update.momentum(
            value,
            # A schedule may set a momentum that was zero when the state was made.
            self.add_slot(variable, "momentum")._writable_(),
            gradient,
            nesterov=self.nesterov,
            limit=self._take_limit(),
            **shared,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter("learning_rate"),
            "momentum": self._serialize_hyperparameter("momentum"),
            "nesterov": self.nesterov,
        }


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015).

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        May also be called ``lr``.
    beta_1, beta_2 : float
        Decay rates of the moments.
    epsilon : float
        Added to the root of the second moment.
    amsgrad : bool
        Whether the second moment never shrinks (Reddi et al., 2018).
    name, clipnorm, clipvalue, global_clipnorm, decay
        As for `Optimizer`.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        amsgrad=False,
        name="Adam",
        **kwargs,
    ):
        learning_rate = _learning_rate(learning_rate, kwargs)
        super().__init__(name, **kwargs)
        self._set_hyper("learning_rate", learning_rate)
        self._set_hyper("beta_1", beta_1)
        self._set_hyper("beta_2", beta_2)
        self.epsilon = backend.epsilon() if epsilon is None else epsilon
        self.amsgrad = amsgrad

    def _create_slots(self, var_list):
        for variable in var_list:
            self.add_slot(variable, "m")
            self.add_slot(variable, "v")
        if self.amsgrad:
            for variable in var_list:
                self.add_slot(variable, "vhat")

    def _rest(self, beta, dtype):
        # Keras subtracts in double precision here and in single precision in the legacy class.
        return dtype(1.0 - self._get_hyper(beta, np.float64))

    def _coefficients(self, dtype):
        step = dtype(self._iterations.numpy() + 1)
        power_1 = self._get_hyper("beta_1", dtype) ** step
        power_2 = self._get_hyper("beta_2", dtype) ** step
        return {
            "alpha": self._decayed_lr(dtype) * np.sqrt(1 - power_2) / (1 - power_1),
            "rest_1": self._rest("beta_1", dtype),
            "rest_2": self._rest("beta_2", dtype),
            "epsilon": dtype(self.epsilon),
        }

    def update_step(self, gradient, variable):
        slots, value = self._slots[id(variable)], variable._writable_()
        update.adam(
            value,
            slots["m"]._writable_(),
            slots["v"]._writable_(),
            gradient,
            v_hat=slots["vhat"]._writable_() if self.amsgrad else None,
            limit=self._take_limit(),
            **self._shared(value.dtype),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter("learning_rate"),
            "beta_1": self._serialize_hyperparameter("beta_1"),
            "beta_2": self._serialize_hyperparameter("beta_2"),
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
        }


class RMSprop(Optimizer):
    """RMSprop (Hinton, 2012), with epsilon inside the root.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        May also be called ``lr``.
    rho : float
        Decay rate of the moving mean of squared gradients.
    momentum : float
    epsilon : float
    centered : bool
        Whether the variance of the gradient is divided by, rather than its second moment.
    name, clipnorm, clipvalue, global_clipnorm, decay
        As for `Optimizer`.
    """

    def __init__(
        self,
        learning_rate=0.001,
        rho=0.9,
        momentum=0.0,
        epsilon=1e-7,
        centered=False,
        name="RMSprop",
        **kwargs,
    ):
        learning_rate = _learning_rate(learning_rate, kwargs)
        super().__init__(name, **kwargs)
        self._set_hyper("learning_rate", learning_rate)
        self._set_hyper("rho", rho)
        self._set_hyper("momentum", momentum)
        self.epsilon = backend.epsilon() if epsilon is None else epsilon
        self.centered = centered

    def _create_slots(self, var_list):
        names = ["velocity"]
        if self._get_hyper("momentum", np.float32):
            names.append("momentum")
        if self.centered:
            names.append("average_gradient")
        for name in names:
            for variable in var_list:
                self.add_slot(variable, name)

    def _epsilon_inside(self, momentum):
        return True

    def _coefficients(self, dtype):
        momentum = self._get_hyper("momentum", dtype)
        return {
            "lr": self._decayed_lr(dtype),
            "rho": self._get_hyper("rho", dtype),
            "rest": dtype(1.0 - self._get_hyper("rho", np.float64)),
            "epsilon": dtype(self.epsilon),
            "epsilon_inside": self._epsilon_inside(momentum),
            "momentum": momentum,
        }

    def update_step(self, gradient, variable):
        value = variable._writable_()
        shared = self._shared(value.dtype)
        accumulator = self.add_slot(variable, "momentum")._writable_() if shared["momentum"] else None
        mean = self.get_slot(variable, "average_gradient")._writable_() if self.centered else None
        update.rmsprop(
            value,
            self.get_slot(variable, "velocity")._writable_(),
            gradient,
            mean=mean,
            accumulator=accumulator,
            limit=self._take_limit(),
            **shared,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter("learning_rate"),
            "rho": self._serialize_hyperparameter("rho"),
            "momentum": self._serialize_hyperparameter("momentum"),
            "epsilon": self.epsilon,
            "centered": self.centered,
        }
