"""The Colorizer: what it takes and gives back, and that it needs nothing but its checkpoint."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_settings import LOUD, TINY

from gancolor import color, metrics, models, presets
from gancolor.coloring import networks, views
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Sight
from gancolor.data.still_life import composition
from gancolor.errors import CheckpointError, ConfigError, DataError
from gancolor.hints import Hint
from gancolor.images import arrays
from gancolor.images.photograph import Photograph
from gancolor.models import Generator, bins
from gancolor.models.backbones import load_backbone
from gancolor.storage import checkpoint
from gancolor.training import train
from gancolor.training.state import State

Array = NDArray[np.uint8]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, painted: Path) -> Iterator[Path]:
    """Train once with a weights file that is gone afterwards; the colours are loud. Read only."""
    root = tmp_path_factory.mktemp("colorizer")
    torch.save(load_backbone("none", seed=5).state_dict(), root / "vgg16.pt")
    config = presets.build(
        "regression",
        **LOUD
        | {"levels": 0, "steps": 6, "lr": 0.01, "ema": 0.5, "dataset": str(painted)}
        | {"backbone_weights": str(root / "vgg16.pt")},
    )
    folder = train(config, runs_root=root / "runs")
    (root / "vgg16.pt").unlink()
    yield folder
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def colorizer(run: Path) -> Colorizer:
    return Colorizer.load(run, device="cpu", precision="fp32")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network is used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def bins_run(tmp_path_factory: pytest.TempPathFactory, painted: Path) -> Iterator[Path]:
    """Train a network with bins and hints until it prefers some colours to others. Read only."""
    root = tmp_path_factory.mktemp("bins")
    config = presets.build(
        "gan",
        **TINY
        | {"objective": "regression", "adversarial_weight": 0.0, "dataset": str(painted)}
        | {"batch_size": 4, "steps": 30, "lr": 0.03, "ema": 0.5}
        | {"bins_weight": 10.0, "l1_weight": 1.0, "perceptual_weight": 0.0},
    )
    yield train(config, runs_root=root)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def knowing(bins_run: Path) -> Colorizer:
    """A network that gives a distribution and takes hints."""
    return Colorizer.load(bins_run, device="cpu", precision="fp32")


def untrained(**changes: Any) -> Colorizer:
    """A network of other settings, as it begins."""
    config = presets.build(
        "gan",
        **TINY | changes,
    )
    return Colorizer(
        State(config, torch.device("cpu")).averaged,
        {"config": config},
        device="cpu",
        precision="fp32",
    )


def noise(*shape: int) -> Array:
    return np.random.default_rng(2).integers(0, 256, shape, np.uint8)


def lightness(rgb: Array) -> NDArray[np.float32]:
    values: NDArray[np.float32] = (
        color.split(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0][0, 0].numpy() + 1
    ) * 50
    return values


# --- loading ---


def test_best_and_last_load_without_weights_file_or_network(run: Path, no_network: None) -> None:
    picture = noise(40, 30, 3)
    from_run, best, last = (
        Colorizer.load(path) for path in (run, run / "best.pt", str(run / "last.pt"))
    )
    assert np.array_equal(from_run(picture), best(picture))
    colored = last(picture)
    assert colored.shape == picture.shape and np.ptp(colored.astype(int), axis=2).max() > 5
    assert last.config == best.config and best.condition == "gray"


def test_best_is_preferred_and_last_and_last_1_stand_in(run: Path, tmp_path: Path) -> None:
    picture = noise(20, 20, 3)
    shutil.copy(run / "last.pt", tmp_path / "last-1.pt")
    expected = Colorizer.load(run / "last.pt")(picture)
    assert np.array_equal(Colorizer.load(tmp_path)(picture), expected)
    (tmp_path / "last.pt").write_bytes((run / "last.pt").read_bytes()[:100_000])  # torn
    assert np.array_equal(Colorizer.load(tmp_path)(picture), expected)
    shutil.copy(run / "best.pt", tmp_path)
    assert np.array_equal(
        Colorizer.load(tmp_path)(picture), Colorizer.load(run / "best.pt")(picture)
    )


def test_the_average_is_what_colours(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "last.pt", weights_only=True)
    assert set(content["ema"]) == set(content["generator"])
    del content["ema"]
    torch.save(content, tmp_path / "live.pt")
    picture = noise(40, 40, 3)
    averaged, live = (
        Colorizer.load(run / "last.pt")(picture),
        Colorizer.load(tmp_path / "live.pt")(picture),
    )
    assert not np.array_equal(averaged, live)


def test_best_holds_no_more_than_is_needed(run: Path) -> None:
    content = checkpoint.load(run / "best.pt")
    assert set(content) >= {"generator", "config", "origin", "step", "seen", "val", "gray"}
    assert not {"optimizers", "head", "backbone"} & set(content)
    blocks = {
        key.split(".")[2] for key in content["generator"] if key.startswith("encoder.features")
    }
    assert blocks == {"0", "2", "5", "7"}  # two of VGG16's five blocks
    assert (run / "best.pt").stat().st_size < 0.05 * (run / "last.pt").stat().st_size


def test_the_generator_is_ready_and_frozen(colorizer: Colorizer) -> None:
    assert not any(module.training for module in colorizer.generator.modules())
    assert not any(parameter.requires_grad for parameter in colorizer.generator.parameters())


def test_bfloat16_holds_its_weights_and_gives_nearly_the_same(
    run: Path, colorizer: Colorizer
) -> None:
    half = Colorizer.load(run, device="cpu", precision="bf16")
    convolutions = [m for m in half.generator.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {module.weight.dtype for module in convolutions} == {torch.bfloat16}
    picture = noise(48, 48, 3)
    difference = np.abs(half(picture).astype(int) - colorizer(picture).astype(int))
    assert difference.mean() < 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"generator": {}}, "must hold a generator that fits"),
        (
            {"format": 99, "version": "9.9"},
            "must have checkpoint format 1, got 99 written by gancolor 9.9",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit(
    run: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    torch.save({**content, **change}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=words):
        Colorizer.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention": True}, "unknown attention"),
        ({"warmup_steps": 500, "ramp_steps": 500}, "unknown ramp_steps, w"),
    ],
)
def test_settings_of_another_version_in_a_checkpoint(
    run: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    content["config"] |= changes
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(
        CheckpointError, match=f"written by gancolor .*{words}.*; use the version that wrote them"
    ):
        Colorizer.load(tmp_path / "best.pt")


def test_a_checkpoint_from_before_the_bins_says_which_version_reads_it(
    run: Path, tmp_path: Path
) -> None:
    content = torch.load(run / "best.pt", weights_only=True) | {"version": "0.9.1"}
    for name in ("head", "hints", "temperature"):
        del content["config"][name]
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(
        CheckpointError,
        match="by gancolor 0.9.1: .*got none for head, hints, temperature; use the ver",
    ):
        Colorizer.load(tmp_path / "best.pt")


def test_damage_is_found_by_checksum(run: Path, tmp_path: Path) -> None:
    data = bytearray((run / "best.pt").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "best.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        Colorizer.load(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.pt"):
        with pytest.raises(CheckpointError, match="must be a checkpoint"):
            Colorizer.load(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_devices_and_precisions_that_are_not_there(run: Path) -> None:
    with pytest.raises(ConfigError, match="--device"):
        Colorizer.load(run, device="cuda")
    with pytest.raises(ConfigError, match="--precision must be fp32 or bf16 on the CPU"):
        Colorizer.load(run, device="cpu", precision="fp16")


# --- colouring ---


def test_gray_in_every_shape_is_the_same_picture(colorizer: Colorizer) -> None:
    gray = noise(33, 47)
    forms: list[NDArray[Any]] = [
        gray,
        gray[..., None],
        np.repeat(gray[..., None], 3, axis=2),
        np.asfortranarray(gray),
    ]
    results = [colorizer(form) for form in forms]
    assert results[0].shape == (33, 47, 3) and results[0].dtype == np.uint8
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_is_uint8_over_255(colorizer: Colorizer, dtype: type) -> None:
    picture = noise(20, 25, 3)
    assert np.array_equal(colorizer((picture / 255).astype(dtype)), colorizer(picture))


def test_a_path_is_its_picture(colorizer: Colorizer, painted: Path) -> None:
    path = painted / "fields" / "01.jpg"
    expected = colorizer(arrays.read_rgb(path))
    assert np.array_equal(colorizer(path), expected)
    assert np.array_equal(colorizer(str(path)), expected)


def test_the_input_is_left_alone_and_may_be_read_only_or_a_view(colorizer: Colorizer) -> None:
    picture = noise(30, 30, 3)
    picture.flags.writeable = False
    before = picture.copy()
    flipped = colorizer(picture[::-1, ::-1])
    assert np.array_equal(picture, before)
    assert np.array_equal(flipped, colorizer(picture[::-1, ::-1].copy()))


def test_colours_of_the_input_do_not_matter(colorizer: Colorizer) -> None:
    levels = np.linspace(0.2, 0.8, 1600, dtype=np.float32).reshape(40, 40)
    gray = np.round(255 * np.repeat(levels[..., None], 3, axis=2)).astype(np.uint8)
    light, ab = color.split(torch.from_numpy(gray).permute(2, 0, 1)[None])
    tinted = color.merge(light, ab + torch.tensor([0.1, -0.05])[None, :, None, None])
    red = (tinted[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.ptp(red.astype(int), axis=2).max() > 10
    difference = np.abs(colorizer(red).astype(int) - colorizer(gray).astype(int))
    assert difference.max() <= 8 and difference.mean() < 1.5  # the rounding of `red`


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 2), (1, 37), (53, 1), (2, 2), (7, 300), (31, 33), (64, 100), (300, 7)],
    ids=str,
)
def test_any_size_comes_back_with_its_own_lightness(
    colorizer: Colorizer, size: tuple[int, int]
) -> None:
    picture = noise(*size, 3)
    colored = colorizer(picture)
    assert colored.shape == (*size, 3)
    # All results are inside sRGB, so that rounding to 8 bits is all that may change lightness.
    assert np.abs(lightness(colored) - lightness(picture)).max() < 0.3
    assert np.array_equal(colored, colorizer(picture))  # the same twice


def test_black_and_white_stay(colorizer: Colorizer) -> None:
    for level in (0, 255):
        flat = np.full((20, 20, 3), level, np.uint8)
        assert np.abs(colorizer(flat).astype(int) - level).max() <= 1


def test_long_and_large_pictures_in_strips(
    colorizer: Colorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = noise(90, 70, 3)
    whole = colorizer(picture)
    monkeypatch.setattr("gancolor.coloring.painting.STRIP", 1000)
    assert np.array_equal(colorizer(picture), whole)
    assert colorizer(noise(1, 40_000)).shape == (1, 40_000, 3)


def test_size_says_what_the_network_sees(colorizer: Colorizer) -> None:
    seen = []
    with before_looking(colorizer, lambda condition: seen.append(tuple(condition.shape[2:]))):
        for picture, size in (
            (noise(64, 96, 3), None),
            (noise(64, 96, 3), 16),
            (noise(20, 24, 3), 64),
        ):
            colorizer(picture, size=size)
    assert seen == [(32, 48), (16, 24), (20, 24)]  # shrunk, never grown
    with pytest.raises(ConfigError, match="--size must be at least 16, got -1"):
        colorizer(noise(8, 8, 3), size=-1)
    with pytest.raises(ConfigError, match="--size must be at least 16, got 0"):
        colorizer(noise(8, 8, 3), size=0)


def test_seen_is_the_gray_picture(colorizer: Colorizer) -> None:
    picture = noise(30, 40, 3)
    gray = colorizer.seen(picture)
    assert np.ptp(gray.astype(int), axis=2).max() <= 1
    assert np.abs(lightness(gray) - lightness(picture)).max() < 0.3


@pytest.mark.parametrize(
    ("picture", "error", "words"),
    [
        (np.zeros(5, np.uint8), ConfigError, r"got \(5,\)"),
        (np.zeros((4, 4, 2), np.uint8), ConfigError, r"got \(4, 4, 2\)"),
        (np.zeros((4, 4, 4), np.uint8), ConfigError, r"got \(4, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), ConfigError, r"\(H, W, 3\), got \(1, 4, 4, 3\)"),
        ([[0, 1], [2, 3]], ConfigError, "a path or an array .* got list"),
        (None, ConfigError, "got NoneType"),
        (torch.zeros(3, 4, 4), ConfigError, "a path or an array"),
        (np.zeros((0, 4, 3), np.uint8), DataError, "must have pixels"),
        (np.zeros((4, 0), np.float32), DataError, "must have pixels"),
        (np.zeros((4, 4), np.int32), ConfigError, "uint8 or float in .* got int32"),
        (np.zeros((4, 4), np.uint16), ConfigError, "got uint16"),
        (np.zeros((4, 4), bool), ConfigError, "got bool"),
        (np.full((4, 4), 255.0), ConfigError, r"lie in \[0, 1\], got \[255, 255\]"),
        (np.full((4, 4), -0.1), ConfigError, r"got \[-0.1, -0.1\]"),
        (np.full((4, 4), np.nan), ConfigError, "nan"),
        (np.full((4, 4), np.inf), ConfigError, "inf"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(
    colorizer: Colorizer, picture: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        colorizer(picture)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_pictures(colorizer: Colorizer, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for path in (tmp_path, tmp_path / "none.jpg", tmp_path / "empty.png"):
        with pytest.raises(DataError, match=str(path)):
            colorizer(path)


def test_it_is_importable_from_the_package() -> None:
    import gancolor

    assert gancolor.Colorizer is Colorizer


# --- views ---


def test_sight_is_enough_to_prepare_what_run_takes(colorizer: Colorizer) -> None:
    picture = noise(60, 80, 3)
    assert colorizer.sight == Sight(32, "gray", None, "crop", features=True)
    prediction = colorizer.predict_view(views.look(colorizer.sight, picture))
    assert prediction.notes == () and np.array_equal(prediction.colors, colorizer.predict(picture))
    assert prediction.colors.shape == (32, 43, 2) and prediction.colors.dtype == np.float32


def test_a_flipped_view_is_seen_mirrored_and_answered_upright(colorizer: Colorizer) -> None:
    picture = noise(32, 48, 3)
    flipped = colorizer.predict_view(views.look(colorizer.sight, picture, flip=True)).colors
    mirrored = colorizer.predict_view(views.look(colorizer.sight, picture[:, ::-1].copy())).colors[
        :, ::-1
    ]
    assert np.abs(flipped - mirrored).max() < 1e-6
    assert np.abs(flipped - colorizer.predict(picture)).max() > 1e-3  # a network is not symmetric


# --- memory that runs out ---


@contextmanager
def before_looking(colorizer: Colorizer, do: Callable[[torch.Tensor], object]) -> Iterator[None]:
    """Within this, `do` is called with each condition before the generator looks at it."""
    generator, look = colorizer.generator, colorizer.generator.look

    def looking(condition: torch.Tensor) -> Any:
        do(condition)
        return look(condition)

    generator.look = looking  # type: ignore[method-assign, union-attr]
    try:
        yield
    finally:
        del generator.look


class Tight:
    """Lets only pictures of so many pixels through (see `before_looking`)."""

    def __init__(
        self, pixels: int, error: type[BaseException] = torch.OutOfMemoryError, words: str = "no"
    ) -> None:
        self.pixels, self.error, self.words, self.seen = (
            pixels,
            error,
            words,
            list[tuple[int, ...]](),
        )

    def __call__(self, condition: torch.Tensor) -> None:
        self.seen.append(tuple(condition.shape[2:]))
        if condition.numel() > self.pixels:
            raise self.error(self.words)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (MemoryError, ""),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
    ids=["torch", "python", "allocator"],
)
def test_out_of_memory_halves_what_is_seen_and_says_so(
    colorizer: Colorizer, error: type[BaseException], words: str
) -> None:
    picture, tight = noise(200, 300, 3), Tight(50 * 75, error, words)
    with before_looking(colorizer, tight):
        colored = colorizer.color(Photograph(pixels=picture), PhotographSettings(size=200))
    assert tight.seen == [(200, 300), (100, 150), (50, 75)]
    assert colored.notes == [
        "out of memory on cpu at 300x200: seen at 150x100",
        "out of memory on cpu at 150x100: seen at 75x50",
    ]
    small = arrays.resize(arrays.resize(picture, (100, 150)), (50, 75))
    expected = colorizer.paint(picture, colorizer.predict(small, 50))
    difference = np.abs(colored.pictures[0].astype(int) - expected)
    assert difference.mean() < 1 and np.ptp(colored.pictures[0].astype(int), axis=2).max() > 5


def test_no_memory_at_all_is_an_error_not_a_gray_picture(colorizer: Colorizer) -> None:
    tight = Tight(0)
    with (
        before_looking(colorizer, tight),
        pytest.raises(
            DataError, match="must fit into memory, got none left at 43x32; close"
        ) as caught,
    ):
        colorizer.color(Photograph(pixels=noise(120, 160, 3)), PhotographSettings(size=120))
    assert tight.seen == [(120, 160), (60, 80), (32, 43)] and "\n" not in str(caught.value)


def test_other_errors_of_the_network_are_not_swallowed(colorizer: Colorizer) -> None:
    with (
        before_looking(colorizer, Tight(0, RuntimeError, "shapes do not fit")),
        pytest.raises(RuntimeError, match="shapes do not fit"),
    ):
        colorizer.predict(noise(40, 40, 3))


def test_a_full_device_gives_way_to_the_cpu(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colorizer = Colorizer.load(run, device="cpu", precision="bf16")
    picture = noise(64, 96, 3)
    expected = Colorizer.load(run, device="cpu", precision="fp32").predict(picture, 64)
    colorizer._network.device = torch.device("cuda")  # as if
    see = networks.Network.see

    def on_the_cpu_alone(self: Any, rgb: Array, view: Any) -> Prediction:
        if self.device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return see(self, rgb, view)

    monkeypatch.setattr(networks.Network, "see", on_the_cpu_alone)
    for _ in range(2):
        prediction = colorizer.predict_view(views.look(colorizer.sight, picture, 64))
        # all of the view; the weights were rounded once
        assert np.abs(prediction.colors - expected).max() < 0.01
        assert prediction.notes == (
            "out of memory on cuda at 96x64: seen at 48x32",
            "out of memory on cuda at 48x32: the CPU was used instead, at full size",
        )
    # the first one is as it was
    assert next(colorizer.generator.parameters()).dtype == torch.bfloat16


# --- photographs ---


def test_a_photograph_keeps_its_depth_and_size(colorizer: Colorizer) -> None:
    gray = np.random.default_rng(5).integers(0, 65536, (70, 50), np.uint16)
    colored = colorizer.color(Photograph(pixels=gray))
    assert colored.pictures[0].shape == (70, 50, 3) and colored.pictures[0].dtype == np.uint16
    assert colored.size == (45, 32) and colored.chroma > 2
    eight = colorizer(((gray.astype(np.uint32) + 128) // 257).astype(np.uint8))
    assert np.abs(colored.pictures[0] / 257 - eight).mean() < 1


def test_paint_brings_colours_up_along_edges_or_not(colorizer: Colorizer) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 30:] = 200
    colors = np.zeros((8, 8, 2), np.float32)
    colors[:, 4:] = 0.2
    guided, plain = (
        colorizer.paint(picture, colors, method=method) for method in ("guided", "bilinear")
    )
    assert np.array_equal(colorizer.paint(picture, colors), guided) and not np.array_equal(
        guided, plain
    )
    with pytest.raises(ConfigError, match="--upsample must be one of"):
        colorizer.paint(picture, colors, method="nearest")


def test_the_name_is_the_runs_or_the_files(run: Path, tmp_path: Path) -> None:
    best = Colorizer.load(run / "best.pt")
    assert best.name == Colorizer.load(run).name == f"{run.name} step {best.step}"
    shutil.copy(run / "best.pt", tmp_path / "mine.pt")
    assert Colorizer.load(tmp_path / "mine.pt").name == f"mine step {best.step}"


# --- known colours ---

RED, BLUE, OLIVE = (190, 60, 50), (60, 90, 180), (110, 120, 60)


def still(height: int, width: int) -> Array:
    """A picture with edges, flat parts and shades, none of them black or white, where no colour
    could be kept.
    """
    rgb = composition.paint(4, 2, max(height, width))[:height, :width]
    return (60 + rgb // 2).astype(np.uint8)


def misses(colored: NDArray[Any], picture: NDArray[Any], hint: Hint, reach: int = 0) -> float:
    """CIEDE2000 of a hint's place, or the mean of those `reach` pixels around it, from its colour
    at the lightness.
    """
    white = 255 if colored.dtype == np.uint8 else 65535
    rows, columns = (
        slice(max(0, round(at) - reach), round(at) + reach + 1) for at in (hint.y, hint.x)
    )
    found, given = (
        torch.from_numpy(pixels[rows, columns] / white).float().permute(2, 0, 1)[None]
        for pixels in (colored, picture)
    )
    light, _ = color.split(given)
    rgb = torch.tensor(hint.rgb, dtype=torch.float32).view(1, 3, 1, 1) / 255
    wanted = color.merge_in_gamut(light, color.split(rgb)[1].expand(-1, -1, *light.shape[2:]))
    one, two = (color.rgb_to_lab(x).mean((2, 3), keepdim=True) for x in (found, wanted))
    return float(metrics.ciede2000(one, two))


@pytest.mark.parametrize("radius", [0, 5])
@pytest.mark.parametrize("size", [(30, 44), (200, 300), (433, 250)], ids=str)
def test_each_hint_is_kept_at_its_place_at_full_size(
    knowing: Colorizer, size: tuple[int, int], radius: float
) -> None:
    picture = still(*size)
    height, width = size
    places = [
        (0, 0),
        (width - 1, height - 1),
        (width // 2, height // 2),
        (width // 3, 2),
        (2.4, height * 0.7),
    ]
    hints = [
        Hint(x, y, rgb, radius)
        for (x, y), rgb in zip(places, [RED, BLUE, OLIVE, BLUE, RED], strict=True)
    ]
    colored = knowing(picture, hints=hints)
    for hint in hints:
        assert misses(colored, picture, hint) < 1
        assert misses(colored, picture, hint, int(radius)) < 3  # all of its square on the whole
    plain = knowing(picture)
    # it would not have painted them so
    assert max(misses(plain, picture, hint) for hint in hints) > 5
    assert np.abs(lightness(colored) - lightness(picture)).max() < 0.3
    assert np.array_equal(colored, knowing(picture, hints=hints))


@pytest.mark.slow
def test_hints_are_kept_whatever_else_is_asked_for(knowing: Colorizer) -> None:
    picture = still(120, 180)
    hints = (Hint(20, 30, RED), Hint(21, 30, BLUE), Hint(150, 90, OLIVE, 3))  # two side by side
    looks = [
        PhotographSettings(hints=hints, size=64, consensus=3),
        PhotographSettings(hints=hints, upsample="bilinear", saturation=2.0, keep_color=0.3),
        PhotographSettings(hints=hints, temperature=1.5, variants=3, confidence=True),
    ]
    for look in looks:
        for deep in (picture, picture.astype(np.uint16) * 257):
            for colored in knowing.color(Photograph(pixels=deep), look).pictures:
                assert max(misses(colored, deep, hint) for hint in hints) < 2


def test_a_hint_changes_its_surroundings_and_not_all_of_the_picture(knowing: Colorizer) -> None:
    picture = np.full((256, 256, 3), 128, np.uint8)
    plain, held = knowing(picture), knowing(picture, hints=[Hint(40, 40, RED)])
    moved = np.abs(held.astype(int) - plain).max(2)
    assert moved[40, 40] > 10 and moved[36:45, 36:45].min() > 5  # no dot
    assert moved[200:, 200:].mean() < 0.5 * moved[30:50, 30:50].mean()


def test_hints_may_be_numbers_of_numpy(knowing: Colorizer) -> None:
    picture = still(60, 90)
    ((y, x),) = np.argwhere(np.arange(60 * 90).reshape(60, 90) == 2000)
    hint = Hint(x, y, tuple(picture[3, 4]), np.float32(2))
    assert np.array_equal(
        knowing(picture, hints=[hint]),
        knowing(picture, hints=[Hint(int(x), int(y), tuple(map(int, hint.rgb)), 2.0)]),
    )


def test_no_hints_are_as_if_there_were_none_to_take(knowing: Colorizer) -> None:
    picture = noise(40, 60, 3)
    assert np.array_equal(knowing(picture, hints=[]), knowing(picture))
    assert np.array_equal(knowing.predict(picture, hints=()), knowing.predict(picture))


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Hint(90, 5, RED), "hint 2 must lie in the picture of 90x60 pixels, got x=90, y=5"),
        (Hint(5, -1, RED), "hint 2 must lie in the picture"),
        (Hint(float("nan"), 5, RED), "hint 2 must be of finite numbers"),
        (Hint(5, 5, (1, float("nan"), 3)), "hint 2 must be of finite numbers"),  # type: ignore[arg-type]
        (Hint(5, 5, (0, 0, 256)), "hint 2 must have a colour from 0 to 255"),
        (Hint(5, 5, RED, -1), "hint 2 must have a radius of 0 or more pixels, got -1"),
        (Hint(5, 5, RED, float("inf")), "hint 2 must be of finite numbers"),
    ],
)
def test_hints_that_cannot_be_are_refused_in_one_line(
    knowing: Colorizer, hint: Hint, words: str
) -> None:
    hints = [Hint(1, 1, BLUE), hint]
    calls = [
        lambda: knowing(still(60, 90), hints=hints),
        lambda: knowing.predict(still(60, 90), hints=hints),
        lambda: knowing.suggest(still(60, 90), 3, 3, hints=hints),
        lambda: knowing.color(
            Photograph(pixels=still(60, 90)), PhotographSettings(hints=tuple(hints))
        ),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_million_hints_are_refused_at_once(knowing: Colorizer) -> None:
    hints = [Hint(1, 1, BLUE)] * 1_000_000
    for call in (
        lambda: knowing(noise(20, 20), hints=hints),
        lambda: knowing.suggest(noise(20, 20), 3, 3, hints=hints),
    ):
        with pytest.raises(
            ConfigError, match="hints must be at most 10000, got 1000000; leave out"
        ):
            call()


def test_a_network_that_was_trained_without_hints_says_so(colorizer: Colorizer) -> None:
    deaf = untrained(hints=0.0)
    hints = [Hint(1, 1, BLUE)]
    for network in (colorizer, deaf):
        for call in (
            lambda: network(noise(20, 20), hints=hints),  # noqa: B023
            lambda: network.predict(still(20, 20), hints=hints),  # noqa: B023
        ):
            with pytest.raises(
                ConfigError, match="takes none, got 1; use a run trained with --hints"
            ) as caught:
                call()
            assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="takes none, got 1; use a run trained with --hints"):
        deaf.suggest(noise(20, 20), 3, 3, hints=hints)
    assert deaf(noise(20, 20)).shape == (20, 20, 3) and deaf.suggest(noise(20, 20), 3, 3)


def test_hints_are_kept_where_memory_ran_out(knowing: Colorizer) -> None:
    picture, tight, hint = still(200, 300), Tight(50 * 75), Hint(250, 20, RED)
    look = PhotographSettings(size=200, hints=(hint,), confidence=True)
    with before_looking(knowing, tight):
        colored = knowing.color(Photograph(pixels=picture), look)
    assert tight.seen == [(200, 300), (100, 150), (50, 75)] * 2  # with hints and without
    assert len(colored.notes) == 2
    assert misses(colored.pictures[0], picture, hint) < 2
    assert colored.confidence is not None and colored.confidence.shape == (200, 300)


def test_a_network_for_edges_takes_hints_too() -> None:
    network = untrained(condition="edges")
    picture = still(80, 120)
    colored = network(picture, hints=[Hint(60, 40, RED, 2)])
    (a, b), plain = colored[40, 60].astype(int)[[0, 2]], network(picture)[40, 60].astype(int)
    assert a - b > 40 and a - b > plain[0] - plain[2] + 20


# --- a distribution of colours ---


def test_bins_and_hints_are_told_by_the_sight(knowing: Colorizer, bins_run: Path) -> None:
    assert knowing.sight == Sight(
        32, "gray", None, "crop", distribution=True, hints=True, features=True
    )
    picture = noise(40, 60, 3)
    last = Colorizer.load(bins_run / "last.pt", device="cpu", precision="fp32")
    assert last.sight == knowing.sight and last(picture).shape == picture.shape
    assert knowing.self_test() is None
    half = Colorizer.load(bins_run, device="cpu", precision="bf16")
    assert np.abs(half(picture).astype(int) - knowing(picture).astype(int)).mean() < 4


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (53, 1), (7, 300), (31, 33), (64, 100)], ids=str)
def test_any_size_comes_back_from_bins(knowing: Colorizer, size: tuple[int, int]) -> None:
    picture = noise(*size, 3)
    colored = knowing.color(
        Photograph(pixels=picture),
        PhotographSettings(confidence=True, variants=2, hints=(Hint(0, 0, RED),)),
    )
    for result in colored.pictures:
        assert result.shape == (*size, 3)
        assert np.abs(lightness(result) - lightness(picture)).max() < 0.3
    assert colored.confidence is not None and colored.confidence.shape == size
    assert knowing.suggest(picture, size[1] - 1, size[0] - 1)


@pytest.mark.slow
def test_suggestions_are_probable_sorted_and_different(knowing: Colorizer) -> None:
    picture = still(90, 130)
    for x, y in ((0, 0), (129, 89), (60.5, 44), (-0.5, -0.5), (129.5, 89.5)):
        found = knowing.suggest(picture, x, y, count=1000)
        shares = [one.probability for one in found]
        assert sum(shares) == pytest.approx(1, abs=1e-5) and shares == sorted(shares, reverse=True)
        assert len({one.rgb for one in found}) == len(found) > 5
        assert all(
            0 <= value <= 255 and isinstance(value, int) for one in found for value in one.rgb
        )
        light = lightness(picture)[min(89, round(y)), min(129, round(x))]
        for one in found[:20]:
            assert abs(lightness(np.array([[one.rgb]], np.uint8))[0, 0] - light) < 1
        few = knowing.suggest(picture, x, y)
        assert few == found[:8] and sum(one.probability for one in few) <= 1 + 1e-6
    lab = color.rgb_to_lab(torch.tensor([one.rgb for one in found[:8]]).view(-1, 3, 1, 1) / 255)
    apart = [
        float(metrics.ciede2000(lab[i : i + 1], lab[j : j + 1])) for i in range(8) for j in range(i)
    ]
    assert min(apart) > 5  # alike ones are one


def test_suggestions_are_of_their_place_and_follow_the_hints(knowing: Colorizer) -> None:
    picture = still(90, 130)
    here, there = (knowing.suggest(picture, x, 45, count=1000) for x in (10, 120))
    assert here != there and here == knowing.suggest(picture, 10, 45, count=1000)
    assert knowing.suggest(picture, 10, 45, hints=[Hint(10, 45, RED, 10)]) != here[:8]
    assert knowing.suggest(picture, 10, 45, size=64) != here[:8]
    black = knowing.suggest(np.zeros((40, 40), np.uint8), 20, 20)
    # no other colour
    assert [one.rgb for one in black] == [(0, 0, 0)] and black[0].probability == pytest.approx(1)


def test_suggestions_agree_with_the_networks_distribution(knowing: Colorizer) -> None:
    picture = np.full((64, 64, 3), 130, np.uint8)
    found = knowing.suggest(picture, 30, 30, size=64, count=1000)
    of_picture, _ = color.split(torch.from_numpy(picture).permute(2, 0, 1)[None])
    assert isinstance(knowing.generator, Generator)
    with torch.inference_mode():
        logits = knowing.generator.say(models.see(knowing.config, of_picture)).logits
    assert logits is not None
    share = torch.softmax(logits[0, :, 7, 7], 0)
    ab = bins.centers()[:, :, None, None]
    shown = color.rgb_to_lab(
        color.merge_in_gamut(of_picture[..., :1, :1].expand(len(ab), 1, 1, 1), ab)
    )[:, 1:, 0, 0]
    lab = color.rgb_to_lab(torch.tensor([one.rgb for one in found]).view(-1, 3, 1, 1) / 255)[
        :, 1:, 0, 0
    ]
    shares = torch.tensor([one.probability for one in found])
    assert (
        float(shares.sum()) == pytest.approx(1, abs=1e-4)
        and float(shares[0]) >= float(share.max()) - 1e-5
    )
    # What looks alike was merged, so the means agree but for that.
    assert float(((shares[:, None] * lab).sum(0) - (share[:, None] * shown).sum(0)).norm()) < 6


def test_suggestions_that_cannot_be_are_refused_in_one_line(
    knowing: Colorizer, colorizer: Colorizer
) -> None:
    picture = still(60, 90)
    cases = [
        ((knowing, 90, 3), {}, "place 1 must lie in the picture of 90x60 pixels, got x=90, y=3"),
        ((knowing, 3, -1), {}, "place 1 must lie in the picture"),
        ((knowing, float("nan"), 3), {}, "place 1 must be of finite numbers"),
        ((knowing, 3, 3), {"count": 0}, "count must be at least 1, got 0"),
        ((knowing, 3, 3), {"size": 0}, "the size must be at least 1, got 0"),
        (
            (colorizer, 3, 3),
            {},
            "gives no distribution of colours; use a run trained with --head bins",
        ),
    ]
    for (network, x, y), options, words in cases:
        with pytest.raises(ConfigError, match=words) as caught:
            network.suggest(picture, x, y, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_variants_of_bins_differ_are_seeded_and_do_not_depend_on_their_number(
    knowing: Colorizer,
) -> None:
    photograph = Photograph(pixels=still(64, 96))

    def painted(count: int, seed: int = 0) -> list[bytes]:
        colored = knowing.color(photograph, PhotographSettings(variants=count, seed=seed))
        assert colored.notes == []
        return [picture.tobytes() for picture in colored.pictures]

    four = painted(4)
    assert len(set(four)) == 4 and four == painted(4)
    assert painted(2) == four[:2] and painted(1) == four[:1] == [
        knowing(photograph.pixels).tobytes()
    ]
    other = painted(3, seed=1)
    assert other[0] == four[0] and set(other[1:]).isdisjoint(four)
    asked = knowing(photograph.pixels, samples=4)
    assert [picture.tobytes() for picture in asked] == four
    asked = knowing(photograph.pixels, samples=3, seed=1)
    assert [picture.tobytes() for picture in asked] == other


def test_samples_of_diversity_0_are_alike_and_a_temperature_is_that_of_the_settings(
    knowing: Colorizer,
) -> None:
    picture = still(64, 96)
    first, *others = knowing(picture, samples=4, diversity=0)
    assert len({other.tobytes() for other in others}) == 1
    warm = knowing.color(Photograph(pixels=picture), PhotographSettings(temperature=1.5)).pictures
    assert np.array_equal(knowing(picture, temperature=1.5), warm[0])
    assert not np.array_equal(warm[0], first)
    (only,) = knowing(picture, samples=1)
    assert np.array_equal(only, first)
    for given, words in (({"samples": 0}, "--variants"), ({"samples": 2, "seed": -1}, "--seed")):
        with pytest.raises(ConfigError, match=words):
            knowing(picture, **given)


def test_the_temperature_is_the_networks_own_or_the_one_asked_for(knowing: Colorizer) -> None:
    picture = still(32, 48)
    own = knowing.config.temperature
    seen = color.gray(color.split(torch.from_numpy(picture).permute(2, 0, 1)[None])[0])
    plain = knowing.predict(picture)
    for asked, taken in ((None, own), (own, own), (0.05, 0.05), (2.0, 2.0)):
        found = knowing.predict_view(views.look(knowing.sight, picture, temperature=asked)).colors
        expected = knowing.generator.say(seen, None, taken).colors[0].permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() < 1e-5
        assert (np.abs(found - plain).max() > 0.01) == (taken != own)


@pytest.mark.slow
def test_confidence_comes_from_the_entropy(knowing: Colorizer) -> None:
    picture = still(64, 96)
    colored = knowing.color(Photograph(pixels=picture), PhotographSettings(confidence=True))
    assert colored.confidence is not None and colored.confidence.dtype == np.uint8
    assert (
        colored.confidence.shape == (64, 96)
        and 0 < colored.confidence.min() <= colored.confidence.max() < 255
    )
    sure = knowing.predict_view(views.look(knowing.sight, picture)).confidence
    assert sure is not None and sure.shape == (32, 48) and 0 <= sure.min() < sure.max() <= 1
    assert (
        np.abs(
            arrays.resize(np.rint(sure * 255).astype(np.uint8), (64, 96)).astype(int)
            - colored.confidence
        ).max()
        <= 8
    )
    begun = (
        untrained()
        .color(Photograph(pixels=picture), PhotographSettings(confidence=True))
        .confidence
    )
    assert begun is not None and begun.max() < colored.confidence.mean()  # it knows nothing yet
    flipped = knowing.predict_view(views.look(knowing.sight, picture, flip=True)).confidence
    mirrored = knowing.predict_view(views.look(knowing.sight, picture[:, ::-1].copy())).confidence
    assert (
        flipped is not None
        and mirrored is not None
        and np.abs(flipped - mirrored[:, ::-1]).max() < 1e-5
    )


# --- does it colour at all? ---


def test_a_network_that_colours_passes_the_self_test(colorizer: Colorizer) -> None:
    assert colorizer.self_test() is None


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "hardly colours .mean chroma 0.00"), (np.nan, "are no numbers")]
)
def test_a_network_that_does_not_colour_is_said_loudly(run: Path, value: float, words: str) -> None:
    colorizer = Colorizer.load(run, device="cpu", precision="fp32")
    for parameter in colorizer.generator.parameters():
        parameter.fill_(value)
    warning = colorizer.self_test()
    assert (
        warning is not None
        and warning.startswith(f"WARNING: {colorizer.name} ")
        and "\n" not in warning
    )
    assert re.search(words, warning)
