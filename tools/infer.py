"""Predicts the occupancy of your own images.

    python tools/infer.py CONFIG CHECKPOINT FRAMES.json --out DIR

FRAMES.json lists images with intrinsics and extrinsics; docs/inference.md shows one. DIR gets <token>.npz (class ids, grid,
cameras) and pictures of every frame.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm  # noqa: E402

from projects.occ.apis import OccInferencer, read_frames  # noqa: E402
from projects.occ.engine.checkpoint import TRUST_FLAG  # noqa: E402
from projects.occ.engine.command_line import CfgOptionsAction, read_config, run_tool  # noqa: E402
from projects.occ.engine.config_options import ALLOW_FLAG  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('frames', help='JSON file with images and cameras')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--no-pictures', action='store_true', help='write npz files alone')
    parser.add_argument('--device', help="device, for example 'cuda:0' or 'cpu' (default: a GPU if there is one)")
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptionsAction, default={}, metavar='KEY=VALUE', help='change values of the config'
    )
    parser.add_argument(ALLOW_FLAG, action='store_true', help='let --cfg-options add keys that the config does not have')
    parser.add_argument(
        TRUST_FLAG,
        action='store_true',
        help='load a checkpoint that contains Python objects; such a file can run any code, use it for files you trust alone',
    )
    return parser.parse_args(argv)


def infer(args: argparse.Namespace) -> None:
    """Predicts as the arguments say.

    Raises:
        OccError: If the config does not exist.
    """
    check_writable(args.out, '--out')
    if not Path(args.config).is_file():
        raise OccError(f'config {args.config!r} does not exist; the configs lie in configs/<model>/')
    # wrong input is told before the model is built
    frames = read_frames(args.frames)
    inferencer = OccInferencer(read_config(args), args.checkpoint, args.device, show_progress=False)
    inferencer.preprocess(frames)
    for frame in tqdm(frames, desc='predicting', unit='frame'):
        inferencer(frame, out_dir=args.out, draw=not args.no_pictures)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(infer, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
