"""The training loop: steps until a rule says stop, each of them the phases that are due.

The loop knows no loss by name. What changes over a run is a function of its progress, the share of
it that is over, from 0 to 1.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gancolor.config import TrainConfig
from gancolor.data.loader import Batch
from gancolor.errors import TrainingError
from gancolor.models.layers import keep_statistics
from gancolor.runtime import gradients, processes
from gancolor.runtime.signals import handled
from gancolor.training.health import first_bad
from gancolor.training.objectives import Context, DeviceBatch, Phase
from gancolor.training.state import State

LEAST = 0.01
"""The smallest factor of the learning rates: at the beginning of their rise, at the end of their fall.
"""


@dataclass
class StepReport:
    """What a step tells: `terms` by 'phase/term', `statistics` for the log and the health check."""

    terms: dict[str, float] = field(default_factory=dict)
    statistics: dict[str, float] = field(default_factory=dict)


def fit(
    state: State,
    batches: Iterator[Batch],
    stopper: StopRule,
    rank: int,
    after: Callable[[StepReport, Batch, float], None],
) -> str:
    """Train until `stopper` says so; `after(report, batch, waited_seconds)` follows each step.
    Returns the reason.
    """
    with stopper.listening():
        while (reason := stopper.reason(state.step)) is None:
            start = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - start
            state.progress = stopper.progress(state.step)
            report = train_step(state, batch, rank, state.embed(batch.copies, batch.keys))
            after(report, batch, waited)
    return reason


class StopRule:
    """Decides when to stop: enough steps, the time limit, or a signal (which lets the step finish).

    `spent`: seconds that the run has trained before this process, which its progress counts.
    """

    def __init__(
        self,
        last_step: int | None,
        time_limit: float | None,
        device: torch.device,
        spent: float = 0.0,
    ) -> None:
        self.last_step, self.time_limit = last_step, time_limit
        self.device, self.spent = device, spent
        self.started = time.monotonic()
        self.deadline = None if time_limit is None else self.started + time_limit
        self.signal = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the `stop_signals`; a Ctrl-C after that interrupts at once."""
        with handled(self._note):
            yield

    def _note(self, kind: int, frame: FrameType | None) -> None:
        # Schedulers repeat SIGTERM; a person who repeats Ctrl-C means it.
        if self.signal and kind == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or kind

    def progress(self, step: int) -> float:
        """The share of the run that is over, by its steps or its time, whichever ends it first;
        alike everywhere.

        By steps it is a function of the step alone. By time it follows the clock, and counts what
        was trained before.
        """
        by_steps = 0.0 if self.last_step is None else step / self.last_step
        if self.time_limit is None:
            return min(1.0, by_steps)
        elapsed = time.monotonic() - self.started
        by_time = (self.spent + elapsed) / (self.spent + self.time_limit)
        if processes.active():  # else nothing goes to the device; MPS has no float64
            by_time = float(
                processes.mean(torch.tensor(by_time, dtype=torch.float64, device=self.device))
            )
        return min(1.0, max(by_steps, by_time))

    def reason(self, step: int) -> str | None:
        """Why to stop after this step: 'steps', 'time' or 'signal'; the same on every process."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        agreed = processes.agree_highest(2 * self.signal + late, self.device)
        if agreed >= 2:  # else `signal` is left alone: one may have come while the processes agreed
            self.signal = agreed // 2
            return "signal"
        if self.last_step is not None and step >= self.last_step:
            return "steps"
        return "time" if agreed % 2 else None


def train_step(
    state: State, batch: Batch, rank: int = 0, embedding: Tensor | None = None
) -> StepReport:
    """One step on a batch: every phase that is due at `state.progress`.

    `embedding`: (B, width) of the pictures, for a fusion network (`State.embed`). TrainingError
    when a loss or a gradient is no number; the networks are then as they were before that phase.
    The host waits for the device once, at the end, when all of the step has been handed to it.
    """
    seed_step(state.config.seed, state.step, rank)
    follow(state.config, state.progress, state.optimizers.values())
    due = [phase for phase in state.phases if phase.due(state.progress)]
    edges, squares, aged, is_aged = (
        None if x is None else _to(x, state.device)
        for x in (batch.edges, batch.squares, batch.aged, batch.is_aged)
    )
    pictures = DeviceBatch.of(
        state.config, _to(batch.rgb, state.device), edges, embedding, squares, aged, is_aged
    )
    drawn = draw(state.config.seed, state.step, state.config.batch_size, rank, len(batch.rgb))
    context = _context(state, pictures, due, drawn)
    terms: dict[str, Tensor] = {}
    for phase in due:
        terms |= run_phase(phase, context, state)
    state.scaler.update()
    if state.ema and any(phase.name == "generator" for phase in due):
        state.ema.update(state.generator)
    report = _report(terms, context, state.step)
    state.step += 1
    state.seen += state.config.batch_size
    return report


def run_phase(phase: Phase, context: Context, state: State) -> dict[str, Tensor]:
    """zero_grad, losses, backward, average over processes, unscale, clip, step. Returns the
    detached terms.
    """
    phase.optimizer.zero_grad(set_to_none=True)
    terms = {f"{phase.name}/{name}": term for name, term in phase.losses(context).items()}
    total = torch.stack(list(terms.values())).sum()
    context.checked[phase.name] = processes.mean(total.detach())
    parameters = phase.parameters()
    with gradients.averaged(parameters, state.config):
        state.scaler.scale(total).backward()
    state.scaler.unscale_(phase.optimizer)
    limit = state.config.clip or float("inf")
    norm = nn.utils.clip_grad_norm_(parameters, limit).detach()
    context.statistics[f"grad_norm_{phase.name}"] = norm
    if state.scaler.is_enabled():  # it leaves a step out whose gradient is no number: that is usual
        state.scaler.step(phase.optimizer)
    else:
        context.checked[f"gradient of {phase.name}"] = norm
        _update(phase.optimizer, torch.stack(list(context.checked.values())))
    return {name: term.detach() for name, term in terms.items()}


def _update(optimizer: Optimizer, checked: Tensor) -> None:
    """The optimizer's step, unless one of the `checked` is no number.

    A fused optimizer is told so in a tensor and leaves its step out on the device: no host waits.
    """
    bad = checked.isfinite().all().logical_not()
    if optimizer.param_groups[0]["fused"]:
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # as GradScaler tells it
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
    elif not bad:
        optimizer.step()


def learning_rate(config: TrainConfig, progress: float) -> float:
    """The factor of the learning rates: a linear rise over `lr_warmup` of the run, then constant or
    half a cosine.
    """
    factor = 1.0
    if config.lr_schedule == "cosine":
        over = max(0.0, progress - config.lr_warmup) / (1 - config.lr_warmup)
        factor = 0.5 * (1 + math.cos(math.pi * min(1.0, over)))
    if progress < config.lr_warmup:
        factor *= progress / config.lr_warmup
    return max(LEAST, factor)


def follow(config: TrainConfig, progress: float, optimizers: Iterable[Optimizer]) -> None:
    """Set the optimizers' rates for the next step. (With a constant schedule and no rise, to what
    they were.)
    """
    factor = learning_rate(config, progress)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch from (seed, step, rank): a resumed step draws what it would have drawn."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank)


def draw(seed: int, step: int, batch_size: int, rank: int, share: int) -> Tensor:
    """Random numbers in [0, 1) of a process's pictures, (share, 4), whatever their number."""
    random = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return torch.rand(batch_size, 4, generator=random)[rank * share : (rank + 1) * share]


