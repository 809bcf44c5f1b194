"""The five papers as data: their rows, what they say of their conditions, the figures they report,
and where they contradict themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gancolor import presets
from gancolor.config import TrainConfig
from gancolor.errors import ConfigError

ANY = ""  # a data set's name: the figures stand beside ours on whatever pictures


class PaperColumn(NamedTuple):
    """A figure: its key in table.csv and table.jsonl (the paper's has "_paper" after it) and where
    ours comes from.

    `source`: a key of log.jsonl (its mean over the last tenth of the steps) when `logged`, else one
    of the evaluation.
    """

    key: str
    title: str
    source: str
    logged: bool = False


class PaperPictures(NamedTuple):
    """What a paper trained and measured on; None where it does not say how many."""

    what: str
    train: int | None = None
    test: int | None = None


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One training: a preset, what the row changes in it, and the paper's figures by data set and
    column.
    """

    name: str
    preset: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    reported: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    weights: str = "ImageNet"  # what the frozen network was trained on
    embedding_width: int | None = None  # as the paper counts it

    def config(self, **overrides: Any) -> TrainConfig:
        """The preset with the row's settings and `overrides`."""
        return presets.build(self.preset, **{**self.settings, **overrides})

    def figures(self, dataset: str) -> Mapping[str, float]:
        """The paper's figures for our data set of that name; empty where it has none."""
        return self.reported.get(dataset, self.reported.get(ANY, {}))


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One paper. `datasets`: ours in place of its own; `swept`: settings that its rows decide;
    `stated`: settings that its text gives (the presets' others are our decisions); `truth`: figures
    of the original pictures.
    """

    title: str
    datasets: tuple[str, ...]
    pictures: Mapping[str, PaperPictures]
    rows: tuple[PaperRow, ...]
    columns: tuple[PaperColumn, ...]
    stated: frozenset[str]
    swept: tuple[str, ...] = ()
    length: str = "not said"
    epochs: float | None = None
    steps: int | None = None
    truth: Mapping[str, float] = field(default_factory=dict)
    contradictions: tuple[str, ...] = ()
    not_measurable: tuple[str, ...] = ()

    def pictures_for(self, dataset: str) -> PaperPictures:
        """What the paper used where we use `dataset`."""
        return self.pictures.get(dataset) or self.pictures[ANY]


_MEASURED = (
    PaperColumn("mse_rgb", "MSE", "mse_rgb"),
    PaperColumn("mae_rgb", "MAE", "mae_rgb"),
    PaperColumn("delta_colorfulness", "mean ΔM", "delta_colorfulness"),
    PaperColumn("colorfulness", "colorfulness", "colorfulness"),
)
_MORE = (
    *_MEASURED,
    PaperColumn("psnr", "PSNR", "psnr"),
    PaperColumn("ciede2000", "CIEDE2000", "ciede2000"),
)
_1001 = (
    "1001 outputs of {}: today's have 1000 (TensorFlow's model counts a background class); ours is"
    " the network's own"
)
_512 = (
    "the text says that the encoder ends with 512 channels, its table and the fused depth 1257 ="
    " 256 + 1001 say 256"
)
_FUSION_STATED = frozenset({"objective", "network", "embedding", "loss", "color_scale"})


def _poster_row(lr: str, beta1: str, natural: Sequence[float], food: Sequence[float]) -> PaperRow:
    keys = ("D_loss", "G_loss", "mae")
    return PaperRow(
        name=f"lr-{lr}-beta1-{beta1}",
        preset="poster",
        settings={"lr": float(lr), "beta1": float(beta1)},
        reported={
            "natural": dict(zip(keys, natural, strict=True)),
            "food": dict(zip(keys, food, strict=True)),
        },
    )


def _portrait_row(
    embedding: str, preset: str, width: int | None, weights: str, color: float, *rest: float
) -> PaperRow:
    keys = ("mse_rgb", "mae_rgb", "delta_colorfulness")
    figures = {"colorfulness": color, **dict(zip(keys, rest, strict=True))}
    return PaperRow(
        name=embedding,
        preset=preset,
        reported={ANY: figures},
        weights=weights,
        embedding_width=width,
    )


PAPERS: dict[str, Paper] = {
    "poster": Paper(
        title="Automatic image colorization: VGG16 in a GAN, non-saturating loss + λ·L1",
        datasets=("natural", "food"),
        pictures={
            "natural": PaperPictures("SuperParsing's urban and natural scenes", 2688),
            "food": PaperPictures("food from free-download sites", 1000),
            ANY: PaperPictures("natural scenes, people (PIPA) and food"),
        },
        rows=(
            _poster_row("2e-4", "0.5", (0.99, 19.70, 0.19), (1.14, 20.90, 0.70)),
            _poster_row("2e-3", "0.5", (0.69, 23.90, 0.22), (0.59, 26.50, 0.86)),
            _poster_row("2e-4", "0.05", (1.04, 20.30, 0.19), (1.18, 21.80, 0.66)),
            _poster_row("2e-4", "0.9", (1.01, 19.20, 0.18), (1.16, 21.60, 0.69)),
        ),
        swept=("lr", "beta1"),
        stated=frozenset(
            {
                "objective",
                "network",
                "image_size",
                "condition",
                "train_backbone",
                "lr",
                "beta1",
                "loss",
            }
        ),
        columns=(
            PaperColumn("D_loss", "D_loss", "D_loss", logged=True),
            PaperColumn("G_loss", "G_loss", "G_loss", logged=True),
            PaperColumn("mae_training", "MAE in training", "MAE", logged=True),
            PaperColumn("mae", "MAE held out", "mae_unit"),
        ),
        contradictions=(
            (
                "λ, the batch size, the training's length and the numbers of VGG16 blocks and"
                " levels are not in the text"
            ),
            (
                "whether its figures are of training or of held-out pictures is not said: both of"
                " ours are given"
            ),
        ),
    ),
    "koalarization": Paper(
        title="Deep Koalarization: CNNs and Inception-ResNet-v2",
        datasets=("natural",),
        pictures={ANY: PaperPictures("a subset of ImageNet, 10 % held out", 54000, 6000)},
        rows=(PaperRow(name="koalarization", preset="koalarization", embedding_width=1001),),
        stated=_FUSION_STATED
        | {"image_size", "framing", "embedding_fit", "embedding_output", "lr", "batch_size"},
        length="about 23 hours on a Tesla K80",
        columns=_MORE,
        contradictions=(_512, _1001.format("Inception-ResNet-v2")),
        not_measurable=(
            (
                "user study, 'Fake or real?': 45.87 % of the recoloured pictures were taken for"
                " real (41 people, 12 pictures, 9 of them recoloured and picked from the best"
                " results)"
            ),
        ),
    ),
    "face": Paper(
        title="Facial colorization with VGG16 features and dropout",
        datasets=("people",),
        pictures={ANY: PaperPictures("faces, 10 % held out", 630, 70)},
        rows=(PaperRow(name="face", preset="face", embedding_width=1001),),
        stated=_FUSION_STATED | {"batch_size"},
        length="about 10 hours on a Quadro M2000",
        columns=_MORE,
        contradictions=(
            _1001.format("VGG16"),
            (
                "about 700 pictures, but 'the training is very slow due to the adoption of a large"
                " database'"
            ),
            (
                "batch normalization is among its means in the introduction, but future work at the"
                " end: ours has none"
            ),
            "the dropout layers are 'in layers which have major nodes', their rates are not said",
        ),
        not_measurable=("'near-photorealistic for some of the images': it reports no figure",),
    ),
    "portrait": Paper(
        title="Grayscale portrait colorization with the VGG-Face descriptor (Tables V and VI)",
        datasets=("people",),
        pictures={ANY: PaperPictures("portraits of the Helen set", 2000, 799)},
        rows=(
            _portrait_row(
                "vggface",
                "portrait-vggface",
                2622,
                "2.6 million faces",
                25.10,
                368.57,
                11.88,
                -16.77,
            ),
            _portrait_row(
                "vgg19", "portrait-vgg19", None, "ImageNet", 28.89, 387.15, 12.71, -12.98
            ),
            _portrait_row(
                "inception-resnet-v2",
                "portrait-inception",
                None,
                "ImageNet",
                22.09,
                374.23,
                12.06,
                -19.78,
            ),
        ),
        swept=("embedding",),
        stated=_FUSION_STATED - {"color_scale"} | {"image_size", "embedding_output", "batch_size"},
        length="21 epochs of 40 steps, about an hour on a Tesla K80",
        epochs=21,
        steps=840,
        columns=_MEASURED,
        truth={"colorfulness": 41.87},
        contradictions=(
            "800 pictures are set aside for validation, the tables are of 799",
            "its 'test' pictures are the validation pictures",
            (
                "BatchNorm 'after every convolution layer' would undo the last one's tanh; ours has"
                " none there"
            ),
        ),
    ),
    "deep-cnn": Paper(
        title="Automatic image colorization using deep learning: koalarization with zoom and flip",
        datasets=("natural",),
        pictures={ANY: PaperPictures("ImageNet, 18 GB")},
        rows=(PaperRow(name="deep-cnn", preset="deep-cnn", embedding_width=1001),),
        stated=_FUSION_STATED | {"image_size", "framing", "flip", "embedding_output"},
        length="about 8 hours on a GTX 1050 Ti",
        columns=_MORE,
        contradictions=(
            _512,
            _1001.format("Inception-ResNet-v2"),
            "256 x 256 pixels in the method, 224 x 224 for the encoder in the experiments",
            "'over a million images' in the abstract, 18 GB of ImageNet in the experiments",
            "lightness stacked to '2 channels' for a network that takes 3",
        ),
        not_measurable=("a comparison by eye with another method: it reports no figure",),
    ),
}


def find(name: str) -> Paper:
    """The paper of that short name. ConfigError names the known ones."""
    if name not in PAPERS:
        raise ConfigError(f"the paper must be one of {', '.join(PAPERS)}, got {name}")
    return PAPERS[name]
