"""The optimizers of Keras before 2.11, where their numbers differ from the later ones.

All have `decay`. `SGD` computes the same, `Adam` differs in the rounding of ``1 - beta``, `RMSprop`
without momentum adds epsilon outside the root, which can change a step by a factor of 1.4.
"""

from . import optimizer
from .optimizer import Optimizer

__all__ = ["SGD", "Adam", "Optimizer", "RMSprop"]


class SGD(optimizer.SGD, legacy_of=optimizer.SGD):
    __doc__ = optimizer.SGD.__doc__


class Adam(optimizer.Adam, legacy_of=optimizer.Adam):
    __doc__ = optimizer.Adam.__doc__

    def _create_slots(self, var_list):
        for name in ("m", "v", "vhat") if self.amsgrad else ("m", "v"):
            for variable in var_list:
                self.add_slot(variable, name)

    def _rest(self, beta, dtype):
        return dtype(1) - self._get_hyper(beta, dtype)


class RMSprop(optimizer.RMSprop, legacy_of=optimizer.RMSprop):
    """RMSprop (Hinton, 2012), with epsilon outside the root unless there is momentum."""

    def _epsilon_inside(self, momentum):
        return bool(momentum)
