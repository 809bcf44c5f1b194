from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.color
import skimage.metrics
import torch
from colors import lab_to_rgb
from torch import Tensor

from gancolor import metrics

# Sharma, Wu and Dalal (2005), table 1: two Lab colours and their difference. Near the hue's
# discontinuities.
SHARMA = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]

# a figure of each picture
EACH = tuple(key for key in metrics.KEYS if not key.startswith("spread"))


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 3, 24, 20, generator=random)
    return (truth + 0.1 * torch.randn(truth.shape, generator=random)).clamp(0, 1), truth


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_ciede2000_of_published_pairs(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    one, two = (torch.tensor(lab).reshape(1, 3, 1, 1) for lab in (first, second))
    assert metrics.ciede2000(one, two).item() == pytest.approx(expected, abs=1e-3)
    assert metrics.ciede2000(two, one).item() == pytest.approx(expected, abs=1e-3)


def test_ciede2000_agrees_with_scikit_image() -> None:
    random = np.random.default_rng(0)
    first = random.uniform((0, -100, -100), (100, 100, 100), (2, 30, 30, 3))
    second = first + random.normal(0, 12, first.shape)
    got = metrics.ciede2000(*(torch.from_numpy(lab).permute(0, 3, 1, 2) for lab in (first, second)))
    assert got.shape == (2, 30, 30)
    expected = skimage.color.deltaE_ciede2000(first, second)  # type: ignore[no-untyped-call]
    assert np.abs(got.numpy() - expected).max() < 1e-3


def test_psnr_and_mse_agree_with_scikit_image(pictures: tuple[Tensor, Tensor]) -> None:
    predicted, truth = pictures
    measured = metrics.measure(predicted, truth)
    for i in range(3):
        one, two = predicted[i].numpy(), truth[i].numpy()
        psnr = skimage.metrics.peak_signal_noise_ratio(two, one, data_range=1)  # type: ignore[no-untyped-call]
        assert measured["psnr"][i].item() == pytest.approx(psnr, abs=1e-4)
        mse = skimage.metrics.mean_squared_error(one * 255.0, two * 255.0)
        assert measured["mse_rgb"][i].item() == pytest.approx(mse, rel=1e-4)


def test_errors_by_hand() -> None:
    truth = torch.full((1, 3, 4, 4), 0.5)
    predicted = truth.clone()
    predicted[:, 0, :2] += 0.2
    measured = metrics.measure(predicted, truth)
    assert set(measured) == {*EACH, *metrics.MOMENTS}
    assert measured["mae_rgb"].item() == pytest.approx(0.2 / 6 * 255, rel=1e-5)
    assert measured["mae_unit"].item() == pytest.approx(0.2 / 6 * 2, rel=1e-5)
    assert measured["mse_rgb"].item() == pytest.approx((0.2 * 255) ** 2 / 6, rel=1e-5)
    reddish, neutral = (skimage.color.rgb2lab([[[red, 0.5, 0.5]]])[0, 0] for red in (0.7, 0.5))
    assert measured["mae_ab"].item() == pytest.approx(
        np.abs(reddish - neutral)[1:].mean() / 2, abs=1e-3
    )


def test_equal_pictures_have_no_error(pictures: tuple[Tensor, Tensor]) -> None:
    measured = metrics.measure(pictures[1], pictures[1])
    zero = [key for key in EACH if key not in ("psnr", "colorfulness", "colorfulness_truth")]
    assert all(measured[key].abs().max() == 0 for key in zero)
    assert measured["psnr"].tolist() == [100, 100, 100]


def test_measure_does_not_depend_on_the_batch(pictures: tuple[Tensor, Tensor]) -> None:
    together = metrics.measure(*pictures)
    alone = [metrics.measure(*(x[i : i + 1] for x in pictures)) for i in range(3)]
    for key in (*EACH, *metrics.MOMENTS):
        assert together[key].shape == (3,)
        assert torch.allclose(
            together[key], torch.cat([one[key] for one in alone]), rtol=1e-5, atol=1e-5
        )
    summary = metrics.summarize([metrics.measure(*(x[:2] for x in pictures)), alone[2]])
    assert tuple(summary) == metrics.KEYS
    means = {key: summary[key] for key in EACH}
    assert means == pytest.approx(
        {key: together[key].mean().item() for key in EACH}, rel=1e-4, abs=1e-4
    )


def test_measure_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="shape"):
        metrics.measure(torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="at least one"):
        metrics.summarize([])


