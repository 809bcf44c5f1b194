"""Building blocks: BatchNorm over processes equals BatchNorm of the whole batch; padding;
initialization.
"""

from __future__ import annotations

import math
from pathlib import Path

import forkserver
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gancolor.errors import ConfigError
from gancolor.models.layers import (
    LAST_GAIN,
    BatchNorm1d,
    BatchNorm2d,
    Expanding,
    double_conv,
    initialize,
    reflect_pad,
)

SHARES = (3, 2)  # pictures of each process: unequal on purpose


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        double_conv(3, 4),
        nn.Flatten(),
        nn.Linear(64, 5, bias=False),
        BatchNorm1d(5),
        nn.LeakyReLU(0.2),
    )
    for part in net.modules():
        if isinstance(part, BatchNorm1d | BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 2.0)
            nn.init.uniform_(part.bias, -1.0, 1.0)
    return net


def run_net(x: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Two training steps' worth of statistics, then outputs, gradients and buffers."""
    net = small_net().train()
    net(x * 2 + 1)
    x = x.clone().requires_grad_()
    out = net(x)
    ((out - targets) ** 2).sum().backward()
    assert x.grad is not None
    result = {"out": out.detach(), "input gradient": x.grad}
    result |= {
        f"gradient {name}": p.grad for name, p in net.named_parameters() if p.grad is not None
    }
    return result | {name: value.detach() for name, value in net.named_buffers()}


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(SHARES), 3, 4, 4, generator=generator) + 2
    return x, torch.randn(sum(SHARES), 5, generator=generator)


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, targets = (part.split(SHARES)[rank] for part in batch())
    result = run_net(x, targets)
    for name, value in result.items():
        if name.startswith("gradient"):
            dist.all_reduce(value)
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_normalize_like_one(tmp_path: Path) -> None:
    whole = run_net(*batch())
    code = "import sys, test_layers; test_layers.one_of_two(int(sys.argv[1]), sys.argv[2])"
    pair = [
        forkserver.Popen(["-c", code, str(rank), str(tmp_path)], cwd=Path(__file__).parent)
        for rank in range(2)
    ]
    assert [process.wait(60) for process in pair] == [0, 0]
    shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, value in whole.items():
        if name in ("out", "input gradient"):
            got = torch.cat([share[name] for share in shares])
        else:
            got = shares[0][name]
            assert torch.equal(got, shares[1][name]), name  # the processes never drift apart
        scale = max(1.0, float(value.abs().max()))
        assert float((got - value).abs().max()) <= 1e-5 * scale, name
    # This would fail, had each process used its own statistics:
    alone = run_net(*(part.split(SHARES)[0] for part in batch()))
    assert float((alone["out"] - whole["out"][: SHARES[0]]).abs().max()) > 1e-2


def test_batch_norm_alone_is_torchs() -> None:
    x = torch.randn(4, 3, 5, 5)
    ours, torchs = BatchNorm2d(3), nn.BatchNorm2d(3)
    assert torch.equal(ours(x), torchs(x))
    assert torch.equal(ours.running_var, torchs.running_var)
    assert ours.state_dict().keys() == torchs.state_dict().keys()


@pytest.mark.parametrize(
    ("layer", "shape"), [(BatchNorm2d(3), (2, 3, 8, 8)), (BatchNorm1d(3), (64, 3))]
)
def test_batch_norm_of_bfloat16_keeps_float32_statistics(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    out = layer((torch.randn(shape) * 3 + 40).bfloat16())
    assert out.dtype == torch.bfloat16
    mean = layer.running_mean
    assert isinstance(mean, Tensor) and mean.dtype == torch.float32
    assert float((mean - 4.0).abs().max()) < 0.15  # momentum 0.1
    assert abs(float(out.detach().float().std()) - 1) < 0.05


@pytest.mark.parametrize(
    ("layer", "shape"), [(BatchNorm2d(3), (1, 3, 1, 1)), (BatchNorm1d(3), (1, 3))]
)
def test_a_single_value_has_no_variance(layer: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="--batch-size"):
        layer(torch.zeros(shape))
    assert layer.eval()(torch.zeros(shape)).shape == shape


def test_double_conv_is_the_posters_level() -> None:
    kinds = [type(layer).__name__ for layer in double_conv(3, 4)]
    assert kinds == ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 2
    assert double_conv(3, 4)(torch.zeros(2, 3, 5, 7)).shape == (2, 4, 5, 7)


def test_what_is_beside_an_expanding_level_is_added_behind_its_first_convolution() -> None:
    torch.manual_seed(0)
    level = Expanding(4, 2, 3).eval()
    first, *others = level
    assert [type(layer).__name__ for layer in others] == [
        "BatchNorm2d",
        "LeakyReLU",
        "Conv2d",
        "BatchNorm2d",
        "LeakyReLU",
    ]
    below, skip, beside = (
        torch.rand(2, 4, 5, 6),
        torch.rand(2, 2, 10, 12),
        torch.randn(2, 3, 10, 12),
    )
    plain = level(below, skip)
    assert torch.equal(plain, level(below, skip, torch.zeros_like(beside)))
    expected = nn.Sequential(*others)(first(below, skip) + beside)
    torch.testing.assert_close(level(below, skip, beside), expected)
    assert not torch.allclose(expected, plain)


def test_initialization_keeps_the_size_of_activations() -> None:
    torch.manual_seed(0)
    last = nn.Conv2d(64, 2, 3)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Linear(100, 200), BatchNorm2d(64), last)
    initialize(net, last=last)
    gain = math.sqrt(2 / (1 + 0.2**2))
    for part, fan_in, factor in ((net[0], 27, 1.0), (net[1], 100, 1.0), (last, 576, LAST_GAIN)):
        assert float(part.weight.detach().std()) == pytest.approx(
            factor * gain / math.sqrt(fan_in), rel=0.1
        )
        assert float(part.bias.detach().abs().max()) == 0
    assert torch.equal(net[2].weight, torch.ones(64)) and torch.equal(net[2].bias, torch.zeros(64))


def test_initialization_follows_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        layer = nn.Linear(4, 4)
        initialize(layer)
        return layer.weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (17, 33), (32, 64), (255, 257)])
def test_reflect_pad_fits_and_crops_back(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    padded, (rows, columns) = reflect_pad(x, 32)
    assert padded.shape[-2] % 32 == 0 and padded.shape[-1] % 32 == 0
    assert padded.shape[-2] - size[0] < 32 and padded.shape[-1] - size[1] < 32
    assert torch.equal(padded[..., rows, columns], x)


def test_reflect_pad_reflects() -> None:
    x = torch.arange(6.0).view(1, 1, 1, 6)
    assert reflect_pad(x, 8)[0][0, 0, 0].tolist() == [1, 0, 1, 2, 3, 4, 5, 4]
    few = torch.tensor([7.0, 8.0, 9.0]).view(1, 1, 3, 1)
    assert reflect_pad(few, 10)[0][0, 0, :, 0].tolist() == [8, 9, 8, 7, 8, 9, 8, 7, 8, 9]
    torch.testing.assert_close(
        reflect_pad(torch.eye(9)[None, None], 16)[0],
        nn.functional.pad(torch.eye(9)[None, None], (3, 4, 3, 4), "reflect"),
    )


def test_reflect_pad_leaves_fitting_sizes_alone() -> None:
    x = torch.rand(1, 1, 32, 64)
    assert reflect_pad(x, 32)[0] is x
