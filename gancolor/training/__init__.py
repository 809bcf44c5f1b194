"""Training: `train` runs a `TrainConfig` from its pictures to a run directory with checkpoints and a report."""

from gancolor.training.run import Interrupted, train

__all__ = ["Interrupted", "train"]
