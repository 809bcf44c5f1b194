"""Settings: bounds, times, JSON, and their options on the command line."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import click
import pytest

from gancolor import fields, presets
from gancolor.cli.options import given_settings, training_options
from gancolor.config import TrainConfig, flag_of, parse_duration, settings
from gancolor.errors import ConfigError
from gancolor.training import rundir

FIELDS = {item.name: item for item in dataclasses.fields(TrainConfig)}


def parse(*arguments: str) -> dict[str, Any]:
    """Return what `given_settings` finds in a command line."""

    @click.command()
    @training_options
    @click.pass_context
    def command(context: click.Context, **_: Any) -> dict[str, Any]:
        return given_settings(context)

    found: dict[str, Any] = command.main(list(arguments), standalone_mode=False)
    return found


# --- bounds ---


def outside() -> list[tuple[str, Any, str]]:
    """Return a value just outside of each bound that a setting declares, and the words that must
    name the bound.
    """
    cases: list[tuple[str, Any, str]] = []
    for name, known in settings().items():
        whole = (
            fields.base_types(TrainConfig)[name] is int
            or fields.base_types(TrainConfig)[name] is tuple
        )
        step = 1 if whole else 1e-6

        def case(value: float, words: str, name: str = name) -> None:
            cases.append(
                (name, (value,) if fields.base_types(TrainConfig)[name] is tuple else value, words)
            )

        if known.minimum is not None:
            case(known.minimum - step, f"must be at least {known.minimum:g}")
        if known.maximum is not None:
            case(known.maximum + step, f"must be at most {known.maximum:g}")
        if known.above is not None:
            case(known.above, f"must be above {known.above:g}")
        if known.choices:
            cases.append((name, "neither", f"must be one of {', '.join(known.choices)}"))
    return cases


@pytest.mark.parametrize(("name", "value", "words"), outside(), ids=lambda value: str(value)[:30])
def test_every_bound_is_kept_and_named_with_its_option(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{flag_of(name)} {words}, got ")
    assert "\n" not in message


def test_the_bounds_are_many_and_the_named_ones_are_there() -> None:
    bounded = {name for name, *_ in outside()}
    assert {
        "image_size",
        "batch_size",
        "l1_weight",
        "lr",
        "steps",
        "epochs",
        "time_limit",
        "seed",
    } <= bounded
    assert settings()["image_size"].minimum == 32


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name", [name for name, kind in fields.base_types(TrainConfig).items() if kind is float]
)
def test_a_number_must_be_finite(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{flag_of(name)} must be"):
        TrainConfig(**{name: value})


NO_GAN: dict[str, Any] = {
    "objective": "regression",
    "adversarial_weight": 0.0,
    "perceptual_weight": 0.0,
}
AB: dict[str, Any] = {"head": "ab", "hints": 0.0}
FUSION: dict[str, Any] = {"network": "portrait", **NO_GAN, **AB}
UNITS: dict[str, Any] = {"discriminator": "units", "perceptual_weight": 0.0}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({**UNITS, "discriminator_units": ()}, "--discriminator-units must name at least one"),
        ({"discriminator_units": ()}, "--discriminator-units must name at least one"),
        ({"discriminator_size": 31}, "--discriminator-size must be 0 or at least 32"),
        ({"image_size": 32, "batch_size": 1}, "--batch-size must be at least 2"),
        ({**NO_GAN, "l1_weight": 0.0}, "--lambda must be above 0"),
        ({"adversarial_weight": 0.0, "l1_weight": 0.0}, "--lambda must be above 0"),
        ({"loss": "mse", "l1_space": "rgb"}, "--l1-space must be ab with --loss mse"),
        ({"color_scale": "unit"}, "--color-scale must be ab110 with --network unet"),
        ({"smooth_decoder": True}, "--smooth-decoder must be off with --network unet"),
        ({"network": "face", **AB}, "--objective must be regression with --network face"),
        ({**FUSION, "condition": "edges"}, "--condition must be gray with --network portrait"),
        (
            {**FUSION, "train_backbone": True},
            "--train-backbone must be off with --network portrait",
        ),
        ({**FUSION, "l1_space": "rgb"}, "--l1-space must be ab with --network portrait"),
        (
            {"condition": "edges", "old_photos": 0.25},
            "--old-photos must be 0 with --condition edges, got 0.25",
        ),
        ({**FUSION, "old_photos": 0.5}, "--old-photos must be 0 with --network portrait, got 0.5"),
        ({**FUSION, "head": "bins"}, "--head must be ab with --network portrait, got bins"),
        ({**FUSION, "hints": 0.5}, "--hints must be 0 with --network portrait, got 0.5"),
        ({**FUSION, "init": "7"}, "--init must be None with --network portrait, got 7"),
        (
            {**FUSION, "backbone": "efficientnet-lite0"},
            "--backbone must be vgg16 with --network portrait",
        ),
        (
            {**FUSION, "perceptual_weight": 1.0},
            "--perceptual must be 0 with --network portrait, got 1",
        ),
        ({"head": "ab", "temperature": 0.5}, "--temperature must be 0.38 with --head ab, got 0.5"),
        ({"head": "ab", "bins_weight": 0.5}, "--bins-weight must be 7 with --head ab, got 0.5"),
        ({"head": "ab", "rebalance": 0.1}, "--rebalance must be 0.5 with --head ab, got 0.1"),
        (
            {"encoder_weights": "none"},
            "--encoder-weights must be imagenet with --backbone vgg16, got none",
        ),
        (
            {"objective": "regression"},
            "--adversarial-weight must be 0 with --objective regression, got 7",
        ),
        ({**NO_GAN, "r1": 0.1}, "--r1 must be 0 with --objective regression, got 0.1"),
        (
            {**NO_GAN, "discriminator_augment": False},
            "--discriminator-augment must be on with --objective regression",
        ),
        ({**UNITS, "r1": 0.1}, "--r1 must be 0 with --discriminator units, got 0.1"),
        (
            {**UNITS, "perceptual_weight": 0.1},
            "--perceptual must be 0 with --discriminator units, got 0.1",
        ),
        (
            {**UNITS, "discriminator_augment": False},
            "--discriminator-augment must be on with --discriminator units",
        ),
        (
            {"discriminator_units": (8, 4)},
            "--discriminator-units must be 512,256,128 with --discriminator patches",
        ),
        (
            {"discriminator_taps": "last"},
            "--discriminator-taps must be all with --discriminator patches, got last",
        ),
        ({"dropout": 0.1}, "--dropout must be 0.5 with --discriminator patches, got 0.1"),
        (
            {"warmup": 0.6, "discriminator_warmup": 0.4},
            "--warmup and --discriminator-warmup must be below 1 together",
        ),
        (
            {"frozen_blocks": 1, "levels": 1},
            "--levels must be at least 2 with --head bins and --frozen-blocks 1",
        ),
        ({**FUSION, "levels": 3}, "--levels must be 1 with --network portrait, got 3"),
        ({**FUSION, "dropout": 0.9}, "--dropout must be 0.5 with --network portrait, got 0.9"),
        ({"embedding": "vgg19"}, "--embedding must be vgg16 with --network unet, got vgg19"),
        ({"embedding_fit": "white"}, "--embedding-fit must be crop with --network unet"),
        ({"framing": "center", "zoom": 0.1}, "--zoom must be 0.5 with --framing center, got 0.1"),
        ({"device": "tpu"}, "--device must be auto, cpu, cuda"),
        ({"device": "cuda:x"}, "--device must be auto, cpu, cuda"),
        ({"name": "a/b"}, "--name must be letters"),
        ({"name": ""}, "--name must be letters"),
        ({"name": "two words"}, "--name must be letters"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"discriminator_size": 0},
        {"discriminator_size": 32},
        {**NO_GAN, "discriminator_units": ()},
        {**NO_GAN, "perceptual_weight": 1.0},
        {**NO_GAN, "warmup": 1.0},
        {**UNITS, "discriminator_units": (8, 4), "discriminator_taps": "last", "dropout": 0.0},
        {"warmup": 0.9, "discriminator_warmup": 0.09, "ramp": 1.0},
        {"warmup": 0.0, "discriminator_warmup": 0.0, "ramp": 0.0},
        {"hints": 0.0, "bins_weight": 0.0, "rebalance": 1.0, "temperature": 2.0},
        {"frozen_blocks": 1, "levels": 2},
        {"frozen_blocks": 1, "levels": 0, **AB},
        {"r1": 1.0, "discriminator_augment": False, "adversarial_loss": "relativistic"},
        {"backbone": "efficientnet-lite0", "encoder_weights": "none"},
        {"init": "7", "lr_warmup": 0.5},
        {**FUSION, "network": "face", "dropout": 0.1},
        {"image_size": 64, "batch_size": 1},
        {"image_size": 32, "batch_size": 1, "levels": 0},
        {"device": "cuda:1"},
        {"name": "a.b_c+d-1"},
        {"l1_weight": 0.0},
        {
            **FUSION,
            "smooth_decoder": True,
            "color_scale": "unit",
            "image_size": 32,
            "batch_size": 1,
        },
        {"loss": "mse", "condition": "edges"},
        {"old_photos": 1.0},
    ],
)
def test_settings_at_the_edge_are_accepted(values: dict[str, Any]) -> None:
    config = TrainConfig(**values)
    assert all(getattr(config, name) == value for name, value in values.items())


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0  # type: ignore[misc]


def test_edges_need_a_channel_more() -> None:
    assert TrainConfig().out_channels == 2
    assert TrainConfig(condition="edges").out_channels == 3


# --- times ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("20m", 1200),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("2d", 172800),
        (" 20M ", 1200),
        ("0.5", 0.5),
        ("1m0.5s", 60.5),
    ],
)
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "20x", "-5m", "20 minutes", "1:30", "1e3", "nan", "inf", "5m 3", "m20", "."]
)
def test_a_wrong_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="a time must look like 90s, 20m or 1.5h, got"):
        parse_duration(text)


# --- JSON ---


def test_settings_survive_json() -> None:
    config = TrainConfig(
        lr=3e-5,
        discriminator="units",
        perceptual_weight=0.0,
        discriminator_units=(8, 4),
        time_limit=12.5,
        name="x",
        steps=7,
        flip=False,
    )
    through = TrainConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert through == config
    assert through.discriminator_units == (8, 4)
    assert set(config.to_json()) == set(FIELDS)


def test_settings_of_another_version_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown attention, zeal"):
        TrainConfig.from_json({**TrainConfig().to_json(), "zeal": 1, "attention": True})


def test_settings_of_a_run_from_before_an_option_that_changes_no_result_are_read() -> None:
    values = TrainConfig().to_json()
    del values["cache"]
    assert TrainConfig.from_json(values) == TrainConfig()
    del values["zoom"]
    with pytest.raises(ConfigError, match="got none for zoom;"):
        TrainConfig.from_json(values)


def test_what_did_nothing_may_have_had_another_default() -> None:
    config = presets.build("regression")
    assert (
        TrainConfig.restore({**config.to_json(), "bins_weight": 1.0, "temperature": 0.5}) == config
    )
    with pytest.raises(
        ConfigError, match="--adversarial-weight must be 0 with --objective regression, got 3"
    ):
        TrainConfig.restore({**config.to_json(), "adversarial_weight": 3.0})


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({5: 6}, "got unknown 5;"),
        ({None: 2, b"x": 3}, "got unknown None, b'x';"),
        ({"k" * 10**6: 1}, r"got unknown k{80}\.\.\.;"),
        ({"network": ["unet"]}, r"--network must be str, got \('unet',\)"),
        ({"framing": _nested(100_000)}, "--framing must be str, got a tuple"),
        (
            {"dropout": {"a": 1}},
            "--dropout must be float, got {'a': 1}",
        ),  # which does nothing beside the others
        ({"discriminator_units": "x"}, "--discriminator-units must be several numbers, got 'x'"),
        ({"framing": "x" * 10**6}, r"stretch, got x{80}\.\.\.$"),
        ({"device": "x" * 10**6}, r"or mps, got x{80}\.\.\.$"),
    ],
    ids=["number", "bytes", "long name", "list", "deep", "table", "text", "long", "long device"],
)
def test_settings_made_by_hand_are_one_short_line(changes: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.restore({**TrainConfig().to_json(), **changes})


def test_what_does_nothing_is_refused_when_a_run_is_resumed_too() -> None:
    with pytest.raises(ConfigError, match="--bins-weight must be 7 with --head ab, got 3"):
        rundir.merge_settings(presets.build("regression"), {"bins_weight": 3.0})


def test_settings_from_json_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="--batch-size must be at least 1"):
        TrainConfig.from_json({**TrainConfig().to_json(), "batch_size": 0})


# --- options ---


def test_every_setting_has_help_and_one_option() -> None:
    flags = [flag_of(name) for name in FIELDS]
    assert len(set(flags)) == len(flags)
    assert flag_of("l1_weight") == "--lambda"
    for name, known in settings().items():
        assert known.help.endswith((".", ")")), name


def sample_value(name: str) -> tuple[list[str], Any]:
    """Return an option with a value that is not the default, as typed, and what it must become."""
    known, kind, default = (
        settings()[name],
        fields.base_types(TrainConfig)[name],
        FIELDS[name].default,
    )
    flag = flag_of(name)
    if name == "preset":
        return [flag, "poster"], "poster"
    if name == "time_limit":
        return [flag, "20m"], 1200.0
    if kind is bool:
        return ([f"--no-{flag[2:]}"], False) if default else ([flag], True)
    if kind is tuple:
        return [flag, "7,5"], (7, 5)
    if known.choices:
        other = next(choice for choice in known.choices if choice != default)
        return [flag, other], other
    if kind is str:
        return [flag, "other"], "other"
    value = 40 if kind is int else 0.25
    return [flag, str(value)], (value,) if known.sweep else value


@pytest.mark.parametrize("name", FIELDS)
def test_each_option_sets_its_own_setting_and_no_other(name: str) -> None:
    typed, expected = sample_value(name)
    assert parse(*typed) == {name: expected}


def test_nothing_typed_gives_nothing() -> None:
    assert parse() == {}


def test_a_default_that_is_typed_counts_as_given() -> None:
    assert parse("--batch-size", "8", "--flip") == {"batch_size": 8, "flip": True}


def test_exactly_the_swept_options_can_be_repeated() -> None:
    assert {name for name, known in settings().items() if known.sweep} == {
        "lr",
        "beta1",
        "l1_weight",
    }
    assert parse("--lr", "1e-3", "--lr", "1e-4")["lr"] == (1e-3, 1e-4)
    assert parse("--seed", "1", "--seed", "2")["seed"] == 2


@pytest.mark.parametrize(
    "typed", [["--discriminator-units", "a,b"], ["--discriminator-units", "8,,4"]]
)
def test_units_that_are_no_numbers_are_refused(typed: list[str]) -> None:
    with pytest.raises(click.BadParameter, match="whole numbers separated by commas"):
        parse(*typed)


def test_only_what_cannot_change_the_result_is_changeable() -> None:
    changeable = {name for name, known in settings().items() if known.changeable}
    assert changeable == {
        *("steps", "epochs", "time_limit", "timeout"),
        *("checkpoint_every", "validate_every", "log_every"),
        *("device", "workers", "datasets_root", "embedding_cache", "cache"),
        "dataset",  # its place; other pictures are refused
    }
