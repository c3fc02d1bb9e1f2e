"""Hooks of mmengine's Runner, one concern each."""

from .checkpoint_hooks import AtomicCheckpointHook, CheckpointKeyHook, PlainCheckpointHook
from .loader_workers_hook import LoaderWorkersHook
from .loss_guard_hook import LossGuardHook
from .norm_statistics_hook import NormStatisticsHook
from .prediction_writer_hook import PredictionWriterHook
from .random_state_hook import RandomStateHook
from .resume_settings_hook import ResumeSettingsHook
from .teacher_student_hook import TeacherStudentHook

__all__ = [
    'AtomicCheckpointHook',
    'CheckpointKeyHook',
    'LoaderWorkersHook',
    'LossGuardHook',
    'NormStatisticsHook',
    'PlainCheckpointHook',
    'PredictionWriterHook',
    'RandomStateHook',
    'ResumeSettingsHook',
    'TeacherStudentHook',
]