def test_spread_is_of_all_pixels_of_all_pictures() -> None:
    """Two pictures of one colour each: no picture has a spread of its own, all of them together
    have one.
    """
    lab = (
        torch.tensor([[50.0, 20.0, -30.0], [50.0, -10.0, 10.0]])
        .reshape(2, 3, 1, 1)
        .expand(-1, -1, 4, 4)
    )
    truth = lab_to_rgb(lab)
    paler = lab_to_rgb(lab * torch.tensor([1, 0.5, 0.25]).reshape(1, 3, 1, 1))
    found = metrics.summarize(
        [metrics.measure(paler[:1], truth[:1]), metrics.measure(paler[1:], truth[1:])]
    )
    assert found["spread_a"] == pytest.approx(0.5, rel=1e-3) and found["spread_b"] == pytest.approx(
        0.25, rel=1e-3
    )
    moments = metrics.measure(paler, truth)
    assert moments["truth_mean_b"].tolist() == pytest.approx([-30, 10], abs=0.01)
    assert moments["square_a"].tolist() == pytest.approx([100, 25], rel=1e-3)
    shifted = lab_to_rgb(lab + torch.tensor([0.0, 5.0, 0.0]).reshape(1, 3, 1, 1))
    assert metrics.summarize([metrics.measure(shifted, truth)])["spread_a"] == pytest.approx(
        1, rel=1e-3
    )


def test_spread_of_gray_and_over_gray_is_finite(pictures: tuple[Tensor, Tensor]) -> None:
    gray = metrics.gray_picture(pictures[1])
    for predicted, truth, low, high in (
        (gray, pictures[1], 0, 0),
        (gray, gray, 1, 1),
        (pictures[1], gray, 100, 1e5),
    ):
        found = metrics.summarize([metrics.measure(predicted, truth)])
        assert low <= found["spread_a"] <= high and low <= found["spread_b"] <= high


def test_spread_agrees_with_numpy(pictures: tuple[Tensor, Tensor]) -> None:
    predicted, truth = (skimage.color.rgb2lab(x.permute(0, 2, 3, 1).numpy()) for x in pictures)  # type: ignore[no-untyped-call]
    found = metrics.summarize([metrics.measure(*pictures)])
    assert found["spread_a"] == pytest.approx(
        predicted[..., 1].std() / truth[..., 1].std(), rel=1e-3
    )
    assert found["spread_b"] == pytest.approx(
        predicted[..., 2].std() / truth[..., 2].std(), rel=1e-3
    )


def test_colorfulness_by_hand() -> None:
    picture = torch.zeros(2, 3, 1, 2)
    picture[0] = 0.3  # gray
    picture[1, 0, 0, 0] = 1.0  # one red and one blue pixel
    picture[1, 2, 0, 1] = 1.0
    gray, coloured = metrics.colorfulness(picture).tolist()
    assert gray == pytest.approx(0, abs=1e-4)
    # rg = 255, 0; yb = 127.5, -255
    sigma = math.hypot(127.5, 191.25)
    mu = math.hypot(127.5, -63.75)
    assert coloured == pytest.approx(sigma + 0.3 * mu, rel=1e-5)


def test_colorfulness_keeps_the_signs() -> None:
    picture = torch.zeros(1, 3, 1, 2)
    picture[0, 0, 0, 0] = picture[0, 1, 0, 1] = (
        1.0  # red, green: rg = 255, -255, whose absolute values do not spread
    )
    assert metrics.colorfulness(picture).item() == pytest.approx(255 + 0.3 * 127.5, rel=1e-5)


