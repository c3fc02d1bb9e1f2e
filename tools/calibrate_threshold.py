"""Finds the density above which voxels are occupied, for heads that predict a density (RenderOcc; ``occ_head.threshold``).

    python tools/calibrate_threshold.py CONFIG CHECKPOINT [--metric mIoU] [--frames 500] [--out threshold.json]

Runs the model over its validation set (``--split train``: the training set, for numbers that the validation set is kept for),
tries every threshold at once, and prints the option that sets the best one in a test or a config.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmdet3d.registry import DATASETS, METRICS, MODELS  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.device import get_device  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.runner.checkpoint import CheckpointLoader  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.engine.checkpoint import check_checkpoint_file, load_weights_strictly  # noqa: E402
from projects.occ.engine.command_line import add_common_arguments, load_config, run_tool  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.evaluators import find_evaluator  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402
from projects.occ.engine.metrics_file import write_metrics  # noqa: E402
from projects.occ.evaluation.functional import ThresholdSearch  # noqa: E402
from projects.occ.structures.masks import MASK_FIELDS  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    add_common_arguments(parser)
    parser.add_argument('--split', choices=('val', 'train'), default='val', help='frames to calibrate on (default: val)')
    parser.add_argument('--metric', choices=('mIoU', 'IoU'), default='mIoU', help='what is made largest (default: mIoU)')
    parser.add_argument('--frames', type=int, metavar='N', help='N frames, evenly spread over the split (default: all)')
    parser.add_argument('--out', metavar='FILE', help='write threshold and scores as JSON')
    return parser.parse_args(argv)


def calibrate(args: argparse.Namespace) -> None:
    """Calibrates as the arguments say.

    Raises:
        OccError: If the head does not decide by a threshold, or the config cannot say what counts.
    """
    check_checkpoint_file(args.checkpoint)
    if args.out:
        check_writable(Path(args.out).parent, '--out')
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    metric = METRICS.build(find_evaluator(cfg.val_evaluator, 'OccupancyMetric', 'which says which voxels count'))
    model = MODELS.build(cfg.model)
    if getattr(model.occ_head, 'rule', None) != 'threshold':
        raise OccError(
            f"{type(model.occ_head).__name__} does not decide by a density threshold (occ_head.rule='threshold'); there is "
            'nothing to calibrate'
        )
    load_weights_strictly(model, CheckpointLoader.load_checkpoint(args.checkpoint, map_location='cpu'))
    model = model.to(get_device()).eval()
    before = model.occ_head.threshold
    # every voxel then has the class that it would have if it were occupied
    model.occ_head.threshold = -float('inf')
    # labels are needed, augmentation and drawn rays are not
    config = dict(cfg.val_dataloader.dataset)
    if args.split == 'train':
        config['ann_file'] = cfg.train_dataloader.dataset.ann_file
    dataset = DATASETS.build({**config, 'test_mode': True})
    count = min(args.frames or len(dataset), len(dataset))
    search = ThresholdSearch(metric.grid)
    for index in tqdm(np.linspace(0, len(dataset) - 1, count).round().astype(int), desc=args.split, unit='frame'):
        prediction, _, (sample,) = model.predict_raw(pseudo_collate([dataset[int(index)]]))
        masks = [torch.as_tensor(require(sample, name)).cpu().numpy() != 0 for name in MASK_FIELDS[metric.mask]]
        search.add(
            prediction.density[0].float().cpu().numpy(),
            sample.pred_occ.cpu().numpy(),
            torch.as_tensor(require(sample, 'gt_occ')).cpu().numpy(),
            np.logical_and.reduce(masks) if masks else None,
        )
    threshold, scores = search.best(args.metric)
    shown = ' | '.join(f'{name} {100 * value:.2f}' for name, value in scores.items())
    print(f'best threshold {threshold:.4g} of {count} frames ({args.split}), mask {metric.mask}: {shown}; it was {before}')
    print(f'--cfg-options model.occ_head.threshold={threshold:.6g}')
    if args.out:
        source = dict(config=args.config, checkpoint=args.checkpoint, split=args.split, metric=args.metric)
        write_metrics(args.out, dict(scores, threshold=threshold, frames=count), source=source)


def require(sample, name: str):
    """A field of a data sample.

    Raises:
        OccError: If it has none.
    """
    if sample.get(name) is None:
        raise OccError(f'frame {sample.get("token", "")} has no {name!r}; a threshold is found on frames with labels')
    return sample.get(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(calibrate, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
