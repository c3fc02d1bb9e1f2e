"""Everything around the training loop: checkpoints, hooks, precision, processes, command-line options.

Importing this package registers its parts with mmdet3d's registries and makes mmengine load checkpoints as plain data.
"""

from .averaging import RampedEMA
from .checkpoint import compare_keys, find_latest_checkpoint, install_safe_globals, load_from_local, loading_policy
from .config_options import apply_cfg_options
from .distributed import DeviceAwareDistributedDataParallel, prepare_launch
from .errors import CheckpointError, ConfigOptionError, LaunchError, NonFiniteLossError, OccError, WorkDirError
from .file_io import AtomicLocalBackend, check_writable
from .hooks import (
    AtomicCheckpointHook,
    CheckpointKeyHook,
    LoaderWorkersHook,
    LossGuardHook,
    NormStatisticsHook,
    PlainCheckpointHook,
    PredictionWriterHook,
    RandomStateHook,
    ResumeSettingsHook,
    TeacherStudentHook,
)
from .labelled_sampler import LabelledUnlabelledSampler
from .loops import ResumableTrainLoop
from .optim_wrapper import CPUAmpOptimWrapper, enable_amp
from .runner import OccRunner
from .schedule import fit_schedule

__all__ = [
    'AtomicCheckpointHook',
    'AtomicLocalBackend',
    'CPUAmpOptimWrapper',
    'CheckpointError',
    'CheckpointKeyHook',
    'ConfigOptionError',
    'DeviceAwareDistributedDataParallel',
    'LabelledUnlabelledSampler',
    'LaunchError',
    'LoaderWorkersHook',
    'LossGuardHook',
    'NonFiniteLossError',
    'NormStatisticsHook',
    'OccError',
    'OccRunner',
    'PlainCheckpointHook',
    'PredictionWriterHook',
    'RampedEMA',
    'RandomStateHook',
    'ResumableTrainLoop',
    'ResumeSettingsHook',
    'TeacherStudentHook',
    'WorkDirError',
    'apply_cfg_options',
    'check_writable',
    'compare_keys',
    'enable_amp',
    'find_latest_checkpoint',
    'fit_schedule',
    'install_safe_globals',
    'load_from_local',
    'loading_policy',
    'prepare_launch',
]
