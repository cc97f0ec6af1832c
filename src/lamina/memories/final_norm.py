"""What logits lose when vectors are taken out of the residual stream, through the final norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lamina.memories.live_model import LiveModel

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Readout:
    """At each of n positions, one token's logit as a function of the residual stream x.

    ``direction . centred(x) / sqrt(mean(centred(x)^2) + eps) + bias``, or ``direction . x + bias``
    where the model has no norm. In float64: a small effect is a small difference of large logits.

    Attributes
    ----------
    streams : (n, d_model) float64
        x, the final residual stream.
    directions : (n, d_model) float64
        The tokens' rows of the unembedding times the norm's scale.
    biases : (n,) float64
    eps : float or None
        None: no norm.
    centres : bool
        LayerNorm takes the mean out, RMSNorm does not.
    """

    streams: Floats
    directions: Floats
    biases: Floats
    eps: float | None
    centres: bool

    @classmethod
    def of(
        cls, live: LiveModel, tokens: Sequence[int], streams: Floats, scale: float = 1.0
    ) -> Readout | None:
        """Return the readout of a token at each position, or None if the norm is of another form.

        Which form it is, is found by trying it on the streams beside the norm itself. What the
        unembedding gives is multiplied by `scale`.
        """
        import torch

        weight = live.head.weight
        rows = scale * weight[list(tokens)].detach().double().numpy()
        bias = getattr(live.head, "bias", None)
        biases = np.zeros(len(rows))
        if bias is not None:
            biases = scale * bias[list(tokens)].detach().double().numpy()
        if live.norm is None:
            return cls(streams, rows, biases, None, False)
        with torch.no_grad():
            wanted = live.norm(torch.from_numpy(streams).to(weight.dtype)).double().numpy()
        gain = getattr(live.norm, "weight", None)
        g = np.ones(streams.shape[1]) if gain is None else gain.detach().double().numpy()
        offset = getattr(live.norm, "bias", None)
        add = 0.0 * g if offset is None else offset.detach().double().numpy()
        eps = getattr(live.norm, "variance_epsilon", getattr(live.norm, "eps", 0.0)) or 0.0
        tolerance = 3e-2 if weight.dtype.itemsize < 4 else 1e-4
        for centres in (isinstance(live.norm, torch.nn.LayerNorm), True, False):
            for gains in (g, 1.0 + g):  # Gemma stores what is added to 1
                told = gains * _normed(streams, eps, centres) + add
                if np.abs(told - wanted).max() <= tolerance * np.abs(wanted).max():
                    return cls(streams, rows * gains, biases + rows @ add, float(eps), centres)
        return None

    def logits(self) -> Floats:
        """Return the token's logit at each position, (n,)."""
        x = self.streams if self.eps is None else _normed(self.streams, self.eps, self.centres)
        return np.asarray(np.einsum("nd,nd->n", self.directions, x) + self.biases)

    def effects(self, vectors: Floats, factors: Floats) -> Floats:
        """Return ``logit(x_i) - logit(x_i - factors[i, j] * vectors[j])``, (n, m), in closed form.

        Parameters
        ----------
        vectors : (m, d_model) float64
        factors : (n, m) float64
        """
        directions, streams = self._centred()
        square = np.einsum("md,md->m", vectors, vectors)
        if self.centres:
            square -= vectors.sum(1) ** 2 / vectors.shape[1]
        return self._lost(
            factors * (directions @ vectors.T), factors * (streams @ vectors.T), factors**2 * square
        )

    def effects_at(self, position: int, vectors: Floats) -> Floats:
        """Return ``logit(x) - logit(x - vectors[j])`` at one position, (m,)."""
        one = slice(position, position + 1)
        here = Readout(
            self.streams[one], self.directions[one], self.biases[one], self.eps, self.centres
        )
        return np.asarray(here.effects(vectors, np.ones((1, len(vectors))))[0])

    def _centred(self) -> tuple[Floats, Floats]:
        """Return directions and streams less their means where the norm centres.

        As ``u . centred(v) = centred(u) . v``, the vectors themselves need no centred copy.
        """
        if not self.centres:
            return self.directions, self.streams
        return _less_mean(self.directions), _less_mean(self.streams)

    def _lost(self, along: Floats, overlap: Floats, square: Floats) -> Floats:
        """Return what is lost with vectors v, given direction . v, x . v and v . v, (n, m) each."""
        if self.eps is None:
            return along
        directions, streams = self._centred()
        d = streams.shape[1]
        before = np.einsum("nd,nd->n", streams, streams)[:, None] / d + self.eps
        numerator = np.einsum("nd,nd->n", directions, streams)[:, None]
        after = np.maximum(before - (2.0 * overlap - square) / d, 1e-300)
        return np.asarray(numerator / np.sqrt(before) - (numerator - along) / np.sqrt(after))


def _less_mean(x: Floats) -> Floats:
    return np.asarray(x - x.mean(-1, keepdims=True))


def _normed(x: Floats, eps: float, centres: bool) -> Floats:
    centred = _less_mean(x) if centres else x
    return np.asarray(centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + eps))
