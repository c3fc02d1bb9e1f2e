"""Hooks of mmengine's Runner, one concern each."""

from .checkpoint_hooks import AtomicCheckpointHook, CheckpointKeyHook, PlainCheckpointHook
from .loss_guard_hook import LossGuardHook
from .prediction_writer_hook import PredictionWriterHook
from .random_state_hook import RandomStateHook

__all__ = [
    'AtomicCheckpointHook',
    'CheckpointKeyHook',
    'LossGuardHook',
    'PlainCheckpointHook',
    'PredictionWriterHook',
    'RandomStateHook',
]
