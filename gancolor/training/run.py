"""Trains one run from its settings: opens the directory, goes through the loop, leaves checkpoints
and a report.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gancolor.config import TrainConfig
from gancolor.data import facts, loader
from gancolor.data.facts import Identity, identify
from gancolor.data.loader import worker_death
from gancolor.data.source import PictureSource
from gancolor.errors import (
    CheckpointError,
    ConfigError,
    GancolorError,
    TrainingError,
    is_out_of_memory,
    shown,
)
from gancolor.hub import choice
from gancolor.models import count_parameters
from gancolor.presets import PRESETS
from gancolor.runtime import devices, files, machines, processes
from gancolor.storage import checkpoint
from gancolor.training import loop, restart, rundir, validation
from gancolor.training.logbook import Logbook
from gancolor.training.loop import StepReport, StopRule
from gancolor.training.plan import (
    check_identity,
    embedding_size,
    look_for_colors,
    measures_colors,
    needs_sample,
    open_again,
    open_pictures,
    open_validation,
    planned_steps,
    read_held_out,
    read_sample,
)
from gancolor.training.state import State, check_init
from gancolor.training.validation import Validation

_log = logging.getLogger("gancolor")

_WRITE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EFBIG,
}


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or SIGHUP: the step was finished and saved. `exit_code` is 130, 143 or 129."""

    def __init__(self, run: Path, signal: int) -> None:
        super().__init__(f"stopped by a signal; go on with: gancolor train --resume {run}")
        self.exit_code = 128 + signal


def train(
    config: TrainConfig, *, runs_root: str | Path | None = None, resume: Path | None = None
) -> Path:
    """Train a run, or go on with the one in `resume` (whose settings `config` must be, see
    `rundir.merge_settings`).

    Returns the run directory. Raises a GancolorError for whatever the user can mend, `Interrupted`
    after Ctrl-C, SIGTERM or SIGHUP.
    """
    if config.preset not in PRESETS:
        raise ConfigError(f"--preset must be one of {', '.join(PRESETS)}, got {config.preset}")
    device = devices.pick_device(config.device)
    devices.choose(device)
    process = processes.join(device, config)
    try:
        with contextlib.ExitStack() as stack:
            return _train(config, device, process, runs_root, resume, stack)
    except Exception as error:
        # A reader's death is raised wherever this process is, also in the middle of another error.
        known: GancolorError | None = worker_death(error)
        if known is None and isinstance(error, GancolorError):
            known = error
        if known is not None:
            if machines.TorchrunJob.current().machines > 1:
                known.args = (f"on {machines.name()}: {known}",)
            if known is error:
                raise
            raise known from error
        if known := processes.loss(error, config):
            raise known from error
        if not isinstance(error, MemoryError | RuntimeError | OSError):
            raise
        if known := _of_memory(error, config, device):
            raise known from error
        if known := _of_writing(error, resume or checkpoint.runs_root(runs_root)):
            raise known from error
        raise


def _train(
    config: TrainConfig,
    device: torch.device,
    process: processes.Process,
    runs_root: str | Path | None,
    resume: Path | None,
    stack: contextlib.ExitStack,
) -> Path:
    """As `train`. The run is this process's own until `stack` ends."""
    root = checkpoint.runs_root(runs_root)
    processes.check_shared(resume or root)
    begun = None if resume else restart.find(root, config)
    if begun is not None:
        resume, config = begun.run, begun.config
    if resume and process.leads:
        patience = min(restart.LEASE, config.timeout / 2) if begun else 0.0
        stack.enter_context(_alone(resume, patience))
        for part in resume.glob(".*.part"):  # half a file, of a process that was killed
            part.unlink(missing_ok=True)
    saved = restart.load(resume, may_lack=begun is not None) if resume else None
    if saved is not None:
        _check_same(saved["config"], config)
    pictures = open_pictures(config, "train") if saved is None else open_again(config, saved)
    identity = identify(pictures)
    if saved is not None:
        check_identity(identity, saved, config)
    elif not measures_colors(config):
        look_for_colors(config, pictures)
    read = read_held_out(config) if process.leads else None
    init = _open_init(config, runs_root) if config.init is not None and saved is None else None
    state = State(config, device, saved, init)
    if saved is None and needs_sample(config):
        state.calibrate(read_sample(config, pictures))
    held_out = None
    if read is not None:
        held_out = open_validation(state, read)
        if state.embedder is not None:
            # a checkpoint will need it: what is missing is said before anything is written
            state.embedder.state()
    job, run = restart.job_now(), Path()
    if process.leads:
        run = resume or rundir.create(root, config, job)
        if not resume:
            stack.enter_context(_alone(run))
    run = root / processes.from_leader(run.name) if resume is None else resume
    try:
        if resume and process.leads:
            rundir.write_config(run, config, job)
        return _Run(config, run, state, pictures, identity, held_out, process, begun).go()
    except (OSError, GancolorError) as error:
        if not run.is_dir():
            raise CheckpointError(
                f"{shown(run)} is gone: it was deleted or moved while it was trained; put it back"
                " and go on with --resume, or start again"
            ) from error
        if known := _of_writing(error, run):
            raise known from error
        raise


