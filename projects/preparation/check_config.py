"""Checks the data sets of a config, of whatever source, through the classes that training and testing use."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .command_line import add_check, add_workers, tell_findings
from .findings import Finding

SPLITS = ('train', 'val', 'test')


@dataclass
class _FrameJob:
    """What one frame's files have to fit."""

    info: dict[str, Any]
    origin: str
    masks: tuple[str, ...]


def add_own_data(commands) -> None:
    """Adds the command ``own-data`` to those of ``tools/create_data.py``."""
    parser = commands.add_parser(
        'own-data',
        help='--check --config FILE: look at everything that the data sets of a config read',
        description='Checks data of your own: images, their sizes, matrices and labels of every frame that the train, val and '
        'test sets of a config list. See docs/add_a_dataset.md.',
    )
    parser.add_argument(
        '--config', type=Path, required=True, help='config with train_dataloader, val_dataloader, test_dataloader'
    )
    parser.add_argument('--splits', nargs='+', default=list(SPLITS), choices=SPLITS, help='default: those that the config has')
    add_check(parser)
    add_workers(parser)
    parser.set_defaults(run=_run_own_data)


def _run_own_data(args: argparse.Namespace) -> int:
    from mmengine.config import Config

    if not args.check:
        raise ValueError('own-data only checks: add --check')
    return tell_findings(check_config(Config.fromfile(str(args.config)), args.splits, args.workers), args.report)


def check_config(cfg: Mapping[str, Any], splits: Sequence[str] = SPLITS, workers: int = 1) -> list[Finding]:
    """Looks at every file of the data sets of a config.

    Images: there, complete, of the size of their intrinsics. Matrices: rigid, finite, not inverted. Labels: there, complete,
    of the shape, type and classes of the grid, with the masks that the pipeline demands. Data sets must list frames as
    ``FrameDataset`` does.

    Args:
        cfg: The config; its ``custom_imports`` are imported already.
        splits: Data sets to look at, as far as the config has them.
        workers: Processes.

    Returns:
        Findings; empty if all is well.

    Raises:
        ValueError: If the config has none of the data sets.
    """
    from mmengine.registry import DATASETS, init_default_scope

    import projects.occ.datasets  # noqa: F401 - registers the data sets

    from .parallel import map_jobs

    init_default_scope('mmdet3d')
    findings: list[Finding] = []
    jobs: dict[tuple, _FrameJob] = {}
    found = [split for split in splits if (cfg.get(f'{split}_dataloader') or {}).get('dataset')]
    if not found:
        raise ValueError(f'the config has no {" or ".join(f"{split}_dataloader.dataset" for split in splits)}')
    for split in found:
        settings = cfg[f'{split}_dataloader']['dataset']
        while 'grid' not in settings and 'dataset' in settings:  # of a wrapper that repeats frames, for example
            settings = settings['dataset']
        steps = [step for step in settings.get('pipeline') or () if 'masks' in step and 'Label' in str(step['type'])]
        dataset = DATASETS.build({**settings, 'pipeline': [], 'test_mode': False, 'skip_corrupt': False})
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            masks = tuple(steps[0]['masks']) if steps else tuple(info.get('label_masks') or ())
            key = (info['token'], info.get('occ_path', ''), *info.get('img_paths', ()))
            jobs[key] = _FrameJob(info, str(getattr(dataset, 'ann_file', '') or split), masks)
    for result in map_jobs(_check_frame, list(jobs.values()), workers, 'checking'):
        findings += result
    return findings


def _check_frame(job: _FrameJob) -> list[Finding]:
    from projects.occ.structures.frame_record import size_problem

    from .check_files import check_image, check_label

    info = job.info
    findings = [
        Finding('intrinsics' if 'cam2img' in problem else 'matrix', job.origin, f'frame {info["token"]}: {problem}')
        for problem in _matrix_problems(info)
    ]
    for view, path in enumerate(info.get('img_paths', ())):
        found, size = check_image(Path(path))
        findings += found
        if size is not None:
            problem = size_problem(info['cam2img'][view], size, info['cam2img_wh'][view])
            findings += [Finding('image-size', path, f'{problem} (frame {info["token"]})')] if problem else []
    label = info.get('occ_path')
    if label:
        findings += check_label(Path(label), info['grid'], 'make it again', job.masks)[0]
    else:
        findings.append(Finding('label-missing', job.origin, f'frame {info["token"]} names no label'))
    return findings


def _matrix_problems(info: Mapping[str, Any]) -> list[str]:
    from projects.occ.structures.cameras import INVERTED, looks_inverted

    problems = []
    for name, cam2img, ref2cam in zip(info['cam_names'], info['cam2img'], info['ref2cam']):
        rotation = ref2cam[:3, :3]
        if not (np.isfinite(cam2img).all() and min(cam2img[0, 0], cam2img[1, 1]) > 0):
            problems.append(f'{name}.cam2img has no positive finite focal lengths')
        if not np.isfinite(ref2cam).all() or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-4:
            problems.append(f'the rotation of {name}.ref2cam is not orthonormal')
    if looks_inverted(np.asarray(info['ref2cam'])):
        problems.append(f'ref2cam {INVERTED}')
    return problems
