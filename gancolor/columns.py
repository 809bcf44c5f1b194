"""The columns of an evaluation's tables and files."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """A measure: its key in files, its title in tables, decimals, and in which table it stands.

    better: "lower", "higher", "zero" or "one" when nearest to it, or "" where no value is better than another.
    """

    key: str
    title: str
    digits: int
    table: str
    better: str = "lower"
    needs_truth: bool = True


_ERROR, _COLOR, _ALL, _MORE = (
    "Distance from the true picture",
    "Colorfulness",
    "All pictures together",
    "Other variants",
)

COLUMNS = (
    Column("mse_rgb", "MSE", 1, _ERROR),
    Column("mae_rgb", "MAE", 2, _ERROR),
    Column("mae_ab", "MAE a*b*", 2, _ERROR),
    Column("psnr", "PSNR", 2, _ERROR, "higher"),
    Column("ssim", "SSIM", 3, _ERROR, "higher"),
    Column("ciede2000", "CIEDE2000", 2, _ERROR),
    Column("lpips", "LPIPS", 3, _ERROR),
    Column("colorfulness", "M", 2, _COLOR, "", needs_truth=False),
    Column("colorfulness_truth", "M true", 2, _COLOR, ""),
    Column("delta_colorfulness", "mean dM", 2, _COLOR, "zero"),
    Column("abs_difference_of_means", "|diff. of means|", 2, _COLOR),
    Column("mean_abs_difference", "mean |diff.|", 2, _COLOR),
    Column("gray_rate", "gray rate", 3, _COLOR, "", needs_truth=False),
    Column("spread_a", "spread a*", 3, _ALL, "one"),
    Column("spread_b", "spread b*", 3, _ALL, "one"),
    Column("fd_vgg16", "FD VGG16", 1, _ALL),
    Column("told_apart", "told apart %", 1, _ALL),
    Column("fid", "FID", 2, _ALL),
    Column("kid", "KID", 4, _ALL),
    Column("colorfulness_abs", "M abs", 2, _MORE, "", needs_truth=False),
    Column("colorfulness_truth_abs", "M abs true", 2, _MORE, ""),
    Column("mae_unit", "MAE [-1, 1]", 4, _MORE),
)
"""Every figure of a row, in the order of the tables."""

KEYS = tuple(column.key for column in COLUMNS)

LEGENDS = {
    _ERROR: "RGB 0-255, a*b* in CIE units, PSNR in dB; lower is better, but for PSNR and SSIM",
    _COLOR: "M of the prediction and of the truth; dM = prediction - truth; gray rate: share of pictures below 5",
    _ALL: "spreads over the truth's: 1 is right; told apart from the truth: 50 % nobody can tell, 100 % everybody",
    _MORE: "M abs: M of |rg| and |yb|; MAE of RGB in [-1, 1]",
}
"""What is said of each table, by its title, in their order."""
