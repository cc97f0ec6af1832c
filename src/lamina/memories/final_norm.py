"""What a logit loses when a vector is taken out of the residual stream, through the final norm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lamina.memories.live_model import LiveModel

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Readout:
    """One token's logit as a function of the residual stream x, (d_model,).

    ``direction . centred(x) / sqrt(mean(centred(x)^2) + eps) + bias``, or ``direction . x + bias``
    where the model has no norm. In float64: a small effect is a small difference of large logits.

    Attributes
    ----------
    direction : (d_model,) float64
        The token's row of the unembedding times the norm's scale.
    bias : float
    eps : float or None
        None: no norm.
    centres : bool
        LayerNorm takes the mean out, RMSNorm does not.
    """

    direction: Floats
    bias: float
    eps: float | None
    centres: bool

    @classmethod
    def of(cls, live: LiveModel, token: int, x: Floats) -> Readout | None:
        """Return the readout of a token, or None if the norm is of no form that is known here.

        Which form it is, is found by trying it on x beside the norm itself.
        """
        import torch

        row = live.head.weight[token].detach().double().numpy()
        bias = getattr(live.head, "bias", None)
        shift = 0.0 if bias is None else float(bias[token])
        if live.norm is None:
            return cls(row, shift, None, False)
        weight = live.head.weight
        with torch.no_grad():
            wanted = live.norm(torch.from_numpy(x).to(weight.dtype)).double().numpy()
        scale = getattr(live.norm, "weight", None)
        gain = np.ones(len(x)) if scale is None else scale.detach().double().numpy()
        offset = getattr(live.norm, "bias", None)
        add = np.zeros(len(x)) if offset is None else offset.detach().double().numpy()
        eps = getattr(live.norm, "variance_epsilon", getattr(live.norm, "eps", 0.0)) or 0.0
        tolerance = 3e-2 if weight.dtype.itemsize < 4 else 1e-4
        for centres in (isinstance(live.norm, torch.nn.LayerNorm), True, False):
            for g in (gain, 1.0 + gain):  # Gemma stores what is added to 1
                told = g * _normed(x, eps, centres) + add
                if np.abs(told - wanted).max() <= tolerance * np.abs(wanted).max():
                    return cls(row * g, shift + float(row @ add), float(eps), centres)
        return None

    def logit(self, x: Floats) -> float:
        """Return the token's logit."""
        normed = x if self.eps is None else _normed(x, self.eps, self.centres)
        return float(self.direction @ normed) + self.bias

    def effects(self, x: Floats, vectors: Floats, factors: Floats | None = None) -> Floats:
        """Return ``logit(x) - logit(x - factor * vector)`` of each row, (n,), in closed form.

        Parameters
        ----------
        x : (d_model,) float64
        vectors : (n, d_model) array
        factors : (n,) float64, optional
            1 by default.
        """
        vectors = vectors.astype(np.float64, copy=False)
        c = np.ones(len(vectors)) if factors is None else factors
        if self.eps is None:
            return c * (vectors @ self.direction)
        d = len(x)
        direction, centred = self.direction, x
        if self.centres:
            # u . centred(v) = centred(u) . v, so that no (n, d_model) copy is made
            direction, centred = direction - direction.mean(), x - x.mean()
        square = np.einsum("nd,nd->n", vectors, vectors)
        if self.centres:
            square -= vectors.sum(1) ** 2 / d
        before = centred @ centred / d + self.eps
        after = before - 2.0 * c * (vectors @ centred) / d + c**2 * square / d
        numerator = direction @ centred
        left = (numerator - c * (vectors @ direction)) / np.sqrt(np.maximum(after, 1e-300))
        return np.asarray(numerator / np.sqrt(before) - left)


def _normed(x: Floats, eps: float, centres: bool) -> Floats:
    centred = x - x.mean() if centres else x
    return np.asarray(centred / np.sqrt(np.mean(centred**2) + eps))
