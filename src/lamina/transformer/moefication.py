"""A trained dense layer split into experts that share its neurons, and a router that knows them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lamina.core.checks import check_count, resolve_rng
from lamina.core.errors import DataError, SpecError
from lamina.core.network import Network
from lamina.core.trainer import train
from lamina.transformer.clustering import balanced_k_means
from lamina.transformer.feed_forward import FeedForward, GatedFeedForward
from lamina.transformer.mixer import Mixer, check_rows
from lamina.transformer.operators import Weights
from lamina.transformer.plain import PHI
from lamina.transformer.sparse_upcycling import check_dense

ROUTER_WIDTH = 128
N_FEATURES = 512  # sample rows that tell neurons apart


class EffectRouter(nn.Module):
    """Predicts what each expert may add to y: d_model -> 128 tanh -> n_experts."""

    def __init__(self, d_model: int, n_experts: int) -> None:
        super().__init__()
        self.inner = nn.Linear(d_model, ROUTER_WIDTH)
        self.outer = nn.Linear(ROUTER_WIDTH, n_experts)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (n, n_experts) of rows x (n, d_model)."""
        scores: Tensor = self.outer(self.inner(x.to(self.inner.weight.dtype)).tanh())
        return scores


class SplitFeedForward(Mixer):
    """A dense layer's neurons in groups of equal size, of which each token uses top_k.

    ``y = sum over the chosen e of f_e(x) + b``: with all experts it is the dense layer. Made by
    `split`.

    Attributes
    ----------
    top_k : int
        Experts a token; may be set to anything from 1 to n_experts at any time.
    n_experts : int
    w_up, w_gate, w_down, b_up, b_gate : Parameter (n_experts, …) or None
        The dense layer's, sorted; a plain layer has no gate.
    b_down : Parameter (d_model,) or None
    router : EffectRouter
    """

    def __init__(
        self, ffn: FeedForward | GatedFeedForward, groups: Tensor, router: EffectRouter, top_k: int
    ) -> None:
        super().__init__()
        self.settle(ffn.d_model, ffn.d_ff, ffn.activation, 0.0, ffn.precision, ffn.native)
        self.n_experts = len(groups)
        self.top_k = top_k
        self.router = router
        w_up, b_up, w_gate, b_gate, w_down, b_down = ffn.weights()

        def rows(w: Tensor | None) -> nn.Parameter | None:
            return None if w is None else nn.Parameter(w.detach()[groups].clone())

        self.w_up, self.b_up = nn.Parameter(w_up.detach()[groups].clone()), rows(b_up)
        self.w_gate, self.b_gate = rows(w_gate), rows(b_gate)
        down = w_down.detach().T[groups].transpose(1, 2)  # (n_experts, d_model, width)
        self.w_down = nn.Parameter(down.contiguous())
        self.b_down = None if b_down is None else nn.Parameter(b_down.detach().clone())

    def weights(self) -> Weights:
        """Return the experts' parameters as the engine names them."""
        return Weights(self.w_up, self.b_up, self.w_gate, self.b_gate, self.w_down, None)

    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., d_model) for x (..., d_model), by each token's top_k experts."""
        check_rows(x, self.d_model, "SplitFeedForward")
        if not 1 <= self.top_k <= self.n_experts:
            raise SpecError(
                f"SplitFeedForward: expected top_k from 1 to the {self.n_experts} experts, got "
                f"{self.top_k}. Set another."
            )
        rows = x.reshape(-1, self.d_model)
        experts = self.router(rows).topk(self.top_k).indices
        return self.of_experts(rows, experts).view(x.shape)

    def of_experts(self, x: Tensor, experts: Tensor) -> Tensor:
        """Return y (n, d_model) by the experts (n, top_k) that are named."""
        y = self.mix(x, experts)
        return y if self.b_down is None else y + self.b_down.to(y.dtype)

    @torch.no_grad()
    def masses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each expert holds of a token: activation mass, and what it may add to y.

        Parameters
        ----------
        x : Tensor (n, d_model)

        Returns
        -------
        mass : float32 Tensor (n, n_experts)
            Sum of |h_i| over its neurons.
        effect : float32 Tensor (n, n_experts)
            Sum of |h_i| times the length of neuron i's value: a bound on its part of y.
        """
        w_up, b_up, w_gate, b_gate, w_down, _ = (
            None if w is None else w.detach().float() for w in self.weights()
        )
        h = _hidden(x.float(), self.activation, w_up, b_up, w_gate, b_gate).abs()
        lengths = w_down.norm(dim=1) if w_down is not None else torch.ones(())
        return h.sum(dim=-1), (h * lengths).sum(dim=-1)

    def extra_repr(self) -> str:
        """Return the sizes, for ``repr``."""
        sizes = f"{self.d_model}, {self.d_ff}, n_experts={self.n_experts}, top_k={self.top_k}"
        return f"{sizes}, activation={self.activation!r}"


def split(
    ffn: FeedForward | GatedFeedForward,
    n_experts: int,
    x: Tensor,
    *,
    top_k: int | None = None,
    max_epochs: int = 30,
    rng: int | np.random.Generator | None = None,
) -> SplitFeedForward:
    """Split a trained dense layer into experts of neurons that are active together.

    Neurons are clustered by their activations on sample rows (balanced k-means); a small network
    learns which clusters a row activates. With all experts the function is the dense layer's; with
    fewer it costs less and errs more, as `compute_curve` measures. It pays where activations are
    sparse: ReLU and squared ReLU, far less GELU and SiLU.

    Parameters
    ----------
    ffn : FeedForward or GatedFeedForward
        Copied, not changed.
    n_experts : int
        d_ff must be a multiple of it.
    x : Tensor (..., d_model)
        Rows as the layer sees them, some thousands if possible: what it is split by.
    top_k : int, optional
        Default: a quarter of the experts, at least 1.
    max_epochs : int, default 30
        Of the router's training; more where x has few rows.
    rng : int or numpy.random.Generator, optional

    Returns
    -------
    SplitFeedForward

    Raises
    ------
    SpecError, ShapeError, DataError
        If `ffn` is no such layer, sizes do not fit, or x has no rows, or NaN or infinity.

    References
    ----------
    Zhang et al. 2022, "MoEfication", arXiv:2110.01786, sections 3.2 and 3.3.

    Examples
    --------
    >>> import torch
    >>> from lamina.transformer import FeedForward, split
    >>> ffn, x = FeedForward(8, 32, "relu"), torch.randn(500, 8)
    >>> experts = split(ffn, 4, x, top_k=4, max_epochs=1, rng=0)
    >>> torch.allclose(experts(x), ffn(x), atol=1e-6)
    True
    """
    ffn = check_dense(ffn, "split")
    generator = resolve_rng(rng)
    n_experts = check_count(n_experts, "n_experts", "split")
    if ffn.d_ff % n_experts:
        raise SpecError(
            f"split: expected n_experts to divide the {ffn.d_ff} neurons, got {n_experts}. "
            f"Choose a divisor."
        )
    top_k = max(1, n_experts // 4) if top_k is None else check_count(top_k, "top_k", "split")
    if top_k > n_experts:
        raise SpecError(
            f"split: expected top_k of at most the {n_experts} experts, got {top_k}. Choose fewer."
        )
    rows = check_sample(x, ffn.d_model, "split")
    groups = _groups(ffn, n_experts, rows, generator)
    first = next(ffn.parameters())
    made = SplitFeedForward(ffn, groups, EffectRouter(ffn.d_model, n_experts), top_k)
    _fit_router(made, rows, max_epochs, generator)
    made.router.to(first.device)
    return made.train(ffn.training)


def check_sample(x: Tensor, d_model: int, where: str) -> Tensor:
    """Return x as float32 rows (n, d_model), or refuse it."""
    check_rows(x, d_model, where)
    rows = x.detach().reshape(-1, d_model).float()
    if len(rows) == 0:
        raise DataError(
            f"{where}: expected sample rows, got none. Pass some thousands if possible."
        )
    if not bool(rows.isfinite().all()):
        bad = int((~rows.isfinite().all(dim=1)).sum())
        raise DataError(
            f"{where}: expected finite activations, got NaN or infinity in {bad} of {len(rows)} "
            f"rows. Leave them out."
        )
    return rows


def _hidden(
    x: Tensor,
    activation: str,
    w_up: Tensor | None,
    b_up: Tensor | None,
    w_gate: Tensor | None,
    b_gate: Tensor | None,
) -> Tensor:
    """Return h (n, …, d_ff) of weights (…, d_ff, d_model)."""

    def linear(w: Tensor | None, b: Tensor | None) -> Tensor:
        z = torch.tensordot(x, w, dims=([1], [-1])) if w is not None else x  # (n, …, d_ff)
        return z if b is None else z + b

    if w_gate is None:
        return PHI[activation](linear(w_up, b_up))
    return PHI[activation](linear(w_gate, b_gate)) * linear(w_up, b_up)


@torch.no_grad()
def _groups(
    ffn: FeedForward | GatedFeedForward, n_experts: int, x: Tensor, rng: np.random.Generator
) -> Tensor:
    """Return (n_experts, d_ff / n_experts) neuron numbers."""
    some = x[torch.from_numpy(rng.permutation(len(x))[:N_FEATURES])]
    weights = [None if w is None else w.detach().float() for w in ffn.weights()[:4]]
    h = _hidden(some.to(next(ffn.parameters()).device), ffn.activation, *weights)
    # DIFF(Zhang et al. 2022, section 3.2: a graph of co-activations, cut by METIS): neurons as
    # points, one coordinate a row, of equal length: near are those that are active together.
    points = h.abs().T.double().cpu().numpy()  # (d_ff, rows)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    labels = balanced_k_means(points, n_experts, rng)
    return torch.from_numpy(np.argsort(labels, kind="stable").reshape(n_experts, -1))


def _fit_router(
    made: SplitFeedForward, x: Tensor, max_epochs: int, rng: np.random.Generator
) -> None:
    """Teach the router what each expert may add to y, on lamina's own engine."""
    _, effect = made.masses(x.to(made.w_up.device))
    rows, target = x.cpu().numpy(), effect.cpu().numpy()
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    target = (target - target.mean()) / (target.std() + 1e-12)
    net = Network(made.d_model, (ROUTER_WIDTH,), made.n_experts, activation="tanh", rng=rng)
    train(net, (rows - mean) / scale, target, max_epochs=max_epochs, batch_size=256, rng=rng)
    first = net.weights[0] / scale  # the scaling ends in the first layer
    with torch.no_grad():
        for layer, weight, bias in (
            (made.router.inner, first, net.biases[0] - first @ mean),
            (made.router.outer, net.weights[1], net.biases[1]),
        ):
            layer.weight.copy_(torch.from_numpy(np.array(weight)))
            layer.bias.copy_(torch.from_numpy(np.array(bias)))
