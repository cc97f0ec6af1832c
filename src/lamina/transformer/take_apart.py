"""Where a Transformer's parameters, arithmetic, bytes and time go, by role.

One multiply-add is two floating point operations (FLOPs); only products with weights and those of
attention count, as `torch.utils.flop_counter` counts them. For one token that sees N positions::

    FLOPs = 2 * (weights that multiply it) + sum over attention layers 2 min(N, window) (d_q + d_v)

with d_q and d_v the heads' widths times their number. That is the cost of the next token after a
context of N, and of each token of a prefill of N where the masked half is computed too (a kernel
that leaves it out does half of the products). Of experts, top_k of n_experts multiply a token.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lamina.bridges.huggingface import Block, find_blocks
from lamina.core.checks import check_count
from lamina.transformer.configuration import as_model
from lamina.transformer.roles import ROLES, AttentionSize, assign_roles, attention_sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RoleCost:
    """What one role costs.

    Attributes
    ----------
    role : str
        embedding, attention, channel mixer, norm, router, head or other.
    n_params, n_active : int
        Parameters, and those that one token uses: of experts top_k of n_experts. A matrix that an
        embedding and a head share counts as the embedding's.
    n_bytes : int
        Of the parameters, in the model's dtypes.
    flops : int
        For one token; see the head of this file.
    seconds : float or None
        Of one forward pass over the context, where it was measured.
    """

    role: str
    n_params: int
    n_active: int
    n_bytes: int
    flops: int
    seconds: float | None = None


@dataclass(frozen=True)
class Anatomy:
    """Parameters, FLOPs, bytes and time of a Transformer by role; `anatomy` makes one.

    Attributes
    ----------
    name : str
    dtype : str
    context : int
        The number of positions that the token sees whose FLOPs are counted.
    n_layers : int
        Layers with a channel mixer, of all stacks.
    roles : tuple of RoleCost
        Those that the model has.
    crossover : int or None
        The least context from which attention (projections and products) costs more FLOPs a token
        than the channel mixer (router included); None: at no length, as with sliding windows.
        With P the weights that multiply a token it is, where no window is in the way,
        ``2 (P_mixer - P_attention) / sum over layers 2 (d_q + d_v)``, rounded up to the next whole
        number.
    notes : tuple of str
        What the numbers leave out.
    """

    name: str
    dtype: str
    context: int
    n_layers: int
    roles: tuple[RoleCost, ...]
    crossover: int | None
    notes: tuple[str, ...] = ()

    def __getitem__(self, role: str) -> RoleCost:
        """Return the cost of a role; zeros if the model has no such part."""
        for cost in self.roles:
            if cost.role == role:
                return cost
        if role not in ROLES:
            raise KeyError(role)
        return RoleCost(role, 0, 0, 0, 0)

    @property
    def n_params(self) -> int:
        """All parameters."""
        return sum(cost.n_params for cost in self.roles)

    @property
    def n_active(self) -> int:
        """The parameters that one token uses, embeddings whole."""
        return sum(cost.n_active for cost in self.roles)

    @property
    def n_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(cost.n_bytes for cost in self.roles)

    @property
    def flops(self) -> int:
        """FLOPs of one token."""
        return sum(cost.flops for cost in self.roles)

    @property
    def seconds(self) -> float | None:
        """Seconds of one forward pass over the context, where it was measured."""
        times = [cost.seconds for cost in self.roles if cost.seconds is not None]
        return sum(times) if times else None

    @property
    def mixer_share(self) -> float:
        """The channel mixer's share of all parameters."""
        return self["channel mixer"].n_params / max(self.n_params, 1)

    @property
    def mixer_share_of_blocks(self) -> float:
        """The channel mixer's share of attention and channel mixer: "two thirds" in GPT-2."""
        mixer = self["channel mixer"].n_params
        return mixer / max(mixer + self["attention"].n_params, 1)

    @property
    def mixer_share_of_active(self) -> float:
        """The channel mixer's share of the parameters that one token uses."""
        return self["channel mixer"].n_active / max(self.n_active, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers and text, for JSON."""
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("roles", "notes")},
            "n_params": self.n_params,
            "n_active": self.n_active,
            "n_bytes": self.n_bytes,
            "flops": self.flops,
            "seconds": self.seconds,
            "mixer_share": self.mixer_share,
            "mixer_share_of_blocks": self.mixer_share_of_blocks,
            "mixer_share_of_active": self.mixer_share_of_active,
            "roles": [asdict(cost) for cost in self.roles],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        from lamina.transformer.anatomy_text import as_text

        return as_text(self)

    def plot(self) -> Figure:
        """Return a figure: each role's share of parameters, FLOPs and time, and FLOPs by context.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        from lamina.plots.anatomy import plot_anatomy

        measures: dict[str, list[float]] = {
            "parameters": [cost.n_params for cost in self.roles],
            "active a token": [cost.n_active for cost in self.roles],
            f"FLOPs at {self.context:,}": [cost.flops for cost in self.roles],
        }
        if self.n_active == self.n_params:
            del measures["active a token"]
        if self.seconds is not None:
            measures["time"] = [cost.seconds or 0.0 for cost in self.roles]
        return plot_anatomy(self.name, [cost.role for cost in self.roles], measures)


def anatomy(
    model: Any,
    *,
    context: int = 1024,
    measure: bool | None = None,
    n_threads: int | None = None,
) -> Anatomy:
    """Take a Transformer apart: parameters, FLOPs, bytes and time by role.

    Parameters
    ----------
    model : torch.nn.Module, configuration, dict, str or Path
        A transformers model; or its configuration (an object, the dict of a config.json, a path to
        one or to its folder, a .gguf file) or a built-in name such as "gpt2" or "llama-3.1-405b".
        Without weights the model is built on the meta device: no memory, no download.
    context : int, default 1024
        The number of positions that the token sees.
    measure : bool, optional
        Whether to time a forward pass over `context` tokens, by role; None: of a live model on
        the CPU.
    n_threads : int, optional
        PyTorch's threads while measuring; None: as they are.

    Returns
    -------
    Anatomy
        It prints as a table.

    Raises
    ------
    DataError, SpecError
        If there is no such file, transformers cannot build the model, no block is recognised, or
        layers are quantised.
    MissingExtraError
        If torch or transformers is not installed.

    Notes
    -----
    Of an encoder and a decoder the FLOPs are those of one position in each. Multiplications with
    convolutions (Whisper's stem) are not counted.

    Examples
    --------
    >>> from lamina import transformer
    >>> gpt2 = transformer.anatomy("gpt2")
    >>> f"{gpt2.n_params:,} {gpt2.mixer_share_of_blocks:.3f} {gpt2.mixer_share:.3f}"
    '124,439,808 0.667 0.455'
    """
    where = "anatomy"
    context = check_count(context, "context", where)
    live, name = as_model(model, where)
    blocks = find_blocks(live, where)
    roles = assign_roles(live, blocks)
    attention = attention_sizes(live, roles)
    seconds: dict[str, float] = {}
    on_meta = any(p.device.type == "meta" for p in live.parameters())
    if measure or (measure is None and not on_meta):
        from lamina.transformer.role_times import time_by_role

        seconds = time_by_role(live, roles, context, n_threads=n_threads)
    costs = _costs(live, blocks, roles)
    weights_only = {role: cost.flops for role, cost in costs.items()}
    costs["attention"].flops += sum(a.flops(context) for a in attention)
    kept = tuple(
        RoleCost(role, c.n_params, c.n_active, c.n_bytes, c.flops, seconds.get(role))
        for role, c in costs.items()
        if c.n_params or c.flops or seconds.get(role)
    )
    n_layers = len({(block.stack, block.layer) for block in blocks})
    dtype = str(next(live.parameters()).dtype).removeprefix("torch.")
    return Anatomy(
        name=name,
        dtype=dtype,
        context=context,
        n_layers=n_layers,
        roles=kept,
        crossover=find_crossover(
            weights_only["channel mixer"] + weights_only["router"],
            weights_only["attention"],
            attention,
        ),
        notes=tuple(_notes(live, roles, attention, n_layers)),
    )


# ----------------------------------------------------------------------------------------- counting


@dataclass
class _Count:
    n_params: int = 0
    n_active: int = 0
    n_bytes: int = 0
    flops: int = 0


def _costs(model: Any, blocks: list[Block], roles: dict[str, str]) -> dict[str, _Count]:
    """Return each role's parameters and the FLOPs of one token's products with weights."""
    shares = {
        matrix.name: (block.top_k, block.n_experts)
        for block in blocks
        if block.kind == "experts"
        for matrix in block.weights.values()
    }
    counts = {role: _Count() for role in ROLES}
    seen: set[int] = set()
    for path, parameter in model.named_parameters(remove_duplicate=False):
        owner = path.rpartition(".")[0]
        role = roles[owner]
        top_k, n_experts = shares.get(path, (1, 1))
        n = int(parameter.numel())
        count = counts[role]
        # An embedding is looked up; a vector is added or multiplied elementwise
        if parameter.dim() >= 2 and role not in ("embedding", "norm", "other"):
            count.flops += 2 * n * top_k // n_experts
        if id(parameter) not in seen:  # else a tied matrix, counted where it came first
            seen.add(id(parameter))
            count.n_params += n
            count.n_active += n * top_k // n_experts
            count.n_bytes += n * int(parameter.element_size())
    return counts


def find_crossover(
    mixer: int, projections: int, attention: list[AttentionSize] | tuple[AttentionSize, ...]
) -> int | None:
    """Return the least context at which attention costs more than the channel mixer.

    Parameters
    ----------
    mixer, projections : int
        FLOPs a token of the channel mixer, and of attention's products with weights.
    attention : sequence of AttentionSize

    Returns
    -------
    int or None
        At least 1; None if no context will do.
    """

    def costs_more(context: int) -> bool:
        return projections + sum(a.flops(context) for a in attention) > mixer

    # The cost rises with the context up to the last window, or for ever: search by halving.
    unlimited = any(a.window is None and a.d_query + a.d_value > 0 for a in attention)
    high = max((a.window for a in attention if a.window is not None), default=1)
    while unlimited and not costs_more(high):
        high *= 2
    if not costs_more(high):
        return None
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if costs_more(middle) else (middle, high)
    return high


def _notes(
    model: Any, roles: dict[str, str], attention: list[AttentionSize], n_layers: int
) -> list[str]:
    notes = []
    if len(attention) < n_layers:
        notes.append(
            f"attention's products are counted in {len(attention)} of {n_layers} layers: the "
            "others' are not recognised"
        )
    if bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False)):
        notes.append("FLOPs are those of one position of the encoder and one of the decoder")
    stem = [p for p, m in model.named_modules() if type(m).__name__ in ("Conv1d", "Conv2d")]
    if any(roles[path] == "embedding" for path in stem):
        notes.append("the FLOPs of the embedding's convolutions are not counted")
    other = [
        path for path, _ in model.named_parameters() if roles[path.rpartition(".")[0]] == "other"
    ]
    if other:
        notes.append(f"{len(other)} parameters are of no known role, such as {other[0]}")
    return notes
