"""Presets: what the paper says, what differs, and that the help tells it."""

from __future__ import annotations

from typing import Any

import pytest

from gancolor import presets
from gancolor.config import TrainConfig, settings
from gancolor.errors import ConfigError


def test_the_known_presets() -> None:
    fusion = [
        "koalarization",
        "face",
        "portrait-vggface",
        "portrait-vgg19",
        "portrait-inception",
        "deep-cnn",
    ]
    assert list(presets.PRESETS) == [
        "gan",
        "fast",
        "poster",
        "regression",
        *presets.TUNING,
        *fusion,
    ]
    assert set(presets.SUMMARIES) == set(presets.PRESETS)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_names_settings_only_and_is_valid(name: str) -> None:
    assert set(presets.PRESETS[name]) <= set(settings()) - {"preset"}
    config = presets.build(name, **({"init": "7"} if name in presets.TUNING else {}))
    assert config.preset == name
    assert all(getattr(config, key) == value for key, value in presets.PRESETS[name].items())


def test_gan_is_the_default() -> None:
    assert presets.build("gan") == TrainConfig()
    assert TrainConfig().preset == "gan"


def test_the_poster_is_the_paper() -> None:
    config = presets.build("poster")
    assert config.objective == "adversarial"
    assert (config.l1_space, config.l1_weight, config.adversarial_weight) == ("rgb", 100.0, 1.0)
    assert (config.lr, config.beta1, config.beta2) == (2e-4, 0.5, 0.999)
    assert (config.frozen_blocks, config.train_backbone) == (5, False)
    # the training size, the last features
    assert (config.discriminator_size, config.discriminator_taps) == (
        0,
        "last",
    )
    assert (config.discriminator_units, config.dropout) == ((512, 256, 128), 0.5)
    assert (config.head, config.backbone, config.discriminator) == ("ab", "vgg16", "units")
    assert (config.adversarial_loss, config.lr_schedule) == ("non-saturating", "constant")
    switched_off = (
        "discriminator_lr",
        "ema",
        "warmup",
        "discriminator_warmup",
        "ramp",
        "lr_warmup",
        "hints",
        "init",
    )
    switched_off += (
        "label_smoothing",
        "instance_noise",
        "clip",
        "rescue",
        "r1",
        "perceptual_weight",
    )
    assert not any(getattr(config, name) for name in switched_off)


def test_regression_is_the_old_generator_with_its_objective_only() -> None:
    config, gan = presets.build("regression"), presets.build("gan")
    assert config.objective == "regression" and config.adversarial_weight == 0
    different = {name for name in settings() if getattr(config, name) != getattr(gan, name)}
    network, schedule = {"head", "hints"}, {"warmup", "lr_schedule", "lr_warmup"}
    weights = {"adversarial_weight", "perceptual_weight", "lr"}
    assert different == {"preset", "objective"} | weights | network | schedule
    assert (config.head, config.hints, config.warmup, config.lr_schedule) == (
        "ab",
        0.0,
        0.0,
        "constant",
    )
    assert (config.l1_weight, config.l1_space, config.perceptual_weight) == (100.0, "ab", 0.0)
    assert (config.lr, config.ema) == (2e-4, 0.998)


# Each paper's protocol, written out: network, embedding, its output, units, framing, flip, size,
# batch.
PAPERS: dict[str, tuple[object, ...]] = {
    "koalarization": (
        "koalarization",
        "inception-resnet-v2",
        "scores",
        "ab127",
        "white",
        False,
        224,
        100,
    ),
    "face": ("face", "vgg16", "scores", "unit", "center", False, 224, 16),
    "portrait-vggface": ("portrait", "vggface", "softmax", "ab127", "center", False, 256, 50),
    "portrait-vgg19": ("portrait", "vgg19", "softmax", "ab127", "center", False, 256, 50),
    "portrait-inception": (
        "portrait",
        "inception-resnet-v2",
        "softmax",
        "ab127",
        "center",
        False,
        256,
        50,
    ),
    "deep-cnn": (
        "koalarization",
        "inception-resnet-v2",
        "scores",
        "ab127",
        "random",
        True,
        256,
        16,
    ),
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_fusion_presets_are_the_papers(name: str) -> None:
    config = presets.build(name)
    found = (
        config.network,
        config.embedding,
        config.embedding_output,
        config.color_scale,
        config.framing,
    )
    assert (*found, config.flip, config.image_size, config.batch_size) == PAPERS[name]
    assert (config.objective, config.loss, config.l1_weight, config.l1_space) == (
        "regression",
        "mse",
        1.0,
        "ab",
    )
    # koalarization's rate, Adam's own betas
    assert (config.lr, config.beta1, config.beta2) == (
        1e-3,
        0.9,
        0.999,
    )
    assert (
        not config.smooth_decoder and not config.ema and not config.warmup and not config.lr_warmup
    )
    assert (config.embedding_fit == "white") == (config.network == "koalarization")


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("poster", {"l1_space": "ab", "lr": 1e-3}),
        ("regression", {"l1_weight": 3.0}),
        ("gan", {"ema": 0.0}),
    ],
)
def test_what_is_given_overrides_the_preset(preset: str, overrides: dict[str, Any]) -> None:
    config = presets.build(preset, **overrides)
    assert config.preset == preset
    assert all(getattr(config, name) == value for name, value in overrides.items())


@pytest.mark.parametrize("name", presets.TUNING)
def test_tuning_must_start_from_a_run(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--preset {name} must start from a run, got no --init"):
        presets.build(name)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError,
        match="--preset must be one of gan, fast, poster, regression, .*deep-cnn, got artist",
    ):
        presets.build("artist")
