"""The fusion networks: the papers' tables by hand, any size, what the embedding does, the units of
the output.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from macs import count_macs
from network_tables import Level, measure_levels
from torch import Tensor, nn

from gancolor.color import SCALES
from gancolor.models import count_parameters
from gancolor.models.fusion import TABLES, FusionNetwork

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
NAMES = ["koalarization", "face", "portrait"]
WIDTH = 5  # of the made-up embeddings

# From the papers, by hand: convolution rows are (channels in * kernel^2 + 1) * channels out, and
# portrait's BatchNorm adds 2 * channels. 1256 = 256 + 1000 and 2878 = 256 + 2622 channels enter the
# fusion.
KOALARIZATION = [
    Level("encoder.0", 64, 112, 112, 640),
    Level("encoder.1", 128, 112, 112, 73_856),
    Level("encoder.2", 128, 56, 56, 147_584),
    Level("encoder.3", 256, 56, 56, 295_168),
    Level("encoder.4", 256, 28, 28, 590_080),
    Level("encoder.5", 512, 28, 28, 1_180_160),
    Level("encoder.6", 512, 28, 28, 2_359_808),
    Level("encoder.7", 256, 28, 28, 1_179_904),
    Level("fusion", 256, 28, 28, 321_792),
    Level("decoder.0", 128, 28, 28, 295_040),
    Level("decoder.1", 128, 56, 56, 0),
    Level("decoder.2", 64, 56, 56, 73_792),
    Level("decoder.3", 64, 56, 56, 36_928),
    Level("decoder.4", 64, 112, 112, 0),
    Level("decoder.5", 32, 112, 112, 18_464),
    Level("decoder.6", 2, 112, 112, 578),
    Level("decoder.7", 2, 224, 224, 0),
]
PORTRAIT = [
    Level("encoder.0", 64, 128, 128, 768),
    Level("encoder.1", 128, 64, 64, 74_112),
    Level("encoder.2", 256, 32, 32, 295_680),
    Level("encoder.3", 512, 32, 32, 1_181_184),
    Level("encoder.4", 256, 32, 32, 1_180_416),
    Level("fusion", 256, 32, 32, 737_536),
    Level("decoder.0", 256, 64, 64, 0),
    Level("decoder.1", 128, 64, 64, 295_296),
    Level("decoder.2", 64, 64, 64, 73_920),
    Level("decoder.3", 64, 128, 128, 0),
    Level("decoder.4", 32, 128, 128, 18_528),
    Level("decoder.5", 16, 128, 128, 4_656),
    Level("decoder.6", 2, 128, 128, 130),
    Level("decoder.7", 2, 256, 256, 0),
]
PORTRAIT_1000 = [
    row._replace(parameters=322_304) if row.name == "fusion" else row for row in PORTRAIT
]
# 256 = 224 / 7 * 8
DEEP_CNN = [
    row._replace(height=row.height // 7 * 8, width=row.width // 7 * 8) for row in KOALARIZATION
]
PAPERS = {
    "koalarization": ("koalarization", 1000, 224, KOALARIZATION, 6_573_794, 7_549_681_664),
    "face": ("face", 1000, 224, KOALARIZATION, 6_573_794, 7_549_681_664),
    "portrait-vggface": ("portrait", 2622, 256, PORTRAIT, 3_862_226, 5_673_320_448),
    "portrait-1000": ("portrait", 1000, 256, PORTRAIT_1000, 3_446_994, 5_248_122_880),
    "deep-cnn": ("koalarization", 1000, 256, DEEP_CNN, 6_573_794, 9_860_808_704),
}


def network(
    table: str, *, scale: str = "ab127", vivid: bool = False, **settings: bool | float
) -> FusionNetwork:
    """A network with a tiny embedding and weights of a fixed seed; `vivid`: outputs over the whole
    range.
    """
    torch.manual_seed(0)
    built = FusionNetwork(table, embedding_width=WIDTH, scale=SCALES[scale], **settings)  # type: ignore[arg-type]
    if vivid:
        nn.init.normal_(last_conv(built).weight, std=1.0)
    return built


def last_conv(built: FusionNetwork) -> nn.Conv2d:
    return [part for part in built.decoder.modules() if isinstance(part, nn.Conv2d)][-1]


def gray_and_embedding(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 1, height, width) * 2 - 1, torch.randn(batch, WIDTH)


@pytest.mark.usefixtures("full_width")
@pytest.mark.parametrize("paper", PAPERS)
def test_rows_have_the_shapes_and_parameters_of_the_papers_table(paper: str) -> None:
    table, width, size, rows, parameters, macs = PAPERS[paper]
    with torch.device("meta"):
        built = FusionNetwork(table, embedding_width=width)
        inputs = torch.empty(3, 1, size, size), torch.empty(3, width)
    parts = [(f"encoder.{at}", part) for at, part in enumerate(built.encoder)]
    parts += [("fusion", built.fusion)]
    parts += [(f"decoder.{at}", part) for at, part in enumerate(built.decoder)]
    assert measure_levels(built, parts, *inputs) == rows
    assert built(*inputs).shape == (3, 2, size, size)
    assert count_parameters(built) == (parameters, 0) == (sum(row.parameters for row in rows), 0)
    assert count_macs(built, inputs[0][:1], inputs[1][:1]) == macs
    assert built.stride == 8


@pytest.mark.usefixtures("full_width")
def test_a_1001_wide_embedding_gives_the_papers_own_depth() -> None:
    with torch.device("meta"):
        built = FusionNetwork("koalarization", embedding_width=1001)
    assert built.state_dict()["fusion.0.weight"].shape == (256, 1257, 1, 1)
    assert count_parameters(built) == (6_573_794 + 256, 0)


def test_documentation_holds_the_same_numbers() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for paper in ("koalarization", "portrait-vggface"):
        for row in PAPERS[paper][3]:
            assert (
                f"| {row.name} | {row.channels} | {row.height} x {row.width} | {row.parameters:,} |"
                in text
            )
    for _, width, size, _, parameters, macs in PAPERS.values():
        assert f"| {size} | {256 + width:,} | {parameters:,} | {macs / 1e9:.1f} |" in text


def test_state_keys_are_named_after_the_parts() -> None:
    encoder = [f"encoder.{i}.0.{kind}" for i in range(8) for kind in ("weight", "bias")]
    decoder = [f"decoder.{i}.0.{kind}" for i in (0, 2, 3, 5, 6) for kind in ("weight", "bias")]
    expected = [*encoder, "fusion.0.weight", "fusion.0.bias", *decoder]
    assert list(network("koalarization").state_dict()) == expected
    assert list(network("face", smooth=True, scale="unit").state_dict()) == expected
    portrait = network("portrait").state_dict()
    assert {key.split(".")[0] for key in portrait} == {"encoder", "fusion", "decoder"}
    # every convolution but the last
    assert sum(key.endswith("running_var") for key in portrait) == 10


def test_a_saved_state_gives_the_same_colours() -> None:
    first, second = network("portrait"), network("portrait")
    inputs = gray_and_embedding(2, 16, 16)
    first(*inputs)  # moves the running statistics
    assert not torch.equal(first.eval()(*inputs), second.eval()(*inputs))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*inputs), second(*inputs))


@pytest.mark.parametrize("table", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (64, 40)])
def test_any_size_goes_in_and_comes_out(table: str, size: tuple[int, int]) -> None:
    built = network(table).eval()
    with torch.no_grad():
        out = built(*gray_and_embedding(2, *size))
    assert out.shape == (2, 2, *size)
    assert out.dtype == torch.float32 and bool(torch.isfinite(out).all())


def test_an_odd_size_is_the_middle_of_its_reflected_picture() -> None:
    built = network("koalarization", vivid=True).eval()
    gray, embedding = gray_and_embedding(1, 22, 24)  # one row is missing above, one below
    padded = F.pad(gray, (0, 0, 1, 1), mode="reflect")
    with torch.no_grad():
        assert torch.equal(built(gray, embedding), built(padded, embedding)[..., 1:-1, :])


@pytest.mark.parametrize("table", NAMES)
@pytest.mark.parametrize(
    "size", [(8, 8), (16, 24), (12, 20)]
)  # four divides them: blocks begin at the border
def test_the_papers_colours_are_blocks(table: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        blocks = network(table, vivid=True).eval()(*gray_and_embedding(2, *size))
    corners = [blocks[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    assert all(torch.equal(corners[0], other) for other in corners[1:])
    # and not larger ones
    assert float((corners[0][..., 1:] != corners[0][..., :-1]).float().mean()) > 0.9


@pytest.mark.parametrize("table", NAMES)
def test_the_smooth_decoder_enlarges_the_same_colours_smoothly(table: str) -> None:
    inputs = gray_and_embedding(2, 16, 24)
    with torch.no_grad():
        blocks = network(table, vivid=True).eval()(*inputs)
        smooth = network(table, vivid=True, smooth=True).eval()(*inputs)
    expected = F.interpolate(
        blocks[..., ::2, ::2], scale_factor=2, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(smooth, expected)
    assert float((smooth[..., ::2, ::2] != smooth[..., 1::2, 1::2]).float().mean()) > 0.9


@pytest.mark.parametrize(
    ("scale", "low", "high"),
    [("ab110", -1.0, 1.0), ("ab127", -127 / 110, 127 / 110), ("unit", -128 / 110, 127 / 110)],
)
def test_output_fills_the_range_of_its_scale(scale: str, low: float, high: float) -> None:
    built = network("koalarization", scale=scale, vivid=True)
    nn.init.normal_(last_conv(built).weight, std=100.0)
    with torch.no_grad():
        out = built(*gray_and_embedding(4, 32, 32))
    assert float(out.min()) == pytest.approx(low, abs=1e-3)
    assert float(out.max()) == pytest.approx(high, abs=1e-3)


@pytest.mark.parametrize(("scale", "black"), [("ab110", -1.0), ("ab127", -1.0), ("unit", 0.0)])
def test_the_encoder_sees_lightness_in_the_scales_units(scale: str, black: float) -> None:
    built = network("koalarization", scale=scale)
    seen: list[Tensor] = []
    built.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    lightness = torch.ones(2, 1, 8, 8)
    lightness[0] = -1.0
    built(lightness, torch.zeros(2, WIDTH))
    torch.testing.assert_close(seen[0][:, 0, 0, 0], torch.tensor([black, 1.0]))


@pytest.mark.usefixtures("full_width")
@pytest.mark.parametrize("table", NAMES)
def test_starts_as_keras_does(table: str) -> None:
    built = network(table)
    for part in built.modules():
        if isinstance(part, nn.Conv2d):
            assert part.bias is not None and not part.bias.any()
            area = part.kernel_size[0] * part.kernel_size[1]
            limit = (
                6 / (area * (part.in_channels + part.out_channels))
            ) ** 0.5  # Glorot and Bengio, uniform
            assert 0.9 * limit < float(part.weight.detach().abs().max()) <= limit
            assert float(part.weight.detach().std()) == pytest.approx(limit / 3**0.5, rel=0.15)


@pytest.mark.parametrize("scale", list(SCALES))
@pytest.mark.parametrize("table", NAMES)
def test_starts_neither_dead_nor_saturated(table: str, scale: str) -> None:
    out = network(table, scale=scale)(*gray_and_embedding(4, 32, 32)).detach()
    assert 1e-4 < float(out.std()) < 0.85  # portrait, normalized to the end, starts colourful


def test_the_default_scale_is_gancolors_own() -> None:
    assert FusionNetwork("portrait", embedding_width=WIDTH).scale is SCALES["ab110"]


@pytest.mark.parametrize("table", NAMES)
def test_the_embedding_changes_every_pixel(table: str) -> None:
    built = network(table, vivid=True).eval()
    gray, embedding = gray_and_embedding(1, 32, 48)
    with torch.no_grad():
        difference = (built(gray, embedding) - built(gray, -embedding)).abs().amax(1)
    assert float(difference.min()) > 1e-6


@pytest.mark.usefixtures("full_width")
def test_fusion_equals_the_papers_repeat_and_concatenate() -> None:
    built = network("koalarization")
    features, embedding = torch.rand(2, 256, 3, 4), torch.randn(2, WIDTH)
    nn.init.normal_(built.fusion[0].bias)
    repeated = embedding[:, :, None, None].expand(-1, -1, 3, 4)
    joined = torch.cat([features, repeated], 1)
    expected = F.relu(F.conv2d(joined, built.fusion[0].weight, built.fusion[0].bias))
    torch.testing.assert_close(built.fusion(features, embedding), expected)


@pytest.mark.parametrize("shape", [(2, 6), (1, 5), (5,), (2, 5, 1)])
def test_an_embedding_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^embedding must be \(batch, width\) = \(2, 5\), got \("):
        network("koalarization")(torch.zeros(2, 1, 8, 8), torch.zeros(shape))


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(
        ValueError, match="^table must be one of koalarization, face, portrait, got unet$"
    ):
        FusionNetwork("unet", embedding_width=WIDTH)
    assert list(TABLES) == NAMES


@pytest.mark.parametrize("table", NAMES)
def test_pictures_of_a_batch_are_independent_when_used(table: str) -> None:
    built = network(table, vivid=True).eval()
    gray, embedding = gray_and_embedding(3, 16, 24)
    with torch.no_grad():
        together = built(gray, embedding)
        alone = torch.cat([built(gray[i : i + 1], embedding[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert float((together[0] - together[1]).abs().mean()) > 0.01


@pytest.mark.parametrize("table", NAMES)
def test_only_face_drops_out_and_only_in_training(table: str) -> None:
    built, inputs = network(table), gray_and_embedding(2, 16, 16)
    with torch.no_grad():
        assert torch.equal(built(*inputs), built(*inputs)) == (table != "face")
        assert torch.equal(built.eval()(*inputs), built(*inputs))
    assert sum(isinstance(part, nn.Dropout) for part in built.modules()) == (
        2 if table == "face" else 0
    )


@pytest.mark.usefixtures("full_width")
def test_face_drops_out_at_its_rate_in_the_rows_of_512_channels() -> None:
    built, (gray, _) = network("face", dropout=0.75), gray_and_embedding(2, 32, 32)
    with torch.no_grad():
        before = built.encoder[:5](gray)
        assert torch.equal(before, built.encoder[:5](gray))
        for row, x in ((5, before), (6, built.encoder[5].eval()(before))):
            kept = built.encoder[row].eval()(x)
            dropped = built.encoder[row].train()(x)
            survivors = dropped[kept > 0] > 0
            assert float(survivors.float().mean()) == pytest.approx(0.25, abs=0.03)
            torch.testing.assert_close(dropped[dropped > 0], kept[dropped > 0] * 4)
        assert torch.equal(built.encoder[7](kept), built.encoder[7](kept))
        undropped = network("face", dropout=0.0).encoder
        assert torch.equal(undropped(gray), undropped(gray))


def test_portrait_normalizes_after_relu_and_not_its_output() -> None:
    built = network("portrait")
    outputs: list[Tensor] = []
    for part in (*built.encoder, built.fusion, *(built.decoder[i] for i in (1, 2, 4, 5))):
        part.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        built(*gray_and_embedding(4, 64, 64))
    assert len(outputs) == 10
    for output in outputs:  # after ReLU: centred, with one lowest value that zeros became
        values = output.transpose(0, 1).flatten(1)
        assert float(values.mean(1).abs().max()) < 1e-3
        lowest = values.amin(1, keepdim=True)
        assert float((values == lowest).float().mean()) > 0.2
    assert [type(part) for part in built.decoder[6]][:2] == [nn.ZeroPad2d, nn.Conv2d]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in built.decoder[6].modules())


@pytest.mark.usefixtures("full_width")
def test_portraits_last_kernel_is_padded_on_the_right_and_below() -> None:
    row = network("portrait", scale="ab110").decoder[6]
    conv = last_conv(network("portrait"))
    assert conv.kernel_size == (2, 2)
    with torch.no_grad():
        row[1].weight.fill_(0.01)
        row[1].bias.zero_()
        sums = torch.atanh(row(torch.ones(1, 16, 3, 3))) / 0.16
    expected = torch.tensor([[4.0, 4.0, 2.0], [4.0, 4.0, 2.0], [2.0, 2.0, 1.0]])
    torch.testing.assert_close(sums, expected.expand(1, 2, 3, 3))


@pytest.mark.usefixtures("full_width")
def test_stride_two_keeps_the_even_pixels_in_the_middle() -> None:
    first = network("koalarization").encoder[0]
    nn.init.zeros_(first[0].weight)
    with torch.no_grad():
        first[0].weight[:, :, 1, 1] = 1.0
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(first(x), x[..., ::2, ::2].expand(1, 64, 4, 4))


@pytest.mark.parametrize("table", NAMES)
def test_gradients_reach_every_parameter(table: str) -> None:
    built = network(table)
    built(*gray_and_embedding(4, 32, 32)).square().mean().backward()
    assert all(parameter.requires_grad for parameter in built.parameters())
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.slow
@pytest.mark.usefixtures("full_width")
@pytest.mark.parametrize(("table", "scale"), [("koalarization", "unit"), ("portrait", "ab127")])
def test_learns_two_pictures_by_heart(table: str, scale: str) -> None:
    built = network(table, scale=scale)
    gray, embedding = gray_and_embedding(2, 16, 16)
    truth = F.interpolate(torch.rand(2, 2, 2, 2) - 0.5, size=(16, 16))
    units = SCALES[scale].encode(truth)
    optimizer = torch.optim.Adam(built.parameters(), lr=2e-3)
    losses = []
    for _ in range(24):
        loss = F.mse_loss(SCALES[scale].encode(built(gray, embedding)), units)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 5


@pytest.mark.parametrize("table", NAMES)
def test_autocast_changes_little(table: str) -> None:
    built = network(table, vivid=True)
    nn.init.normal_(last_conv(built).weight, std=0.05)
    inputs = gray_and_embedding(2, 32, 32)
    built(*inputs)  # portrait's running statistics
    built.eval()
    with torch.no_grad():
        exact = built(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = built(*inputs)
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).abs().mean() / exact.std()) < 0.05


@pytest.mark.parametrize("table", NAMES)
def test_channels_last_is_kept(table: str) -> None:
    built = network(table, vivid=True).eval()
    inputs = gray_and_embedding(2, 32, 32)
    with torch.no_grad():
        exact = built(*inputs)
        built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        formats = []
        for part in (*built.encoder, built.fusion, *built.decoder):
            part.register_forward_hook(
                lambda module, inputs, output: formats.append(
                    output.is_contiguous(memory_format=torch.channels_last)
                )
            )
        out = built(inputs[0].to(memory_format=torch.channels_last), inputs[1])
    assert all(formats) and len(formats) == len(built.encoder) + 1 + len(built.decoder)
    torch.testing.assert_close(out, exact, atol=1e-4, rtol=1e-4)
