"""What the tables of the networks say, measured on the networks themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn


class Level(NamedTuple):
    """One row of a network's table: a level's output and how many parameters it has."""

    name: str
    channels: int
    height: int
    width: int
    parameters: int


def measure_levels(
    network: nn.Module, parts: Iterable[tuple[str, nn.Module]], *inputs: Any
) -> list[Level]:
    """A row for each of `parts`, in the order of the computation, of one forward of `inputs`.

    Of a part that returns several maps, the last counts. A slice of an nn.Sequential is no module
    of the network, so its last layer is watched.
    """
    modules = set(network.modules())
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str, part: nn.Module) -> Any:
        def note(module: nn.Module, inputs: object, output: Tensor | list[Tensor]) -> None:
            last = output if isinstance(output, Tensor) else output[-1]
            shapes[name] = tuple(last.shape[1:])

        watched = part if part in modules else list(part.children())[-1]
        return watched.register_forward_hook(note)

    named = dict(parts)
    hooks = [watch(name, part) for name, part in named.items()]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in named.items()}
    return [Level(name, *shapes[name], counts[name]) for name in named]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimizer trains."""
    return [p for p in module.parameters() if p.requires_grad]
