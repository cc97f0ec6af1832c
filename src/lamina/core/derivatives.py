"""Derivatives of a network's outputs with respect to its inputs: what `Network` inherits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.checks import as_matrix, shape_of
from lamina.core.curvature import axis_weights, check_smooth
from lamina.core.engine import Engine
from lamina.core.errors import ShapeError

Array = npt.NDArray[Any]


class Differentiable:
    """jacobian, hessian_vector and laplacian of a network.

    Notes
    -----
    Forward mode carries the derivative along each input beside the value, d_in + 1 forward
    passes in all; reverse mode takes a backward pass an output. The cheaper one is taken. An
    encoding is differentiated with the network. A HashGrid's value stays as it is beyond its
    bounds, where its derivatives are 0; at a wall of a cell they are those of one side, and its
    second derivatives (interpolation="smoothstep" has them) jump there.
    """

    __slots__ = ()

    def _derivatives_of(self, x: npt.ArrayLike, where: str) -> tuple[Engine, Array]:
        """Return the engine and `x` as it wants it."""
        raise NotImplementedError

    def jacobian(self, x: npt.ArrayLike) -> Array:
        """Return d y_pred / d x for the rows of `x`.

        Parameters
        ----------
        x : array-like (n, d_in), finite
            n may be 0.

        Returns
        -------
        jacobian : array (n, d_out, d_in)
            ``jacobian[i, o, j]`` is the derivative of output o by input j at row i, in units of
            y_pred per unit of x, the output unit included. For one output, the gradient is
            ``jacobian[:, 0]``. At a kink, as of relu at 0, the activation's slope is taken as 0
            (leaky_relu: 0.01; selu: that of its left side).

        Raises
        ------
        ShapeError, DataError
            `x` is not a matrix of d_in columns of finite numbers.

        Notes
        -----
        2 n n_params (1 + min(d_in, d_out)) floating-point operations. Dropout is off.

        Examples
        --------
        >>> import lamina, numpy as np
        >>> net = lamina.Network(2, (), 1, rng=0)  # linear: the Jacobian is its weight
        >>> bool(np.all(net.jacobian(np.zeros((3, 2)))[0] == net.weights[0]))
        True
        """
        engine, rows = self._derivatives_of(x, "Network.jacobian")
        jacobian = np.empty((len(rows), engine.spec.d_out, engine.spec.d_in), engine.dtype)
        engine.jet(rows, jacobian=jacobian)
        return jacobian

    def hessian_vector(self, x: npt.ArrayLike, v: npt.ArrayLike) -> Array:
        """Return the Hessian of each output times a vector, for the rows of `x`.

        Parameters
        ----------
        x : array-like (n, d_in), finite
        v : array-like (n, d_in) or (d_in,), finite
            One vector a row, or one for all.

        Returns
        -------
        product : array (n, d_out, d_in)
            ``product[i, o, j]`` is the sum over k of d^2 y_pred_o / dx_j dx_k times v_k: how the
            gradient of output o changes along v.

        Raises
        ------
        ShapeError, DataError
            `x` or `v` is not as described.
        SpecError
            A hidden activation is step, relu or leaky_relu, whose second derivative is 0
            wherever it exists, or the encoding is a HashGrid of interpolation="linear".

        Notes
        -----
        Reverse over forward mode (Pearlmutter 1994): 4 n n_params (1 + d_out) floating-point
        operations; the Hessian is never formed. For selu and squared_relu, whose phi' or phi''
        jumps at 0, this is the second derivative on either side.

        References
        ----------
        Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6.

        Examples
        --------
        >>> import lamina, numpy as np
        >>> net = lamina.Network(2, (8,), 1, activation="tanh", rng=0)
        >>> net.hessian_vector(np.zeros((3, 2)), [1.0, 0.0]).shape  # first column of the Hessian
        (3, 1, 2)
        """
        where = "Network.hessian_vector"
        engine, rows = self._derivatives_of(x, where)
        check_smooth(engine.spec, where)
        d_in = engine.spec.d_in
        if shape_of(v) not in ((len(rows), d_in), (d_in,)):
            raise ShapeError(
                f"{where}: expected v of shape ({len(rows)}, {d_in}) or ({d_in},), "
                f"got {shape_of(v)}. Pass one vector a row, or one for all."
            )
        along = as_matrix(np.atleast_2d(np.asarray(v)), "v", where, d_in, engine.dtype)
        return engine.hessian_vector(rows, np.broadcast_to(along, rows.shape))

    def laplacian(self, x: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Array:
        """Return the sum of the second derivatives of each output, for the rows of `x`.

        Parameters
        ----------
        x : array-like (n, d_in), finite
        weights : array-like (d_in,), optional
            w_j of sum_j w_j d^2/dx_j^2; None means 1 for each. ``(1, 0)`` gives d^2/dx_0^2
            alone; ``(1, 1, -1)`` the wave operator of (x, y, t) at speed 1.

        Returns
        -------
        laplacian : array (n, d_out)

        Raises
        ------
        ShapeError, DataError, SpecError
            As for `hessian_vector`.

        Notes
        -----
        2 n n_params (2 + d_in) floating-point operations: one stream for the Laplacian beside
        the value and the d_in tangents, not a pass for each second derivative.

        References
        ----------
        Li et al. (2023), "Forward Laplacian", arXiv:2307.08214.

        Examples
        --------
        >>> import lamina, numpy as np
        >>> net = lamina.Network(2, (8,), 1, activation="tanh", rng=0)
        >>> net.laplacian(np.zeros((3, 2))).shape
        (3, 1)
        """
        where = "Network.laplacian"
        engine, rows = self._derivatives_of(x, where)
        check_smooth(engine.spec, where)
        coefficients = axis_weights(weights, engine.spec.d_in, where)
        laplacian = np.empty((len(rows), engine.spec.d_out), engine.dtype)
        engine.jet(rows, coefficients=coefficients, curvature=laplacian)
        return laplacian