def _context(state: State, pictures: DeviceBatch, due: list[Phase], drawn: Tensor) -> Context:
    state.generator.train()
    if not state.config.train_norm:
        keep_statistics(state.generator)
    if state.discriminator is not None:
        state.discriminator.train()
    return Context(
        config=state.config,
        step=state.step,
        progress=state.progress,
        pictures=pictures,
        generator=state.generator,
        discriminator=state.discriminator,
        class_weights=state.class_weights,
        drawn=drawn,
        autocast=state.autocast,
        generator_trains=any(phase.name == "generator" for phase in due),
    )


def _report(terms: dict[str, Tensor], context: Context, step: int) -> StepReport:
    """The step's one transfer from the device; the mean over processes, so that all see (and do)
    the same. TrainingError for the first of what was checked that is no number.
    """
    groups = (terms, context.statistics, context.checked)
    if not terms:
        return StepReport()
    values = iter(_read([value for group in groups for value in group.values()]))
    said, statistics, checked = ({name: next(values) for name in group} for group in groups)
    if (bad := first_bad(checked)) is not None:
        own = {name: value for name, value in said.items() if name.startswith(f"{bad}/")}
        raise TrainingError(
            f"{first_bad(own) or bad} must be a finite number, got {checked[bad]} at step {step};"
            " the last checkpoint is kept: try a lower --lr, --clip 1 or --precision fp32"
        )
    return StepReport(said, statistics)


def _read(values: list[Tensor]) -> list[float]:
    """Scalars of the device as numbers, averaged over the processes: here the host waits for it."""
    numbers: list[float] = processes.mean(torch.stack([x.float() for x in values])).tolist()
    return numbers


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=device.type == "cuda")  # the loader pins for CUDA only