def test_delta_is_predicted_minus_truth(pictures: tuple[Tensor, Tensor]) -> None:
    gray = metrics.gray_picture(pictures[1])
    measured = metrics.measure(gray, pictures[1])
    assert measured["colorfulness"].max() < 0.1
    assert torch.equal(
        measured["delta_colorfulness"], measured["colorfulness"] - measured["colorfulness_truth"]
    )
    assert measured["delta_colorfulness"].max() < -10


def test_gray_picture_has_the_lightness_of_the_truth(pictures: tuple[Tensor, Tensor]) -> None:
    truth = (pictures[1] * 255).to(torch.uint8)
    gray = metrics.gray_picture(truth)
    assert gray.shape == truth.shape and torch.equal(gray[:, 0], gray[:, 2])
    lightness, expected = (
        skimage.color.rgb2lab(x.permute(0, 2, 3, 1).numpy())[..., 0] for x in (gray, truth)
    )
    assert np.abs(lightness - expected).max() < 1e-2


def test_absolute_colorfulness_drops_the_signs() -> None:
    picture = torch.zeros(1, 3, 1, 2)
    picture[0, 0, 0, 0] = picture[0, 1, 0, 1] = (
        1.0  # red, green: |rg| = 255 twice, yb = 127.5 twice: nothing spreads
    )
    absolute = metrics.colorfulness(picture, absolute=True)
    assert absolute.item() == pytest.approx(0.3 * math.hypot(255, 127.5), rel=1e-5)
    assert absolute.item() < metrics.colorfulness(picture).item()
    assert metrics.colorfulness(
        torch.full((1, 3, 4, 4), 0.7), absolute=True
    ).item() == pytest.approx(0, abs=1e-4)


def test_colorfulness_of_one_colour_is_its_distance_from_gray() -> None:
    picture = torch.tensor([1.0, 0.5, 0.25]).reshape(1, 3, 1, 1).expand(1, 3, 5, 7)
    expected = 0.3 * math.hypot(255 * 0.5, 255 * (0.75 - 0.25))
    for absolute in (False, True):
        assert metrics.colorfulness(picture, absolute).item() == pytest.approx(expected, rel=1e-5)


def test_ssim_agrees_with_scikit_image(pictures: tuple[Tensor, Tensor]) -> None:
    predicted, truth = pictures
    # where variances are small, rounding would show
    smooth = torch.linspace(0, 1, 20).expand(1, 3, 24, 20)
    cases = (torch.cat((predicted, smooth)), torch.cat((truth, smooth.square())))
    got = metrics.ssim(*cases)
    for i in range(4):
        one, two = (x[i].double().numpy() for x in cases)
        expected = skimage.metrics.structural_similarity(  # type: ignore[no-untyped-call]
            one,
            two,
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert got[i].item() == pytest.approx(expected, abs=2e-5)


def test_ssim_is_symmetric_bounded_and_independent_of_the_batch(
    pictures: tuple[Tensor, Tensor],
) -> None:
    predicted, truth = pictures
    together = metrics.ssim(predicted, truth)
    assert together.shape == (3,) and (together < 0.999).all() and (together > 0).all()
    assert torch.allclose(together, metrics.ssim(truth, predicted), atol=1e-6)
    alone = torch.cat([metrics.ssim(predicted[i : i + 1], truth[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert metrics.ssim(truth, truth).tolist() == pytest.approx([1, 1, 1], abs=1e-6)


def test_ssim_falls_with_the_noise(pictures: tuple[Tensor, Tensor]) -> None:
    predicted, truth = pictures
    nearer = truth + 0.2 * (predicted - truth)
    assert (metrics.ssim(nearer, truth) > metrics.ssim(predicted, truth) + 0.01).all()


def test_ssim_refuses_small_pictures_and_other_shapes() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels"):
        metrics.ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))
    with pytest.raises(ValueError, match="shape"):
        metrics.ssim(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))


@pytest.mark.parametrize("key", ["mae_rgb", "mse_rgb", "mae_ab", "psnr", "ciede2000"])
def test_distances_are_symmetric(pictures: tuple[Tensor, Tensor], key: str) -> None:
    there, back = metrics.measure(*pictures)[key], metrics.measure(*reversed(pictures))[key]
    assert torch.allclose(there, back, rtol=1e-5)
