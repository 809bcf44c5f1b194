"""The Colorizer: what it takes and gives back, and that it needs nothing but its checkpoint."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gancolor import checkpoint, color, images, presets, views
from gancolor import colorizer as colorizer_module
from gancolor.coloring import Look
from gancolor.colorizer import Colorizer
from gancolor.errors import CheckpointError, ConfigError, DataError
from gancolor.models.backbones import load_backbone
from gancolor.photographs.contents import Photograph
from gancolor.training import train
from gancolor.views import Sight

Array = NDArray[np.uint8]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, painted: Path) -> Iterator[Path]:
    """Train once with a weights file that is gone afterwards; the colours are loud. Read only."""
    root = tmp_path_factory.mktemp("colorizer")
    torch.save(load_backbone("none", seed=5).state_dict(), root / "vgg16.pt")
    config = presets.build(
        "regression",
        **{"image_size": 32, "batch_size": 4, "width": 4, "levels": 0, "frozen_blocks": 2, "val_pictures": 2},
        **{"workers": 0, "device": "cpu", "precision": "fp32", "steps": 6, "lr": 0.01, "ema": 0.5},
        backbone_weights=str(root / "vgg16.pt"),
        dataset=str(painted),
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


def noise(*shape: int) -> Array:
    return np.random.default_rng(2).integers(0, 256, shape, np.uint8)


def lightness(rgb: Array) -> NDArray[np.float32]:
    values: NDArray[np.float32] = (color.split(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0][0, 0].numpy() + 1) * 50
    return values


# --- loading ---


def test_best_and_last_load_without_weights_file_or_network(run: Path, no_network: None) -> None:
    picture = noise(40, 30, 3)
    from_run, best, last = (Colorizer.load(path) for path in (run, run / "best.pt", str(run / "last.pt")))
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
    assert np.array_equal(Colorizer.load(tmp_path)(picture), Colorizer.load(run / "best.pt")(picture))


def test_the_average_is_what_colours(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "last.pt", weights_only=True)
    assert set(content["ema"]) == set(content["generator"])
    del content["ema"]
    torch.save(content, tmp_path / "live.pt")
    picture = noise(40, 40, 3)
    averaged, live = Colorizer.load(run / "last.pt")(picture), Colorizer.load(tmp_path / "live.pt")(picture)
    assert not np.array_equal(averaged, live)


def test_best_holds_no_more_than_is_needed(run: Path) -> None:
    content = checkpoint.load(run / "best.pt")
    assert set(content) >= {"generator", "config", "origin", "step", "seen", "val", "gray"}
    assert not {"optimizers", "head", "backbone"} & set(content)
    blocks = {key.split(".")[2] for key in content["generator"] if key.startswith("encoder.features")}
    assert blocks == {"0", "2", "5", "7"}  # two of VGG16's five blocks
    assert (run / "best.pt").stat().st_size < 0.05 * (run / "last.pt").stat().st_size


def test_the_generator_is_ready_and_frozen(colorizer: Colorizer) -> None:
    assert not any(module.training for module in colorizer.generator.modules())
    assert not any(parameter.requires_grad for parameter in colorizer.generator.parameters())


def test_bfloat16_holds_its_weights_and_gives_nearly_the_same(run: Path, colorizer: Colorizer) -> None:
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
        ({"format": 99, "version": "9.9"}, "must have checkpoint format 1, got 99 written by gancolor 9.9"),
    ],
)
def test_a_checkpoint_that_does_not_fit(run: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    torch.save({**content, **change}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=words):
        Colorizer.load(tmp_path)


def test_settings_of_another_version_in_a_checkpoint(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    content["config"]["attention"] = True
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="written by gancolor .*unknown attention"):
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
    forms: list[NDArray[Any]] = [gray, gray[..., None], np.repeat(gray[..., None], 3, axis=2), np.asfortranarray(gray)]
    results = [colorizer(form) for form in forms]
    assert results[0].shape == (33, 47, 3) and results[0].dtype == np.uint8
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_is_uint8_over_255(colorizer: Colorizer, dtype: type) -> None:
    picture = noise(20, 25, 3)
    assert np.array_equal(colorizer((picture / 255).astype(dtype)), colorizer(picture))


def test_a_path_is_its_picture(colorizer: Colorizer, painted: Path) -> None:
    path = painted / "fields" / "01.jpg"
    expected = colorizer(images.read_rgb(path))
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
    "size", [(1, 1), (1, 2), (1, 37), (53, 1), (2, 2), (7, 300), (31, 33), (64, 100), (300, 7)], ids=str
)
def test_any_size_comes_back_with_its_own_lightness(colorizer: Colorizer, size: tuple[int, int]) -> None:
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


def test_long_and_large_pictures_in_strips(colorizer: Colorizer, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise(90, 70, 3)
    whole = colorizer(picture)
    monkeypatch.setattr("gancolor.painting._STRIP", 1000)
    assert np.array_equal(colorizer(picture), whole)
    assert colorizer(noise(1, 40_000)).shape == (1, 40_000, 3)


def test_size_says_what_the_network_sees(colorizer: Colorizer) -> None:
    seen = []
    handle = colorizer.generator.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    try:
        for picture, size in ((noise(64, 96, 3), None), (noise(64, 96, 3), 16), (noise(20, 24, 3), 64)):
            colorizer(picture, size=size)
    finally:
        handle.remove()
    assert seen == [(32, 48), (16, 24), (20, 24)]  # shrunk, never grown
    with pytest.raises(ConfigError, match="size must be at least 1, got -1"):
        colorizer(noise(8, 8, 3), size=-1)
    with pytest.raises(ConfigError, match="size must be at least 1, got 0"):
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
    assert colorizer.sight == Sight(32, "gray", None, "crop")
    prediction = colorizer.run(views.look(colorizer.sight, picture))
    assert prediction.notes == () and np.array_equal(prediction.colors, colorizer.predict(picture))
    assert prediction.colors.shape == (32, 43, 2) and prediction.colors.dtype == np.float32


def test_a_flipped_view_is_seen_mirrored_and_answered_upright(colorizer: Colorizer) -> None:
    picture = noise(32, 48, 3)
    flipped = colorizer.run(views.look(colorizer.sight, picture, flip=True)).colors
    mirrored = colorizer.run(views.look(colorizer.sight, picture[:, ::-1].copy())).colors[:, ::-1]
    assert np.abs(flipped - mirrored).max() < 1e-6
    assert np.abs(flipped - colorizer.predict(picture)).max() > 1e-3  # a network is not symmetric


def test_a_perturbed_view_is_another_answer_from_its_seed_alone(colorizer: Colorizer) -> None:
    picture = noise(32, 48, 3)
    plain = colorizer.predict(picture)
    first, again, other = (
        colorizer.run(views.look(colorizer.sight, picture, perturbation=seed)).colors for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and np.array_equal(colorizer.predict(picture), plain)
    distances = [np.abs(one - two).mean() for one, two in ((first, plain), (other, plain), (first, other))]
    assert min(distances) > 1e-4


# --- memory that runs out ---


class Tight:
    """A hook on the generator that lets only pictures of so many pixels through."""

    def __init__(self, pixels: int, error: type[BaseException] = torch.OutOfMemoryError, words: str = "no") -> None:
        self.pixels, self.error, self.words, self.seen = pixels, error, words, list[tuple[int, ...]]()

    def __call__(self, module: Any, inputs: Any) -> None:
        self.seen.append(tuple(inputs[0].shape[2:]))
        if inputs[0].numel() > self.pixels:
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
    handle = colorizer.generator.register_forward_pre_hook(tight)
    try:
        colored = colorizer.color(Photograph(pixels=picture), Look(size=200))
    finally:
        handle.remove()
    assert tight.seen == [(200, 300), (100, 150), (50, 75)]
    assert colored.notes == [
        "out of memory on cpu at 300x200: seen at 150x100",
        "out of memory on cpu at 150x100: seen at 75x50",
    ]
    small = images.resize(images.resize(picture, (100, 150)), (50, 75))
    expected = colorizer.paint(picture, colorizer.predict(small, 50))
    difference = np.abs(colored.pictures[0].astype(int) - expected)
    assert difference.mean() < 1 and np.ptp(colored.pictures[0].astype(int), axis=2).max() > 5


def test_no_memory_at_all_is_an_error_not_a_gray_picture(colorizer: Colorizer) -> None:
    tight = Tight(0)
    handle = colorizer.generator.register_forward_pre_hook(tight)
    try:
        with pytest.raises(DataError, match="must fit into memory, got none left at 43x32; close") as caught:
            colorizer.color(Photograph(pixels=noise(120, 160, 3)), Look(size=120))
    finally:
        handle.remove()
    assert tight.seen == [(120, 160), (60, 80), (32, 43)] and "\n" not in str(caught.value)


def test_other_errors_of_the_network_are_not_swallowed(colorizer: Colorizer) -> None:
    handle = colorizer.generator.register_forward_pre_hook(Tight(0, RuntimeError, "shapes do not fit"))
    try:
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            colorizer.predict(noise(40, 40, 3))
    finally:
        handle.remove()


def test_a_full_device_gives_way_to_the_cpu(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colorizer = Colorizer.load(run, device="cpu", precision="bf16")
    picture = noise(64, 96, 3)
    expected = Colorizer.load(run, device="cpu", precision="fp32").predict(picture, 64)
    colorizer._network.device = torch.device("cuda")  # as if
    see = colorizer_module._Network.see

    def on_the_cpu_alone(self: Any, rgb: Array, view: Any) -> NDArray[np.float32]:
        if self.device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return see(self, rgb, view)

    monkeypatch.setattr(colorizer_module._Network, "see", on_the_cpu_alone)
    for _ in range(2):
        prediction = colorizer.run(views.look(colorizer.sight, picture, 64))
        assert np.abs(prediction.colors - expected).max() < 0.01  # all of the view; the weights were rounded once
        assert prediction.notes == (
            "out of memory on cuda at 96x64: seen at 48x32",
            "out of memory on cuda at 48x32: the CPU was used instead, at full size",
        )
    assert next(colorizer.generator.parameters()).dtype == torch.bfloat16  # the first one is as it was


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
    guided, plain = (colorizer.paint(picture, colors, method=method) for method in ("guided", "bilinear"))
    assert np.array_equal(colorizer.paint(picture, colors), guided) and not np.array_equal(guided, plain)
    with pytest.raises(ConfigError, match="--upsample must be one of"):
        colorizer.paint(picture, colors, method="nearest")


def test_the_name_is_the_runs_or_the_files(run: Path, tmp_path: Path) -> None:
    best = Colorizer.load(run / "best.pt")
    assert best.name == Colorizer.load(run).name == f"{run.name} step {best.step}"
    shutil.copy(run / "best.pt", tmp_path / "mine.pt")
    assert Colorizer.load(tmp_path / "mine.pt").name == f"mine step {best.step}"


# --- does it colour at all? ---


def test_a_network_that_colours_passes_the_self_test(colorizer: Colorizer) -> None:
    assert colorizer.self_test() is None


@pytest.mark.parametrize(("value", "words"), [(0.0, "hardly colours .mean chroma 0.00"), (np.nan, "are no numbers")])
def test_a_network_that_does_not_colour_is_said_loudly(run: Path, value: float, words: str) -> None:
    colorizer = Colorizer.load(run, device="cpu", precision="fp32")
    for parameter in colorizer.generator.parameters():
        parameter.fill_(value)
    warning = colorizer.self_test()
    assert warning is not None and warning.startswith(f"WARNING: {colorizer.name} ") and "\n" not in warning
    assert re.search(words, warning)