def _alone(run: Path, patience: float = 0.0) -> contextlib.AbstractContextManager[None]:
    """Hold a run for one process. DataError when another one trains it, after `patience` seconds."""
    words = f"{shown(run)} is being trained by another process; wait for it, or stop it"
    return files.locked(run / ".lock", words, patience=patience)


def _of_writing(error: BaseException, place: Path) -> GancolorError | None:
    """That a run could not be written; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _WRITE_ERRORS:
        return None
    return CheckpointError(f"{shown(place)} could not be written ({error.strerror}); free its disk")


def _of_memory(
    error: BaseException, config: TrainConfig, device: torch.device
) -> TrainingError | None:
    """What to do where memory ran out; None for any other error."""
    if not is_out_of_memory(error):
        return None
    workers = (
        ""
        if config.workers == 0
        else f", --workers {'auto' if config.workers is None else config.workers}"
    )
    cache = " and --cache ram" if config.cache == "ram" else ""
    return TrainingError(
        f"the memory of {device} must hold a step, it is full at --batch-size {config.batch_size},"
        f" --image-size {config.image_size}{workers}{cache}; use smaller ones, or close other"
        " programs"
    )


class _Run:
    """The bookkeeping around the loop."""

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        state: State,
        pictures: PictureSource,
        identity: Identity,
        held_out: Validation | None,
        process: processes.Process,
        begun: restart.Begun | None,
    ) -> None:
        self.config, self.run, self.state, self.pictures = config, run, state, pictures
        self.identity, self.held_out, self.process = identity, held_out, process
        self.begun = begun
        self.limit = config.time_limit
        if begun and self.limit is not None:  # one training, however often it is started
            self.limit = max(0.0, self.limit - state.seconds)
        self.total = planned_steps(config, len(pictures))
        self.book: Logbook | None = None
        self.gray: dict[str, float] = {}
        self.broken: set[str] = set()
        self.sums: dict[str, tuple[float, int]] = {}  # sum and count since the last log line
        self.logged_at, self.logged_step, self.waited = time.monotonic(), state.step, 0.0
        self.busy, self.started_at, self.started_seen = 0.0, time.monotonic(), state.seen
        self.counted_to = time.monotonic()  # what `busy` and the state's seconds hold so far

    def go(self) -> Path:
        config, state = self.config, self.state
        stopper = StopRule(self.total, self.limit, state.device, state.seconds)
        if self.process.leads:
            news = restart.words(self.begun, state.step, self.run) if self.begun else ""
            self.book = Logbook(self.run, config, state.step, self.total)
            self._introduce()
            if news:
                self.book.restart(state.step, news)
        batches = loader.batches(
            self.pictures,
            config=config,
            start_step=state.step,
            rank=self.process.rank,
            world=self.process.world,
            embedding_size=embedding_size(config),
        )
        try:
            self.logged_at = self.started_at = self.counted_to = time.monotonic()
            reason = loop.fit(state, batches, stopper, self.process.rank, self._after)
            self.broken = set().union(*processes.gather(self.broken))
            if reason == "signal":
                self._save()
                processes.wait()  # a process that ends early makes torchrun end the one that saves
                raise Interrupted(self.run, stopper.signal)
            self._finish(reason)
            processes.wait()
        finally:
            if self.book:
                self.book.close()
        return self.run

    def _introduce(self) -> None:
        assert self.book is not None and self.held_out is not None
        self.gray = self.held_out.gray()
        trainable, frozen = count_parameters(self.state.generator, self.state.discriminator)
        self.book.say(
            f"{self.run}: {len(self.pictures)} pictures to train on, {len(self.held_out.rgb)} held"
            f" out; {trainable / 1e6:.1f} M trainable and {frozen / 1e6:.1f} M frozen parameters;"
            f" {self.state.device}, {str(self.state.dtype).removeprefix('torch.')};"
            f" {self.state.weights}"
        )
        self.book.say(f"best.pt is chosen by {validation.RULE}")

    def _after(self, report: StepReport, batch: Any, waited: float) -> None:
        state, config = self.state, self.config
        self.waited += waited
        for name in batch.broken:
            self.broken.add(name)  # the loader named it in the log
        values = {**report.terms, **report.statistics}
        for verdict in state.health.update(state.step - 1, values, state.optimizers):
            if self.book:
                self.book.verdict(state.step, verdict)
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)
        if self.book:
            self.book.advance(state.step)
        if state.step % config.log_every == 0:
            self._log_line()
        if state.step % config.validate_every == 0 and state.step != self.total:
            self._validate()
        if state.step % config.checkpoint_every == 0 and state.step != self.total:
            self._save()

    def _log_line(self) -> None:
        state, steps = self.state, self.state.step - self.logged_step
        elapsed = max(1e-9, time.monotonic() - self.logged_at)
        values = {name: total / count for name, (total, count) in self.sums.items()}
        values |= _paper_names(values)
        values |= {
            f"lr/{name}": optimizer.param_groups[0]["lr"]
            for name, optimizer in state.optimizers.items()
        }
        rate = steps * self.config.batch_size / elapsed
        values |= {"images_per_second": rate, "waiting": self.waited / elapsed, "seen": state.seen}
        values["epoch"] = state.seen / len(self.pictures)
        words = " ".join(
            f"{key} {values[key]:.3f}" for key in ("D_loss", "G_loss", "MAE") if key in values
        )
        if self.book:
            self.book.scalars(state.step, values, f"{words} {rate:.1f} images/s{self._left(rate)}")
        self.sums, self.waited = {}, 0.0
        self.logged_step, self.logged_at = state.step, time.monotonic()

    def _left(self, rate: float) -> str:
        seconds = []
        if self.total is not None:
            seconds.append((self.total - self.state.step) * self.config.batch_size / rate)
        if self.limit is not None:
            seconds.append(self.limit - (time.monotonic() - self.started_at))
        return f", {max(0.0, min(seconds)) / 60:.1f} min left" if seconds else ""

    @contextlib.contextmanager
    def _off_the_clock(self) -> Iterator[None]:
        """Validation and saving count as time of the run, not as time of the training step."""
        start = time.monotonic()
        self.busy += start - self.counted_to
        self.state.seconds += start - self.counted_to
        self.counted_to = start
        yield
        self.counted_to = time.monotonic()
        self.logged_at += self.counted_to - start
        self.state.seconds += self.counted_to - start

    def _validate(self) -> dict[str, float]:
        if self.book is None or self.held_out is None:
            return {}
        with self._off_the_clock():
            generator = self.state.averaged
            values = self.held_out.measure(generator)
            self.book.validation(
                self.state.step,
                values,
                self.gray,
                self.held_out.grid(generator, self.state.discriminator),
            )
            if validation.score(values) < self.state.best:
                self.state.best = validation.score(values)
                content = {**self.state.colorizer_dict(), "val": values, "gray": self.gray}
                checkpoint.save(self.run / "best.pt", content, self.config)
        return values

    def _save(self) -> None:
        if self.book is None:
            return
        with self._off_the_clock():
            content = {**self.state.state_dict(), "set": self.identity.to_json()}
            checkpoint.save(self.run / "last.pt", content, self.config, keep=self.run / "last-1.pt")

    def _finish(self, reason: str) -> None:
        if self.book is None:
            return
        if self.state.step > self.logged_step:
            self._log_line()
        values = {}
        try:
            values = self._validate()
        finally:
            self._save()  # after the validation: the best score is part of it
        seen = self.state.seen - self.started_seen
        report = {
            "step": self.state.step,
            "seen": self.state.seen,
            "seconds": round(self.state.seconds, 3),
            "images_per_second": round(
                seen / self.busy if seen else self.state.seen / self.state.seconds, 3
            ),
            "val": values,
            "gray": self.gray,
        }
        files.write_whole(self.run / "report.json", json.dumps(report, indent=2) + "\n")
        broken = f"{len(self.broken)} broken pictures were left out"
        licence = facts.find(self.config.dataset, self.config.datasets_root).licence
        data = (
            f"`{self.config.dataset}`, {len(self.pictures)} to train on; {broken}. Licence:"
            f" {licence}"
        )
        rundir.write_card(
            self.run, self.config, report, _best_words(self.run), self.state.weights, data
        )
        self.book.compare(self.config, values)
        if self.broken:
            self.book.say(broken)
        ended = "its steps are done" if reason == "steps" else "the time is up"
        self.book.say(
            f"{ended}; {self.run / 'report.json'} has the figures. Colour pictures: gancolor sample"
            f" --run {self.run}"
        )


def _best_words(run: Path) -> str:
    best = checkpoint.load(run / "best.pt")
    return (
        f"best.pt, which colours pictures, is of step {best['step']}: CIEDE2000"
        f" {best['val']['ciede2000']:.2f}, colorfulness {best['val']['colorfulness']:.1f} of"
        f" {best['val']['colorfulness_truth']:.1f}"
    )


def _paper_names(values: dict[str, float]) -> dict[str, float]:
    """D_loss, G_loss and MAE as the poster's table has them."""
    named = {}
    for title, prefix in (("D_loss", "discriminator/"), ("G_loss", "generator/")):
        if terms := [value for name, value in values.items() if name.startswith(prefix)]:
            named[title] = sum(terms)
    if "mae" in values:
        named["MAE"] = values.pop("mae")
    return named


def _open_init(config: TrainConfig, runs_root: str | Path | None) -> dict[str, Any]:
    """The model that `--init` names."""
    content = choice.open_to_start(str(config.init), checkpoint.runs_root(runs_root))
    check_init(config, content["config"])
    return content


def _check_same(saved: TrainConfig, config: TrainConfig) -> None:
    """config.json and the checkpoint must tell the same story."""
    try:
        rundir.merge_settings(saved, config.to_json())
    except ConfigError as error:
        raise CheckpointError(
            f"the run's config.json and its checkpoint differ: {error}"
        ) from error
