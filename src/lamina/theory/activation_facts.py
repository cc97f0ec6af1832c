"""What is known about each activation of `lamina.core.functions`, as data.

Formulas are Python expressions of z, with ``Phi`` and ``pdf`` for the standard normal's
distribution and density, so that a reader, or a test, can evaluate what is printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from lamina.core.functions import SELU_ALPHA, SELU_SCALE, Float64

INF: Final = math.inf
FLAT: Final = 0.01
"""An activation is called flat where the size of its derivative stays below this."""


@dataclass(frozen=True)
class ActivationFacts:
    """One activation h = phi(z), and what follows for a network that uses it.

    Attributes
    ----------
    name : str
        As in ``lamina.Network(..., activation=name)``.
    formula, derivative_formula : str
        phi(z) and phi'(z), as Python expressions of z.
    range : (float, float)
        The smallest interval that holds all values.
    range_closed : (bool, bool)
        Whether each finite end of it is a value, or only a limit.
    flat_below, flat_above : float or None
        ``|phi'(z)| < FLAT`` for all z beyond: there the unit saturates, and hardly learns. None
        where the slope does not go to zero on that side.
    odd : bool
        phi(-z) = -phi(z).
    mean : float
        The mean of phi(z) for standard normal z.
    smoothness : float
        How many continuous derivatives: -1 for a jump, 0 for a kink, ``inf`` for all.
    monotone : bool
        Never decreasing.
    lipschitz : float
        The largest size of a slope; ``inf`` where there is none.
    used_in : str
        Where it is used.
    reference : str
        Who proposed it.
    """

    name: str
    formula: str
    derivative_formula: str
    range: tuple[float, float]
    range_closed: tuple[bool, bool]
    flat_below: float | None
    flat_above: float | None
    odd: bool
    mean: float
    smoothness: float
    monotone: bool
    lipschitz: float
    used_in: str
    reference: str

    @property
    def zero_centred(self) -> bool:
        """Whether the mean of phi(z) is zero for standard normal z.

        Units that are not shift the mean of the next layer's inputs away from zero, and all
        gradients of one of its units then share a sign more often than not (LeCun et al. 1998,
        "Efficient BackProp", section 4.3).
        """
        return self.mean == 0.0

    @property
    def smooth(self) -> bool:
        """Whether all derivatives exist everywhere."""
        return self.smoothness == INF

    @property
    def scheme(self) -> str:
        """How first weights are drawn: he, glorot, lecun or siren."""
        from lamina.core.initialize import DEFAULT_SCHEME

        return DEFAULT_SCHEME[self.name]

    def value(self, z: Float64) -> Float64:
        """Return phi(z) in float64."""
        from lamina.core.functions import ACTIVATIONS

        return ACTIVATIONS[self.name].value(z)

    def derivative(self, z: Float64) -> Float64:
        """Return phi'(z) in float64; at a kink or jump, what backward passes use."""
        from lamina.core.functions import ACTIVATIONS

        return ACTIVATIONS[self.name].derivative(z)


_TANH_ARGUMENT: Final = "sqrt(2 / pi) * (z + 0.044715 * z**3)"

