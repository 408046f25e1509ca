"""Batch and layer normalization."""

from __future__ import annotations

import numpy as np

from ...ops import norm
from ...ops import shape as shape_ops
from ...ops.elementwise import Rectified
from ...ops.later import integers
from ...ops.product import Waiting
from ...tape import observed, plain, read
from ..base_layer import InputSpec, context
from .arguments import ConfiguredLayer


class _Normalization(ConfiguredLayer):
    """What batch and layer normalization share: axes, and the learned scale and offset."""

    def _resolve_axes(self, input_shape):
        """The axes that have their own scale and offset, as positive numbers."""
        rank = len(input_shape)
        axes = self.axis if isinstance(self.axis, (list, tuple)) else (self.axis,)
        if any(not -rank <= a < rank for a in axes):
            raise ValueError(
                f"Invalid value for `axis` argument. Expected axes in [-{rank}, {rank}) for inputs "
                f"of shape {tuple(input_shape)}. Received: axis={self.axis}"
            )
        axes = tuple(a % rank for a in axes)
        if len(set(axes)) != len(axes):
            raise ValueError(f"Duplicate axis: {self.axis}")
        unknown = [a for a in axes if input_shape[a] is None]
        if unknown:
            raise ValueError(
                f"Input has undefined `axis` dimension. Received input with shape "
                f"{tuple(input_shape)} and axis {self.axis}."
            )
        self._axes = axes
        self._parameter_shape = tuple(input_shape[a] for a in axes)
        self._broadcast = tuple(input_shape[i] if i in axes else 1 for i in range(rank))
        # One last axis broadcasts as it is.
        self._as_it_is = axes == (rank - 1,)
        self.input_spec = InputSpec(ndim=rank, axes={a: input_shape[a] for a in axes})

    def _add_parameter(self, name, wanted):
        if not wanted:
            return None
        return self.add_weight(
            name,
            shape=self._parameter_shape,
            initializer=getattr(self, f"{name}_initializer"),
            regularizer=getattr(self, f"{name}_regularizer"),
            constraint=getattr(self, f"{name}_constraint"),
        )

    def _spread(self, variable):
        """A parameter in a shape that broadcasts against the input."""
        if variable is None or self._as_it_is:
            return variable
        return shape_ops.reshape(variable, shape=self._broadcast)

    def compute_output_shape(self, input_shape):
        return input_shape


class BatchNormalization(_Normalization):
    """Zero mean and unit variance over the batch, then a learned scale and offset.

    In training the statistics are those of the batch, and moving averages of them are kept for
    inference. With ``trainable=False`` the layer is in inference mode always.

    Parameters
    ----------
    axis : int or sequence of int
        What has its own statistics, usually the channels.
    momentum : float
        Of the moving averages.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is an offset `beta` and a scale `gamma`.
    beta_initializer, gamma_initializer : str or callable
    moving_mean_initializer, moving_variance_initializer : str or callable
    beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint : str or callable

    Notes
    -----
    The moving variance is updated with the unbiased variance for inputs of four or five axes and
    with the biased one otherwise, as Keras does on its fused and unfused paths.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift", 2015.
    """

    def __init__(
        self,
        axis=-1,
        momentum=0.99,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        moving_mean_initializer="zeros",
        moving_variance_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        **kwargs,
    ):
        kwargs.pop("synchronized", None)
        super().__init__(**kwargs)
        self._configure(
            axis=list(axis) if isinstance(axis, (list, tuple)) else axis,
            momentum=momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )

    def build(self, input_shape):
        self._resolve_axes(input_shape)
        # Keras writes the resolved axes as a list into its configuration.
        self.axis = list(self._axes)
        rank = len(input_shape)
        self._reduced = tuple(i for i in range(rank) if i not in self._axes)
        self._unbiased = rank in (4, 5) and self._axes in ((1,), (rank - 1,))
        self.gamma = self._add_parameter("gamma", self.scale)
        self.beta = self._add_parameter("beta", self.center)
        self.moving_mean = self.add_weight(
            "moving_mean",
            shape=self._parameter_shape,
            initializer=self.moving_mean_initializer,
            trainable=False,
        )
        self.moving_variance = self.add_weight(
            "moving_variance",
            shape=self._parameter_shape,
            initializer=self.moving_variance_initializer,
            trainable=False,
        )
        super().build(input_shape)

    def call(self, inputs, training=None, later=0):
        more, rectified = (), False
        if type(inputs) is shape_ops.Joined and self._as_it_is and self.moving_mean.dtype == inputs.dtype:
            x, (first, *more) = inputs, inputs.arrays
        else:
            rectified = type(inputs) is Rectified and self._as_it_is and norm.by_channel(inputs.source)
            source = inputs.source if rectified else inputs
            exact = self._as_it_is and self.moving_mean.dtype == np.float32
            first = integers(source) if exact else read(source)
            x = plain(first)
        if training and self._trainable:
            axes = self._reduced
            moments = observed("forward", "moments", norm.moments)
            mean, inverse = moments(x, axes, self.epsilon, self._average(x), rectified)
        else:
            axes = None
            mean, variance = (plain(v).reshape(self._broadcast) for v in (self.moving_mean, self.moving_variance))
            inverse = norm.inverse_deviation(variance, self.epsilon)
        gamma, beta = self.gamma, self.beta
        if not self._as_it_is:
            gamma, beta = self._spread(gamma), self._spread(beta)
        args = first, gamma, beta, None, *more
        parameters = {"mean": mean, "inverse": inverse, "axes": axes, "rectified": rectified}
        if later and self._as_it_is and norm.by_channel(x):
            return norm.Normalized(*args, **parameters, readers=later)
        return norm.normalize(*args, **parameters)

    def _average(self, x):
        """The moving averages, and how they move."""
        if context.inferring or not x.size:
            return None
        mean, variance = self.moving_mean._writable_(), self.moving_variance._writable_()
        count = x.size // mean.size
        return mean, variance, 1 - self.momentum, count / max(count - 1, 1) if self._unbiased else 1.0

    def _waits(self, readers):
        return all(r._knows(norm.Normalized) for r in readers)

    def _knows(self, kind):
        known = kind in (norm.Normalized, Rectified, shape_ops.Joined, Waiting)
        return known and type(self).call is BatchNormalization.call


class LayerNormalization(_Normalization):
    """Zero mean and unit variance over the axes of each sample, then a learned scale and offset.

    Parameters
    ----------
    axis : int or sequence of int
        The axes that are normalized together.
    epsilon : float
    center, scale : bool
    beta_initializer, gamma_initializer : str or callable
    beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint : str or callable

    References
    ----------
    Ba et al., "Layer Normalization", 2016.
    """

    def __init__(
        self,
        axis=-1,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._configure(
            axis=list(axis) if isinstance(axis, (list, tuple)) else axis,
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )

    def build(self, input_shape):
        self._resolve_axes(input_shape)
        self.axis = list(self._axes)
        self.gamma = self._add_parameter("gamma", self.scale)
        self.beta = self._add_parameter("beta", self.center)
        super().build(input_shape)

    def call(self, inputs):
        inputs = read(inputs)
        mean, inverse = observed("forward", "moments", norm.moments)(plain(inputs), self._axes, self.epsilon)
        return norm.normalize(
            inputs, self._spread(self.gamma), self._spread(self.beta), mean=mean, inverse=inverse, axes=self._axes
        )


__all__ = ["BatchNormalization", "LayerNormalization"]
