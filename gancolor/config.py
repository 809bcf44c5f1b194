"""The settings of a training run: each declared once, with its default, its help and its bounds.

The command line derives its options from these fields, `config.json` holds them, and a checkpoint
carries them.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gancolor import fields
from gancolor.errors import ConfigError
from gancolor.fields import Setting, setting

DEVICE_NAMES = r"auto|cpu|mps|(cuda|xpu)(:\d+)?"
DEVICES = "auto, cpu, cuda, cuda:N, xpu, xpu:N or mps"
_JUDGED = 96  # pixels: up to this side the discriminator with patches sees pictures as they are
_NAMED = 8  # settings in a message
FUSION_NETWORKS = ("koalarization", "face", "portrait")
EMBEDDINGS = ("vgg16", "vgg19", "vggface", "inception-resnet-v2")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a training run computes. The defaults are the preset `gan`."""

    preset: str = setting(
        "gan", "Named settings to start from; each option that is given overrides them."
    )
    name: str | None = setting(
        None, "What the run directory is called after its number (default: preset and dataset)."
    )

    dataset: str = setting(
        "still-life",
        "What to train on: the name of a set (see gancolor data list), a folder of pictures, or"
        " shards by a pattern, folder or address.",
        changeable=True,  # the place, not the pictures: see `training.run`
    )
    datasets_root: str | None = setting(
        None,
        "Folder of the named sets (default: $GANCOLOR_DATASETS, else ./datasets).",
        changeable=True,
    )
    image_size: int = setting(
        256, "Side, in pixels, of the squares that are trained on.", minimum=32, maximum=2048
    )
    condition: str = setting(
        "gray",
        "What the generator sees of a picture: its grays, or its outlines only.",
        choices=("gray", "edges"),
    )
    framing: str = setting(
        "random",
        "How a picture becomes a square: by a random crop, by its centre, with white bars"
        " beside it, or stretched. Or mixed: by random crops of another size and aspect at each"
        " step, with 0.6 to 1.6 times the square's pixels.",
        choices=("random", "mixed", "center", "white", "stretch"),
    )
    zoom: float = setting(
        0.5, "The smallest share of a picture's area that a random crop keeps.", above=0, maximum=1
    )
    flip: bool = setting(True, "Mirror half of the training pictures left to right.")
    old_photos: float = setting(
        0.0,
        "Share of the training pictures that the network sees faded, grainy and scratched, as"
        " old photographs are.",
        minimum=0,
        maximum=1,
    )
    cache: str = setting(
        "none",
        "Where decoded pictures are kept for the next epoch: in memory, on disk"
        " ($GANCOLOR_CACHE) for later runs too, or nowhere. Pictures of shards cannot be kept.",
        choices=("ram", "disk", "none"),
        changeable=True,
    )
    val_pictures: int = setting(
        100, "How many held-out pictures each validation measures, at most.", minimum=1
    )

    objective: str = setting(
        "adversarial",
        "What is trained: the generator against a discriminator, or the generator alone, by its"
        " distance to the true colours.",
        choices=("adversarial", "regression"),
    )
    network: str = setting(
        "unet",
        "The generator: a U-Net on a frozen backbone, or the fusion network of one of the papers.",
        choices=("unet", *FUSION_NETWORKS),
    )
    embedding: str = setting(
        "vgg16",
        "The frozen network that describes the whole picture to a fusion network.",
        choices=EMBEDDINGS,
    )
    embedding_output: str = setting(
        "scores",
        "What a fusion network gets of its embedding: the class scores, or their softmax.",
        choices=("scores", "softmax"),
    )
    embedding_fit: str = setting(
        "crop",
        "How a fusion network's embedding sees a picture that is to be coloured and is not"
        " square: with white bars, reflected at its border, or only its centre. (In training,"
        " --framing has made it square.)",
        choices=("white", "reflect", "crop"),
    )
    embedding_cache: bool = setting(
        True,
        "Keep a fusion network's embeddings on disk ($GANCOLOR_CACHE), unless pictures are"
        " cropped at random.",
        changeable=True,
    )
    smooth_decoder: bool = setting(
        False,
        "Enlarge a fusion network's colours smoothly, instead of in the papers' blocks of 2x2"
        " pixels.",
    )
    color_scale: str = setting(
        "ab110",
        "Units of lightness and colour inside a fusion network: a*b* / 110, a*b* / 127"
        " (koalarization), or [0, 1] (face).",
        choices=("ab110", "ab127", "unit"),
    )
    backbone: str = setting(
        "vgg16",
        "The U-Net's encoder. The discriminator and the perceptual loss look through VGG16 in"
        " any case.",
        choices=("vgg16", "efficientnet-lite0"),
    )
    frozen_blocks: int = setting(
        5,
        "Number of blocks of the backbone that the U-Net begins with; they stay as they are"
        " unless --train-backbone is given.",
        minimum=1,
        maximum=5,
    )
    levels: int = setting(
        1,
        "Number of trainable levels below the backbone's blocks, each at half the size of the"
        " one above.",
        minimum=0,
        maximum=4,
    )
    width: int = setting(
        24,
        "Channels of the U-Net's decoder at full size; each level below has twice as many, at"
        " most 256.",
        minimum=1,
    )
    head: str = setting(
        "bins",
        "What the U-Net predicts at each place: how probable each of a table of colours (a bin"
        " of a*b*) is, or one colour (a*b*).",
        choices=("bins", "ab"),
    )
    temperature: float = setting(
        0.38,
        "How --head bins makes one colour of the probabilities: near 0 it is the most probable"
        " one, at 1 the mean of all.",
        above=0,
        maximum=2,
    )
    saturation: float = setting(
        1.0,
        "Factor by which the trained network's colours are multiplied; above 1 if it is too pale.",
        minimum=0.5,
        maximum=2,
    )
    bins_weight: float = setting(7.0, "Weight of the cross-entropy of --head bins.", minimum=0)
    rebalance: float = setting(
        0.5,
        "How evenly that cross-entropy weighs the colours: at 0 a colour weighs more the rarer"
        " it is, at 1 all weigh the same. It rises by itself if the pictures are pale.",
        minimum=0,
        maximum=1,
    )
    hints: float = setting(
        0.6,
        "Share of the training pictures for which the network is told the true colours of some"
        " points, so that it can be told known colours later (0: never).",
        minimum=0,
        maximum=0.6,
    )
    backbone_weights: str = setting(
        "imagenet",
        "Weights of VGG16, or of a fusion network's embedding: imagenet (downloaded once), none"
        " (random), or the path of a file.",
    )
    encoder_weights: str = setting(
        "imagenet",
        "Weights of a --backbone other than VGG16: imagenet (downloaded once), none (random),"
        " or the path of a file.",
    )
    train_backbone: bool = setting(False, "Train the blocks of the backbone too.")
    train_norm: bool = setting(
        True,
        "Let BatchNorm measure the training pictures. Without it, the network keeps what it"
        " measured on the pictures of --init, of which a few new ones would be a poor sample.",
    )
    init: str | None = setting(
        None,
        "Fine-tuning: the model whose weights the training starts from, with fresh optimizers."
        " It is a run by path, name or number, a checkpoint file, general, hf://owner/name or"
        " https://...",
    )

    discriminator: str = setting(
        "patches",
        "What tells real pictures from coloured ones: maps of verdicts on patches, made from"
        " several layers of VGG16 and the colours, or the poster's fully connected units, which"
        " judge the whole picture by VGG16's last layer.",
        choices=("patches", "units"),
    )
    discriminator_size: int = setting(
        0,
        "Side, in pixels, at which the discriminator sees the squares. 0 is full size for"
        " units; for patches it is at most 96, or three eighths of a side above 256.",
        minimum=0,
        maximum=2048,
    )
    discriminator_taps: str = setting(
        "all",
        "What the discriminator's units see of VGG16: its last layer, as in the paper, or the"
        " means of several layers too.",
        choices=("last", "all"),
    )
    discriminator_units: tuple[int, ...] = setting(
        (512, 256, 128),
        "Widths of the discriminator's fully connected units, separated by commas.",
        minimum=1,
    )
    discriminator_augment: bool = setting(
        True,
        "Shift pictures, and cut a piece out of them, before a discriminator with patches sees"
        " them.",
    )
    dropout: float = setting(
        0.5,
        "Dropout in the discriminator's units, or in the wide layers of the network face.",
        minimum=0,
        maximum=0.95,
    )

    loss: str = setting(
        "l1",
        "How the distance to the true colours is measured: mean absolute (l1) or mean squared"
        " (mse) difference.",
        choices=("l1", "mse"),
    )
    l1_weight: float = setting(
        100.0,
        "Weight λ of the distance to the true colours.",
        minimum=0,
        flag="--lambda",
        sweep=True,
    )
    l1_space: str = setting(
        "ab",
        "Where that distance is measured: in RGB from -1 to 1, as in the paper, or in a*b* in"
        " the network's units.",
        choices=("rgb", "ab"),
    )
    perceptual_weight: float = setting(
        25.0,
        "Weight of the perceptual loss: how far the coloured picture is from the true one in"
        " VGG16's layers.",
        minimum=0,
        flag="--perceptual",
    )
    adversarial_loss: str = setting(
        "non-saturating",
        "How the discriminator's verdicts become a loss: the paper's way, with a margin"
        " (hinge), or each real picture against a coloured one (relativistic).",
        choices=("non-saturating", "hinge", "relativistic"),
    )
    adversarial_weight: float = setting(
        7.0, "Weight of the adversarial term in the generator's loss.", minimum=0
    )
    r1: float = setting(
        0.0,
        "Weight of the penalty on the discriminator's gradient at real pictures, every 16 steps"
        " (0: none).",
        minimum=0,
    )
    lr: float = setting(1e-3, "Adam's learning rate.", above=0, maximum=1, sweep=True)
    discriminator_lr: float = setting(
        5e-4, "The discriminator's learning rate (0: that of the generator).", minimum=0, maximum=1
    )
    lr_schedule: str = setting(
        "cosine",
        "How learning rates change over the run: they fall along half a cosine, or stay constant.",
        choices=("cosine", "constant"),
    )
    lr_warmup: float = setting(
        0.02,
        "Share of the run in which learning rates rise to their full value.",
        minimum=0,
        maximum=0.5,
    )
    beta1: float = setting(
        0.5,
        "Adam's first beta, for the mean of the gradients.",
        minimum=0,
        maximum=0.999,
        sweep=True,
    )
    beta2: float = setting(
        0.999, "Adam's second beta, for the mean of their squares.", minimum=0, maximum=0.99999
    )
    ema: float = setting(
        0.998,
        "Decay of the running average of the generator's weights, which is validated and kept"
        " (0: no average).",
        minimum=0,
        maximum=0.99999,
    )
    warmup: float = setting(
        0.3,
        "Share of the run, at its beginning, in which the generator trains alone.",
        minimum=0,
        maximum=1,
    )
    discriminator_warmup: float = setting(
        0.02,
        "Share of the run, after --warmup, in which the discriminator trains alone.",
        minimum=0,
        maximum=1,
    )
    ramp: float = setting(
        0.1,
        "Share of the run, after both warm-ups, in which the adversarial weight rises to its"
        " full value.",
        minimum=0,
        maximum=1,
    )
    label_smoothing: float = setting(
        0.0,
        "How far the discriminator's label of real pictures lies below 1 (one-sided label"
        " smoothing).",
        minimum=0,
        maximum=0.5,
    )
    instance_noise: float = setting(
        0.0,
        "Standard deviation of the noise that is added to what the discriminator sees.",
        minimum=0,
        maximum=1,
    )
    instance_noise_decay: float = setting(
        0.5,
        "Share of the run, after --warmup, in which --instance-noise falls to zero.",
        above=0,
        maximum=1,
    )
    clip: float = setting(
        0.0,
        "Largest norm of the gradient; a larger one is scaled down to it (0: never).",
        minimum=0,
    )
    rescue: bool = setting(
        True,
        "Halve the discriminator's learning rate when it tells real and coloured pictures apart"
        " so well that the generator cannot learn from it.",
    )

    batch_size: int = setting(8, "Pictures in a step, of all processes together.", minimum=1)
    steps: int | None = setting(None, "Stop after this many steps.", minimum=1, changeable=True)
    epochs: float | None = setting(
        None,
        "Stop after this many passes over the pictures. A run without any end makes 20.",
        above=0,
        changeable=True,
    )
    time_limit: float | None = setting(
        None,
        "Stop after this time with a checkpoint; for example 90s, 20m or 1.5h.",
        above=0,
        changeable=True,
    )
    seed: int = setting(0, "Seed of everything random.", minimum=0, maximum=2**32 - 1)
    device: str = setting("auto", f"Where to compute: {DEVICES}.", changeable=True)
    timeout: float = setting(
        600.0,
        "Under torchrun, how long the processes wait for one that does not answer before the"
        " training ends.",
        above=0,
        changeable=True,
    )
    workers: int | None = setting(
        None,
        "Processes that read pictures (default: one per core, at most 4, beside a GPU 16).",
        minimum=0,
        changeable=True,
    )
    precision: str = setting(
        "auto",
        "Number format of the networks. auto is bf16 where the hardware computes in it.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    checkpoint_every: int = setting(200, "Steps between checkpoints.", minimum=1, changeable=True)
    validate_every: int = setting(500, "Steps between validations.", minimum=1, changeable=True)
    log_every: int = setting(20, "Steps between log lines.", minimum=1, changeable=True)

    def __post_init__(self) -> None:
        fields.check(self)
        _check_together(self)

    @property
    def judged_size(self) -> int:
        """Side at which the discriminator sees pictures."""
        whole = self.image_size
        if self.discriminator == "patches":
            whole = min(whole, max(_JUDGED, whole * 3 // 8))
        return self.discriminator_size or whole

    @property
    def out_channels(self) -> int:
        """Channels that the generator predicts: ab, with lightness before it when it sees edges
        only.
        """
        return 3 if self.condition == "edges" else 2

    @property
    def takes_embedding(self) -> bool:
        """Whether the generator is a fusion network, which is told of the whole picture by an
        embedding; else it is a U-Net.
        """
        return self.network in FUSION_NETWORKS

    @property
    def says_distribution(self) -> bool:
        """Whether the generator says how likely each colour is, not one colour alone."""
        return self.head == "bins" and not self.takes_embedding

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """Settings from `to_json`'s values; ConfigError names keys of another version."""
        return cls(**_whole(values))

    @classmethod
    def restore(cls, values: dict[str, Any]) -> TrainConfig:
        """Settings as a file kept them, by `from_json`; those that do nothing beside the others
        become today's default.

        It may have been another when they were written.
        """
        kept = _whole(values)
        fields.check_values(cls, kept)
        defaults = {item.name: item.default for item in dataclasses.fields(cls)}
        rules = _idle(SimpleNamespace(**defaults | kept))
        idle = {
            name: value
            for name, (_, value) in rules.items()
            if name in kept and value == defaults[name]
        }
        return cls(**{**kept, **idle})


CROPPING = ("random", "mixed")
"""The framings that make another picture of the same one at each pass."""

LEAST_SIDE = 32
"""Pixels of a side of the pictures that are trained on, at least: what five halvings leave one of."""

NETWORK_SETTINGS = (
    "network",
    "condition",
    "backbone",
    "frozen_blocks",
    "levels",
    "width",
    "head",
    "hints",
)
"""What shapes a generator: a run that starts from another's (`init`) has these in common with it.
"""


ADDED_SETTINGS = {"saturation": 1.0, "train_norm": True}
"""Settings that files of an earlier version do not have, and what they did without them."""


def _whole(values: dict[str, Any]) -> dict[str, Any]:
    """`to_json`'s values as fields take them, with `ADDED_SETTINGS` where they are missing.
    ConfigError unless all others are there, and nothing else.
    """
    values = ADDED_SETTINGS | values
    known = {item.name for item in dataclasses.fields(TrainConfig)}
    if unknown := sorted(map(str, values.keys() - known)):
        raise ConfigError(
            f"settings must be of this version, got unknown {_few(unknown)}; use the version that"
            " wrote them"
        )
    settled = {name for name, known_setting in settings().items() if not known_setting.changeable}
    if missing := sorted(settled - set(values)):
        raise ConfigError(
            f"settings must be of this version, got none for {_few(missing)}; use the version that"
            " wrote them"
        )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _few(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(map(fields.shorten, names[:_NAMED])) + (
        f" and {more} more" if more > 0 else ""
    )


def settings() -> dict[str, Setting]:
    """Every field's `Setting` by name."""
    return fields.declared(TrainConfig)


def flag_of(name: str) -> str:
    """The command line option of a field, for example `l1_weight` -> `--lambda`."""
    return fields.flag_of(TrainConfig, name)


def parse_duration(text: str) -> float:
    """Seconds from '90', '90s', '20m', '1.5h' or '1h30m'. ConfigError otherwise."""
    total, rest = 0.0, text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", rest):
        return float(rest)
    if not re.fullmatch(r"(\d+(\.\d+)?[dhms])+", rest):
        raise ConfigError(f"a time must look like 90s, 20m or 1.5h, got {text!r}")
    for number, unit in re.findall(r"(\d+(?:\.\d+)?)([dhms])", rest):
        total += float(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit]
    return total


def _check_together(config: TrainConfig) -> None:
    if config.objective == "adversarial":
        if not config.discriminator_units:
            raise ConfigError("--discriminator-units must name at least one width, got none")
        if (share := config.warmup + config.discriminator_warmup) >= 1:
            raise ConfigError(
                f"--warmup and --discriminator-warmup must be below 1 together, got {share:g}"
            )
        if config.discriminator_size and config.discriminator_size < 32:
            raise ConfigError(
                f"--discriminator-size must be 0 or at least 32, got {config.discriminator_size}"
            )
    if config.condition == "edges" and config.old_photos:
        raise ConfigError(
            f"--old-photos must be 0 with --condition edges, got {config.old_photos:g}"
        )
    if not config.train_norm and config.init is None:
        raise ConfigError(
            "--no-train-norm must be used with --init, whose network it keeps a part of, got none"
        )
    if config.framing == "mixed" and config.network in FUSION_NETWORKS:
        raise ConfigError(
            f"--framing must be another with --network {config.network}, whose embedding sees"
            " squares, got mixed"
        )
    _check_network(config)
    side = LEAST_SIDE if config.framing == "mixed" else config.image_size
    bottom = -(-side // 2 ** _halvings(config))
    if not config.takes_embedding and config.batch_size * bottom**2 < 2:
        raise ConfigError(
            "--batch-size must be at least 2 when the lowest level is one pixel (BatchNorm needs"
            " two values), got 1"
        )
    if config.l1_weight == 0 and (
        config.objective == "regression" or config.adversarial_weight == 0
    ):
        raise ConfigError("--lambda must be above 0 when there is no adversarial term, got 0")
    if config.loss == "mse" and config.l1_space != "ab":
        raise ConfigError(f"--l1-space must be ab with --loss mse, got {config.l1_space}")
    if not re.fullmatch(DEVICE_NAMES, config.device):
        raise ConfigError(f"--device must be {DEVICES}, got {fields.shorten(config.device)}")
    if config.name is not None and (
        not re.fullmatch(r"[\w.+-]+", config.name) or Path(config.name).name != config.name
    ):
        raise ConfigError(
            "--name must be letters, digits, '.', '_', '+' or '-', got"
            f" {fields.shorten(repr(config.name))}"
        )


def _halvings(config: TrainConfig) -> int:
    """How often the U-Net halves a picture; VGG16's first tap is at full size."""
    return config.frozen_blocks + config.levels - (config.backbone == "vgg16")


_UNET_ONLY: dict[str, Any] = {
    "backbone": "vgg16",
    "frozen_blocks": 5,
    "levels": 1,
    "width": 24,
    "head": "ab",
    "hints": 0.0,
    "train_backbone": False,
    "init": None,
    "old_photos": 0.0,
}
_FUSION_ONLY = ("embedding", "embedding_output", "embedding_fit", "smooth_decoder", "color_scale")


def _idle(config: Any) -> dict[str, tuple[str, Any]]:
    """What does nothing, or cannot be followed, with the other settings: name -> (with what, the
    value it must have).

    `config`: anything that has the settings as attributes.
    """
    defaults = {item.name: item.default for item in dataclasses.fields(TrainConfig)}
    found: dict[str, tuple[str, Any]] = {}

    def must(why: str, *names: str, **values: Any) -> None:
        wanted = {name: defaults[name] for name in names} | values
        found.update({name: (why, value) for name, value in wanted.items()})

    if config.framing not in CROPPING:
        must(f"--framing {config.framing}", "zoom")
    if config.network in FUSION_NETWORKS:
        network = f"--network {config.network}"
        must(
            network,
            objective="regression",
            condition="gray",
            l1_space="ab",
            perceptual_weight=0,
            **_UNET_ONLY,
        )
        if config.network != "face":
            must(network, "dropout")
        return found
    must("--network unet", *_FUSION_ONLY)
    if config.head == "ab":
        must("--head ab", "temperature", "bins_weight", "rebalance")
    if config.backbone == "vgg16":
        must("--backbone vgg16", "encoder_weights")
    if config.objective == "regression":
        must("--objective regression", "discriminator_augment", adversarial_weight=0, r1=0)
    elif config.discriminator == "units":
        must("--discriminator units", "discriminator_augment", perceptual_weight=0, r1=0)
    else:
        must("--discriminator patches", "discriminator_units", "discriminator_taps", "dropout")
    return found


def _check_network(config: TrainConfig) -> None:
    """Options that would do nothing are refused, and those that a network cannot follow."""
    for name, (why, value) in _idle(config).items():
        if (given := getattr(config, name)) != value:
            raise ConfigError(
                f"{flag_of(name)} must be {_words(value)} with {why}, got {_words(given)}"
            )
    if config.says_distribution and (missing := 2 - _halvings(config)) > 0:
        raise ConfigError(
            f"--levels must be at least {config.levels + missing} with --head bins and"
            f" --frozen-blocks {config.frozen_blocks} (colours are said at a quarter of the size),"
            f" got {config.levels}"
        )


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
