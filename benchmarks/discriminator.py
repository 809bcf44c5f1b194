"""How well the discriminator can tell real from fake: real and fake in one batch or apart, last
features or all taps.

    python benchmarks/discriminator.py                       a minute or two on two cores
    python benchmarks/discriminator.py --dataset natural --weights PATH

The fakes are the pictures with 0.6 of their own colour: what a timid colorizer paints. Heads train
on the frozen features; the accuracy is that of the last 100 steps, on pictures as they come (chance
is 0.5).
"""

from __future__ import annotations

import argparse
import itertools
import platform

import torch
from torch.nn import functional as F

import gancolor
from gancolor import color, presets
from gancolor.data import loader
from gancolor.models import Seen, build_discriminator, load_backbone
from gancolor.training.plan import open_pictures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="still-life")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    config = presets.build(
        "poster", dataset=options.dataset, image_size=options.image_size, batch_size=16
    )
    trunk = load_backbone(options.weights)
    size = options.image_size
    head_of = {
        taps: presets.build("poster", discriminator_taps=taps, image_size=size)
        for taps in ("last", "all")
    }
    models = {taps: build_discriminator(settings, trunk) for taps, settings in head_of.items()}
    features: dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]] = {
        taps: ([], []) for taps in models
    }
    batches = itertools.islice(
        loader.batches(open_pictures(config, "train"), config=config), options.pictures // 16
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for batch in batches:
            lightness, ab = color.split(batch.rgb)
            for side, share in ((0, 1.0), (1, 0.6)):
                rgb = color.merge(lightness, share * ab)
                for taps, model in models.items():
                    features[taps][side].extend(
                        model.features(Seen(rgb, torch.cat([lightness, share * ab], 1)))
                    )
    print(
        f"gancolor {gancolor.__version__}, torch {torch.__version__}, {platform.machine()};"
        f" {options}"
    )
    print("| features | real and fake | lr | D_loss | accuracy |\n|---|---|---|---|---|")
    for taps, together, lr in itertools.product(models, (False, True), (2e-4, 1e-3)):
        loss, accuracy = train(head_of[taps], trunk, features[taps], together, lr, options.steps)
        print(
            f"| {taps} | {'one batch' if together else 'apart'} | {lr:g} | {loss:.3f} |"
            f" {accuracy:.2f} |",
            flush=True,
        )


def train(settings, trunk, features, together: bool, lr: float, steps: int) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Mean loss and accuracy of the last 100 steps."""
    torch.manual_seed(0)
    model = build_discriminator(settings, trunk).train()
    optimizer = torch.optim.Adam(model.head.parameters(), lr=lr, betas=(0.5, 0.999))
    history = []
    for step in range(steps):
        real, fake = (side[step % len(side)] for side in features)
        if together:
            real_logits, fake_logits = model.head(torch.cat([real, fake])).chunk(2)
        else:
            real_logits, fake_logits = model.head(real), model.head(fake)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = ((real_logits > 0).float().mean() + (fake_logits < 0).float().mean()) / 2
        history.append((float(loss.detach()), float(right)))
    tail = torch.tensor(history[-100:]).mean(0).tolist()
    return tail[0], tail[1]


if __name__ == "__main__":
    main()