FACTS: Final = (
    ActivationFacts(
        name="identity",
        formula="z",
        derivative_formula="1",
        range=(-INF, INF),
        range_closed=(False, False),
        flat_below=None,
        flat_above=None,
        odd=True,
        mean=0.0,
        smoothness=INF,
        monotone=True,
        lipschitz=1.0,
        used_in="output layers for regression, linear bottlenecks (Sandler et al. 2018, "
        "arXiv:1801.04381); a network of it alone is one linear map",
        reference="none: it is the absence of an activation",
    ),
    ActivationFacts(
        name="step",
        formula="1 if z >= 0 else 0",
        derivative_formula="0",
        range=(0.0, 1.0),
        range_closed=(True, True),
        flat_below=0.0,
        flat_above=0.0,
        odd=False,
        mean=0.5,
        smoothness=-1.0,
        monotone=True,
        lipschitz=INF,
        used_in="threshold circuits; its slope is 0 everywhere, so gradients cannot train it",
        reference='McCulloch and Pitts 1943, "A logical calculus of the ideas immanent in nervous '
        'activity"; Rosenblatt 1958, "The perceptron"',
    ),
    ActivationFacts(
        name="sigmoid",
        formula="1 / (1 + exp(-z))",
        derivative_formula="exp(-z) / (1 + exp(-z))**2",
        range=(0.0, 1.0),
        range_closed=(False, False),
        flat_below=-4.5848633,
        flat_above=4.5848633,
        odd=False,
        mean=0.5,
        smoothness=INF,
        monotone=True,
        lipschitz=0.25,
        used_in="probabilities of yes or no, gates of LSTM (Hochreiter and Schmidhuber 1997)",
        reference='Rumelhart et al. 1986, "Learning representations by back-propagating errors"',
    ),
    ActivationFacts(
        name="tanh",
        formula="tanh(z)",
        derivative_formula="1 - tanh(z)**2",
        range=(-1.0, 1.0),
        range_closed=(False, False),
        flat_below=-2.9932228,
        flat_above=2.9932228,
        odd=True,
        mean=0.0,
        smoothness=INF,
        monotone=True,
        lipschitz=1.0,
        used_in="small networks, recurrent networks, physics-informed networks (Raissi et al. "
        "2017, arXiv:1711.10561)",
        reference='LeCun et al. 1998, "Efficient BackProp"',
    ),
    ActivationFacts(
        name="relu",
        formula="z if z > 0 else 0",
        derivative_formula="1 if z > 0 else 0",
        range=(0.0, INF),
        range_closed=(True, False),
        flat_below=0.0,
        flat_above=None,
        odd=False,
        mean=0.3989422804014327,
        smoothness=0.0,
        monotone=True,
        lipschitz=1.0,
        used_in="most networks since AlexNet (Krizhevsky et al. 2012), piecewise-linear theory",
        reference='Nair and Hinton 2010, "Rectified linear units improve restricted Boltzmann '
        'machines"; Glorot et al. 2011, "Deep sparse rectifier neural networks"',
    ),
    ActivationFacts(
        name="leaky_relu",
        formula="z if z > 0 else 0.01 * z",
        derivative_formula="1 if z > 0 else 0.01",
        range=(-INF, INF),
        range_closed=(False, False),
        flat_below=None,
        flat_above=None,
        odd=False,
        mean=0.99 * 0.3989422804014327,
        smoothness=0.0,
        monotone=True,
        lipschitz=1.0,
        used_in="where units of relu die; discriminators of GANs (Radford et al. 2016, "
        "arXiv:1511.06434)",
        reference='Maas et al. 2013, "Rectifier nonlinearities improve neural network acoustic '
        'models"',
    ),
    ActivationFacts(
        name="softplus",
        formula="log(1 + exp(z))",
        derivative_formula="1 / (1 + exp(-z))",
        range=(0.0, INF),
        range_closed=(False, False),
        flat_below=-4.5951199,
        flat_above=None,
        odd=False,
        mean=0.8060591840,
        smoothness=INF,
        monotone=True,
        lipschitz=1.0,
        used_in="positive outputs such as variances; distance fields (Gropp et al. 2020, "
        "arXiv:2002.10099)",
        reference='Dugas et al. 2001, "Incorporating second-order functional knowledge for better '
        'option pricing"',
    ),
    ActivationFacts(
        name="gelu",
        formula="z * Phi(z)",
        derivative_formula="Phi(z) + z * pdf(z)",
        range=(-0.16997120747990366, INF),
        range_closed=(True, False),
        flat_below=-3.0674272,
        flat_above=None,
        odd=False,
        mean=0.28209479177387814,  # 1 / (2 sqrt pi)
        smoothness=INF,
        monotone=False,
        lipschitz=1.1289041451851548,  # at sqrt 2
        used_in="feed-forward layers of BERT (Devlin et al. 2018, arXiv:1810.04805) and ViT",
        reference="Hendrycks and Gimpel 2016, arXiv:1606.08415",
    ),
    ActivationFacts(
        name="gelu_tanh",
        formula=f"z / 2 * (1 + tanh({_TANH_ARGUMENT}))",
        derivative_formula=f"(1 + tanh({_TANH_ARGUMENT})) / 2 + z / 2 * "
        f"(1 - tanh({_TANH_ARGUMENT})**2) * sqrt(2 / pi) * (1 + 0.134145 * z**2)",
        range=(-0.17004075057125405, INF),
        range_closed=(True, False),
        flat_below=-3.0528550,
        flat_above=None,
        odd=False,
        mean=0.28203858944,
        smoothness=INF,
        monotone=False,
        lipschitz=1.1289930686587718,
        used_in="feed-forward layers of GPT-2 (Radford et al. 2019) and Gemma (2024, "
        "arXiv:2403.08295)",
        reference="Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2",
    ),
    ActivationFacts(
        name="silu",
        formula="z / (1 + exp(-z))",
        derivative_formula="(1 + exp(-z) + z * exp(-z)) / (1 + exp(-z))**2",
        range=(-0.2784645427610738, INF),
        range_closed=(True, False),
        flat_below=-6.2613888,
        flat_above=None,
        odd=False,
        mean=0.20662096414,
        smoothness=INF,
        monotone=False,
        lipschitz=1.0998393201288669,
        used_in="gated feed-forward layers of Llama (Shazeer 2020, arXiv:2002.05202), EfficientNet "
        "(Tan and Le 2019, arXiv:1905.11946)",
        reference="Elfwing et al. 2017, arXiv:1702.03118; Ramachandran et al. 2017 (swish), "
        "arXiv:1710.05941",
    ),
    ActivationFacts(
        name="selu",
        formula=f"{SELU_SCALE!r} * (z if z > 0 else {SELU_ALPHA!r} * (exp(z) - 1))",
        derivative_formula=f"{SELU_SCALE!r} * (1 if z > 0 else {SELU_ALPHA!r} * exp(z))",
        range=(-SELU_SCALE * SELU_ALPHA, INF),
        range_closed=(False, False),
        flat_below=-5.1694035,
        flat_above=None,
        odd=False,
        mean=0.0,  # what its two numbers are chosen for, with a variance of 1
        smoothness=0.0,
        monotone=True,
        lipschitz=SELU_SCALE * SELU_ALPHA,  # from the left at 0
        used_in="deep networks without normalisation, with first weights of LeCun's scale",
        reference="Klambauer et al. 2017, arXiv:1706.02515",
    ),
    ActivationFacts(
        name="mish",
        formula="z * tanh(log(1 + exp(z)))",
        derivative_formula="tanh(log(1 + exp(z))) + z * (1 - tanh(log(1 + exp(z)))**2) / "
        "(1 + exp(-z))",
        range=(-0.30884341301725041, INF),
        range_closed=(True, False),
        flat_below=-6.2639688,
        flat_above=None,
        odd=False,
        mean=0.24040389,
        smoothness=INF,
        monotone=False,
        lipschitz=1.0884981612517279,
        used_in="YOLOv4 (Bochkovskiy et al. 2020, arXiv:2004.10934), networks of tables",
        reference="Misra 2019, arXiv:1908.08681",
    ),
    ActivationFacts(
        name="sine",
        formula="sin(z)",
        derivative_formula="cos(z)",
        range=(-1.0, 1.0),
        range_closed=(True, True),
        flat_below=None,
        flat_above=None,
        odd=True,
        mean=0.0,
        smoothness=INF,
        monotone=False,
        lipschitz=1.0,
        used_in="fields: images, sounds, shapes and their derivatives as networks (SIREN)",
        reference="Sitzmann et al. 2020, arXiv:2006.09661",
    ),
    ActivationFacts(
        name="squared_relu",
        formula="z**2 if z > 0 else 0",
        derivative_formula="2 * z if z > 0 else 0",
        range=(0.0, INF),
        range_closed=(True, False),
        flat_below=0.005,  # 2 z reaches FLAT here
        flat_above=None,
        odd=False,
        mean=0.5,
        smoothness=1.0,
        monotone=True,
        lipschitz=INF,
        used_in="feed-forward layers of Primer and of Nemotron-4 (2024, arXiv:2402.16819)",
        reference="So et al. 2021 (Primer), arXiv:2109.08668",
    ),
)
