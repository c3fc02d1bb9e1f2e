"""What the training and the test tool have in common: arguments, configs, work directories, errors."""

import logging
import os
import re
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from .checkpoint import TRUST_FLAG, loading_policy
from .config_checks import check_config
from .config_options import ALLOW_FLAG, apply_cfg_options
from .distributed import leave_process_group
from .error_report import interrupted, user_message
from .errors import OccError
from .file_io import check_writable


class CfgOptionsAction(DictAction):
    """mmengine's action for ``KEY=VALUE``, which would remove the spaces of texts such as paths; here they stay.

    Spaces beside the brackets and commas of lists and tuples, and at both ends, have no meaning, as there.
    """

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        # an argument cannot contain this character
        kept = re.sub('(?<=[^[(, ]) +(?=[^]), ])', lambda spaces: '\0' * len(spaces[0]), val.strip('\'" '))
        return _with_spaces(DictAction._parse_iterable(kept))


def _with_spaces(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_with_spaces, value))
    return value.replace('\0', ' ') if isinstance(value, str) else value


def add_common_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments that both tools take; names and meanings are those of mmdet3d's tools."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptionsAction,
        default={},
        metavar='KEY=VALUE',
        help='change values of the config, for example optim_wrapper.optimizer.lr=1e-4 '
        'train_dataloader.dataset.pipeline.0.type=Name key="[1,2]" key=None',
    )
    parser.add_argument(ALLOW_FLAG, action='store_true', help='let --cfg-options add keys that the config does not have')
    parser.add_argument(
        TRUST_FLAG,
        action='store_true',
        help='load checkpoints that contain Python objects; such a file can run any code, use it for files you trust alone',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by launchers')


def read_config(args: Namespace) -> Config:
    """Reads the config named by the arguments ``config``, ``cfg_options`` and ``allow_new_keys``.

    Raises:
        OccError: If the file is not valid Python or an option is wrong.
    """
    try:
        cfg = Config.fromfile(args.config)
    except SyntaxError as error:
        raise OccError(f'config {args.config!r} or a base of it is not valid Python: {error}') from error
    apply_cfg_options(cfg, args.cfg_options, args.allow_new_keys)
    return cfg


def load_config(args: Namespace) -> Config:
    """Reads the config named by the arguments, merges ``--cfg-options`` and decides the work directory.

    Returns:
        The config; its ``work_dir`` exists and is writable.

    Raises:
        OccError: If the file does not exist or cannot be read, an option is wrong, or the work directory cannot be written.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = Path(args.config)
    if not path.is_file():
        raise OccError(f'config {args.config!r} does not exist; the configs lie in {Path("configs")}/<model>/')
    # a wrong directory given on the command line is reported before the slow part
    if args.work_dir is not None:
        check_writable(args.work_dir, '--work-dir')
    cfg = read_config(args)
    check_config(cfg)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    check_writable(cfg.work_dir, '--work-dir')
    return cfg


def run_tool(tool: Callable[[Namespace], None], args: Namespace) -> int:
    """Runs a tool under the loading policy of the arguments and turns its errors into one sentence.

    Args:
        tool: Does the work.
        args: Parsed arguments.

    Returns:
        Exit code: 0; 1 after an error that explains itself, whose stack trace goes to the log file only; 130 after Ctrl-C.
        Other errors pass.
    """
    try:
        with loading_policy(args.trust_checkpoint):
            tool(args)
    except (Exception, KeyboardInterrupt) as error:
        if interrupted(error):
            print('interrupted; a training goes on from its latest checkpoint with --resume', file=sys.stderr)
            return 130
        message = user_message(error)
        if message is None:
            raise
        print(f'error: {message}', file=sys.stderr)
        _log_to_files(traceback.format_exc())
        return 1
    leave_process_group()
    return 0


def _log_to_files(message: str) -> None:
    """Writes an error to the log files of the run alone; the console has it already."""
    if not MMLogger._instance_dict:
        return
    logger = MMLogger.get_current_instance()
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(record)
