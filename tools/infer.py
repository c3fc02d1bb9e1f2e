"""Predicts the occupancy of your own images.

    python tools/infer.py CONFIG CHECKPOINT FRAMES.json --out DIR

FRAMES.json lists images with intrinsics and extrinsics, of one moment or of a drive; docs/inference.md shows one. DIR gets
<token>.npz (class ids, grid, cameras) and pictures of every frame.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.apis import CameraFrame, OccInferencer, read_frames  # noqa: E402
from projects.occ.atomic_write import write_atomically  # noqa: E402
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
    parser.add_argument(
        '--fps',
        action='store_true',
        help='also measure frames a second, the first one left out, and write them to DIR/fps.json',
    )
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
    if args.fps:
        measure(inferencer, frames, Path(args.out))
        inferencer.history.clear()
    for frame in tqdm(frames, desc='predicting', unit='frame'):
        inferencer(frame, out_dir=args.out, draw=not args.no_pictures)


def measure(inferencer: OccInferencer, frames: Sequence[CameraFrame], out: Path) -> None:
    """Predicts one frame after another and writes ``fps.json``: seconds a frame in the network, and with reading the images.

    Raises:
        OccError: If there is but one frame, which warms up.
    """
    if len(frames) < 2:
        raise OccError('--fps needs at least two frames: the first one warms up')
    network, whole = [], []
    for frame in frames:
        begin = _now()
        inputs = inferencer.collate_fn([inferencer.pipeline(frame)])
        middle = _now()
        inferencer.forward(inputs)
        end = _now()
        network.append(end - middle)
        whole.append(end - begin)
    count = len(frames) - 1
    seconds = [sum(times[1:]) / count for times in (network, whole)]
    device = next(inferencer.model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'
    report = dict(fps=1 / seconds[1], seconds_network=seconds[0], seconds_prediction=seconds[1], frames=count)
    report.update(processor=name, threads=torch.get_num_threads())
    write_atomically(out / 'fps.json', lambda file: file.write((json.dumps(report, indent=1) + '\n').encode()))
    print(
        f'{report["fps"]:.3g} frames a second with reading the images, {1 / seconds[0]:.3g} in the network alone '
        f'({count} frames, {name}, {report["threads"]} threads)'
    )


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(infer, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
