"""Charts: what is drawn for which numbers, and that names and colours reach the page unharmed."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import cv2
import forkserver
import numpy as np
import pytest
from numpy.typing import NDArray

from gancolor import charts
from gancolor.charts import LossCurve

NASTY = "<script>alert('$x$')</script>"


def counts(bins: int = 8) -> dict[str, NDArray[np.float64]]:
    return {channel: np.arange(1.0, bins + 1) for channel in charts.CHANNELS}


def luminance(color: str) -> float:
    levels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize(
    ("palette", "paper"), [(charts.PALETTE, "#ffffff"), (charts.DARK_PALETTE, "#151517")]
)
def test_colours_stand_out_from_the_paper(palette: tuple[str, ...], paper: str) -> None:
    for color in palette:
        darker, lighter = sorted((luminance(color), luminance(paper)))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, color


def test_runs_are_told_apart_without_colour() -> None:
    looks = [charts.look(position) for position in range(36)]
    assert len({(look.dashes, look.marker) for look in looks}) == 36


@pytest.mark.parametrize(
    ("value", "word"),
    [(0, "not"), (16, "slightly"), (33, "moderately"), (45, "averagely"), (200, "extremely")],
)
def test_words_of_hasler_and_suesstrunk(value: float, word: str) -> None:
    assert charts.describe(value) == f"{word} colourful"


def test_a_panel_for_each_loss_that_there_is() -> None:
    falling = LossCurve([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    plain = {"reconstruction": falling, "G_loss": falling, "ciede2000": LossCurve([3.0], [9.0])}
    figure = charts.draw_losses({"a": plain, "without log": {}})
    assert figure is not None
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    # G_loss says nothing new
    assert titles == [
        charts.LOSSES["reconstruction"],
        charts.LOSSES["ciede2000"],
    ]
    adversarial = {
        "reconstruction": falling,
        "G_loss": LossCurve([1.0], [4.0]),
        "D_loss": LossCurve([1.0], [1.4]),
    }
    figure = charts.draw_losses({"a": plain, "b": adversarial})
    assert figure is not None and len(figure.axes) == 4
    assert len(figure.axes[0].lines) == 2 and len(figure.axes[2].lines) == 1
    assert figure.axes[2].lines[0].get_color() == charts.look(1).color  # b's in every panel


def test_no_curve_is_no_figure() -> None:
    assert charts.draw_losses({"a": {}, "b": {}}) is None


def test_long_curves_are_averaged_and_wide_ones_get_a_log_scale() -> None:
    values = [1000.0 / (1 + at) for at in range(1000)]
    figure = charts.draw_losses(
        {"a": {"D_loss": LossCurve([float(at) for at in range(1000)], values)}}
    )
    assert figure is not None and figure.axes[0].get_yscale() == "log"
    drawn = np.asarray(figure.axes[0].lines[0].get_ydata(), float)
    assert len(drawn) == 240 and drawn[0] == pytest.approx(np.mean(values[:5]))


def test_channels_are_shares_of_the_pixels() -> None:
    figure = charts.draw_channels({"a": counts(), "b": counts()}, counts())
    assert len(figure.axes) == 5 and all(len(axes.lines) == 2 for axes in figure.axes)
    assert np.asarray(figure.axes[3].lines[0].get_ydata(), float).sum() == pytest.approx(100)
    assert np.asarray(figure.axes[0].lines[0].get_xdata(), float)[[0, -1]] == pytest.approx(
        [-96.25, 96.25]
    )
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a", "b", "original"]
    without = charts.draw_channels({"a": counts()}, None)
    assert [text.get_text() for text in without.legends[0].get_texts()] == [
        "a"
    ] and not without.axes[0].patches


def test_colorfulness_has_the_words_up_to_the_largest_value() -> None:
    figure = charts.draw_colorfulness({"a": [10.0, 46.0]}, [20.0, 40.0])
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["not", "slightly", "moderately", "averagely"]
    assert figure.axes[0].lines[-1].get_xydata().tolist() == [[20.0, 10.0], [40.0, 46.0]]
    many = charts.draw_colorfulness({"a": [5.0] * 2000}, [5.0] * 2000)
    assert len(many.axes[0].lines[-1].get_xydata()) == 500


@pytest.mark.slow
def test_svg_is_xml_that_follows_the_page() -> None:
    figure = charts.draw_channels({NASTY: counts(), "_b": counts()}, counts())
    text = charts.to_svg(figure, "channels", 'Shares of "pixels" & <more>')
    root = ElementTree.fromstring(text)
    assert (
        root.attrib["role"] == "img" and root.attrib["aria-label"] == 'Shares of "pixels" & <more>'
    )
    assert "width" not in root.attrib and "viewBox" in root.attrib
    words = [
        "".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")
    ]
    assert NASTY in words and "_b" in words
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert ids and all(name.startswith("channels-") for name in ids)
    assert "var(--series-0, #0072b2)" in text and "currentColor" in text and "var(--faint" in text
    one, two = (
        charts.to_svg(charts.draw_colorfulness({NASTY: [10.0]}, [20.0]), "again", "the same")
        for _ in range(2)
    )
    assert one == two


def test_png_of_a_name_that_the_font_lacks() -> None:
    figure = charts.draw_colorfulness({"照片\n\udc80": [10.0]}, [20.0])
    assert charts.to_png(figure).startswith(b"\x89PNG")


@pytest.mark.slow
def test_drawing_needs_no_pyplot() -> None:
    code = (
        "import sys; from gancolor import charts; charts.to_png(charts.draw_colorfulness({'a':"
        " [10.0]}, [20.0])); print('matplotlib.pyplot' in sys.modules)"
    )
    done = forkserver.run(["-c", code])
    assert done.stdout.strip() == "False", done.stderr


def test_a_sheet_shows_every_pixel(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    figure = charts.draw_sheet(
        ["gray", NASTY], [("one.jpg", [(first, "M 0.0"), (second, "CIEDE2000 7\nM 3.0")])]
    )
    png = charts.to_png(figure, figure.dpi)
    sheet = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert sheet is not None and sheet.shape == (30 + 24 + 160 + 44 + 10, 10 + 2 * 170, 3)
    assert np.array_equal(sheet[54:214, 10:170], first) and np.array_equal(
        sheet[54:214, 180:340], second
    )
    assert sheet[214:, 180:].min() < 100  # the caption
    small = charts.draw_sheet(["gray"], [("one.jpg", [(first[:40, :40], "")])])
    enlarged = cv2.imdecode(
        np.frombuffer(charts.to_png(small, small.dpi), np.uint8), cv2.IMREAD_COLOR_RGB
    )
    assert enlarged is not None and np.array_equal(enlarged[54:214:4, 10:170:4], first[:40, :40])
