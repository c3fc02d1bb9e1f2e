"""Prepares data sets. ``python tools/create_data.py synthetic --help`` shows the options of a data set."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f'expected WIDTHxHEIGHT in pixels, e.g. 200x112, got {text!r}')
    return int(parts[0]), int(parts[1])


def _add_synthetic(commands) -> None:
    parser = commands.add_parser(
        'synthetic',
        help='generate procedural streets in the formats of the benchmarks',
        description='Generates procedural streets: images, LiDAR sweeps, boxes and labels. See docs/synthetic_data.md.',
    )
    parser.add_argument(
        '--format',
        choices=('occ3d', 'surroundocc', 'both', 'sscbench-kitti360'),
        default='both',
        help='label format; both: the two of nuScenes (default: both)',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument('--preset', default='tiny', help='tiny, small or full: grid, image size, view distance (default: tiny)')
    parser.add_argument('--scenes-train', type=int, default=8)
    parser.add_argument('--scenes-val', type=int, default=2)
    parser.add_argument('--frames', type=int, default=4, help='key frames per scene, half a second apart (default: 4)')
    parser.add_argument('--image-size', type=_size, metavar='WxH', help="instead of the preset's, pixels")
    parser.add_argument('--voxel-size', type=float, metavar='M', help="instead of the preset's, metres")
    parser.add_argument(
        '--range',
        type=float,
        nargs=6,
        metavar=('X0', 'Y0', 'Z0', 'X1', 'Y1', 'Z1'),
        help="instead of the preset's, metres, in the label frame; with --format both in the ego frame",
    )
    parser.add_argument('--light', choices=('mixed', 'day', 'overcast', 'dusk'), default='mixed', help='default: mixed')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=2, help='threads; the files do not depend on it (default: 2)')
    parser.add_argument('--legacy-infos', action='store_true', help='also write the older info pickle styles')
    parser.add_argument('--preview', type=int, default=0, metavar='N', help='draw the first frame of N scenes to OUT/preview')
    parser.add_argument('--overwrite', action='store_true', help='replace a generated data set of another configuration')
    parser.set_defaults(run=_run_synthetic)


def _run_synthetic(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from projects.occ.datasets.synthetic import NUSCENES_FORMATS, build_config, generate

    config = build_config(
        formats=NUSCENES_FORMATS if args.format == 'both' else (args.format,),
        preset=args.preset,
        voxel_size=args.voxel_size,
        point_cloud_range=args.range,
        image_size=args.image_size,
        scenes_train=args.scenes_train,
        scenes_val=args.scenes_val,
        frames=args.frames,
        seed=args.seed,
        legacy_infos=args.legacy_infos,
    )
    config = replace(config, camera=replace(config.camera, light=args.light))
    result = generate(config, args.out, workers=args.workers, overwrite=args.overwrite, previews=args.preview)
    frames = ', '.join(f'{count} {split}' for split, count in result['frames'].items())
    state = 'already there' if result['reused'] else 'wrote'
    print(f'{state}: {args.out} ({frames} frames, images {"x".join(map(str, config.image_size))})')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='dataset', required=True, metavar='DATASET')
    _add_synthetic(commands)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError) as error:
        print(f'create_data.py {args.dataset}: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
