"""Writes the frames of a config's test set as a JSON file for tools/infer.py.

    python tools/dev/export_frames.py CONFIG OUT.json [--scene NAME]

Every frame names its drive and the place of the vehicle, so that models that see earlier frames find them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
from mmdet3d.registry import DATASETS  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.engine.command_line import CfgOptionsAction, read_config, run_tool  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('out', type=Path, help='file to write; image paths in it are absolute')
    parser.add_argument('--scene', help='only the frames of this scene')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptionsAction, default={}, metavar='KEY=VALUE')
    parser.set_defaults(allow_new_keys=False, trust_checkpoint=False)
    return parser.parse_args(argv)


def export(args: argparse.Namespace) -> None:
    """Exports as the arguments say.

    Raises:
        OccError: If there is no such scene.
    """
    cfg = read_config(args)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, frames=[0], pipeline=[]))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    scenes = list(dict.fromkeys(info['scene_name'] for info in infos))
    if args.scene is not None and args.scene not in scenes:
        raise OccError(f'the test set has no scene {args.scene!r}; it has {scenes[:20]}')
    frames = [_frame(info) for info in infos if args.scene in (None, info['scene_name'])]
    text = json.dumps(dict(frames=frames), indent=1)
    write_atomically(args.out, lambda file: file.write(f'{text}\n'.encode()))
    print(f'{args.out}: {len(frames)} frames of {len({frame["scene"] for frame in frames})} scenes')


def _frame(info: dict) -> dict:
    pose = np.asarray(info['ego2global'])
    if info['grid'].frame == 'lidar':
        pose = pose @ info['lidar2ego']
    return dict(
        token=f'{info["scene_name"]}/{info["frame_idx"]:04d}' if info['frame_idx'] >= 0 else info['token'],
        scene=info['scene_name'],
        images=[str(Path(path).absolute()) for path in info['img_paths']],
        cam_names=list(info['cam_names']),
        cam2img=np.asarray(info['cam2img']).tolist(),
        ref2cam=np.asarray(info['ref2cam']).tolist(),
        ref2global=pose.tolist(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(export, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
