"""Saves a training to a checkpoint file, and resumes a training from one.

A checkpoint holds what training changes: the weights of the trained blocks and the head, the optimizers, the method's
own state, and the weights of the best epoch. It never holds the frozen part of the backbone. Everything random (the
order of the data, augmentation, dropout) is a function of the seed and the epoch and needs no state.
"""

from __future__ import annotations

from pathlib import Path

from trainables.epoch_metrics import EpochMetrics
from trainables.errors import DataError
from trainables.training.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from trainables.training.training import Training


def save_training(training: Training, path: Path) -> None:
    """Write a checkpoint of ``training`` after its last epoch to ``path``.

    Raises:
        OSError: the disk is full or cannot be written to; an earlier checkpoint at ``path`` is kept.
    """
    with training.account.timing("checkpoint"):
        # If the last epoch is the best one, both are the same list: the file then stores these weights once.
        newest_is_best = training.best is training.last
        weights = training.best_weights if newest_is_best else training.program.read_weights()
        best, last = (vars(metrics) if metrics else None for metrics in (training.best, training.last))
        state = Checkpoint(
            training.epoch,
            weights,
            [*training.program.read_optimizer(), *training.method_state()],
            training.best_weights,
            best,
            last,
            feed_state=training.feed.describe(),
            account=training.account.describe(),
            history=[vars(metrics) for metrics in training.history],
        )
        write_checkpoint(path, state)


def load_training(training: Training, path: Path) -> None:
    """Bring ``training``, which has run no epoch yet, to the state in which :func:`save_training` wrote ``path``.

    The trial sees its images as it did before, whatever the reuse policy would decide now. Activations that were kept
    and cannot be kept any longer are computed in each epoch, with the same bits. If the memory cannot hold those of one
    epoch, the prefix runs in the trial's own steps, which changes the last bits of float32.

    Raises:
        DataError: the file is missing, damaged, of another format or of another trial. The training is unusable
            then: release it and begin another.
    """
    checkpoint = read_checkpoint(path)
    try:
        if checkpoint.feed_state is not None:
            training.restore_feed(checkpoint.feed_state)
        if checkpoint.account is not None:
            training.account.carry_over(checkpoint.account)
        # The method's own arrays are the last ones behind the optimizers'.
        end = len(checkpoint.optimizer) - training.state_size
        training.program.write(checkpoint.weights, checkpoint.optimizer[:end])
        training.restore_method_state(checkpoint.optimizer[end:])
        best, last = (
            EpochMetrics(**metrics) if metrics else None  # type: ignore[arg-type]
            for metrics in (checkpoint.best, checkpoint.last)
        )
        saved = checkpoint.history if checkpoint.history is not None else [checkpoint.last or {}]
        history = [EpochMetrics(**metrics) for metrics in saved if metrics]  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"checkpoint {path}: expected one of this trial, received {error}") from error
    training.epoch = checkpoint.epoch
    training.best_weights = checkpoint.best_weights
    training.best, training.last, training.history = best, last, history
