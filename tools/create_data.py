"""Prepares data sets. ``python tools/create_data.py occ3d --help`` shows the options of a command. See docs/datasets.md."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from projects.preparation.check_config import add_own_data  # noqa: E402
from projects.preparation.command_line import add_check, add_workers, label_grid, pixels, tell_findings, whole_number  # noqa: E402


def _add_synthetic(commands) -> None:
    parser = commands.add_parser(
        'synthetic',
        help='generate procedural streets in the formats of the benchmarks',
        description='Generates procedural streets: images, LiDAR sweeps, boxes and labels. See docs/synthetic_data.md.',
    )
    parser.add_argument(
        '--format',
        choices=('occ3d', 'surroundocc', 'both', 'sscbench-kitti360', 'ddad'),
        default='both',
        help='label format; both: the two of nuScenes; ddad: images and LiDAR at 10 Hz without voxel labels (default: both)',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument('--preset', default='tiny', help='tiny, small or full: grid, image size, view distance (default: tiny)')
    parser.add_argument('--scenes-train', type=int, default=8)
    parser.add_argument('--scenes-val', type=int, default=2)
    parser.add_argument('--frames', type=int, default=4, help='key frames per scene, half a second apart (default: 4)')
    parser.add_argument('--image-size', type=pixels, metavar='WxH', help="instead of the preset's, pixels")
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
    parser.add_argument(
        '--camera-sweeps', type=int, default=0, metavar='N', help='also write N images before and after each key frame, 12 Hz'
    )
    parser.add_argument(
        '--image-classes', action='store_true', help='also write a class map per image, as GroundedSAM paints them'
    )
    parser.add_argument('--preview', type=int, default=0, metavar='N', help='draw the first frame of N scenes to OUT/preview')
    parser.add_argument(
        '--raw-tables', action='store_true', help='also write the tables of a raw nuScenes download (nuscenes/synthetic-v1)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace a generated data set of another configuration')
    add_check(parser)
    parser.set_defaults(run=_run_synthetic)


def _run_synthetic(args: argparse.Namespace) -> int:
    if args.check:
        from projects.preparation.check_synthetic import check_synthetic

        return tell_findings(check_synthetic(args.out, args.workers), args.report)
    from dataclasses import replace

    from projects.streets import NUSCENES_FORMATS, build_config, generate, generate_ddad

    # the label grid of Occ3D decides how far the streets of DDAD reach
    formats = {'both': NUSCENES_FORMATS, 'ddad': ('occ3d',)}.get(args.format, (args.format,))
    config = build_config(
        formats=formats,
        preset=args.preset,
        voxel_size=args.voxel_size,
        point_cloud_range=args.range,
        image_size=args.image_size,
        scenes_train=args.scenes_train,
        scenes_val=args.scenes_val,
        frames=args.frames,
        seed=args.seed,
        legacy_infos=args.legacy_infos,
        camera_sweeps=args.camera_sweeps,
        image_classes=args.image_classes,
    )
    if args.raw_tables and 'sscbench-kitti360' in config.grids:
        raise ValueError('--raw-tables writes the tables of nuScenes; SSCBench-KITTI-360 has none')
    config = replace(config, camera=replace(config.camera, light=args.light))
    if args.format == 'ddad':
        if args.raw_tables or args.legacy_infos or args.preview or args.camera_sweeps or args.image_classes:
            raise ValueError(
                '--raw-tables, --legacy-infos, --preview, --camera-sweeps and --image-classes are not for --format ddad, which '
                'has class maps and images at 10 Hz anyway'
            )
        result = generate_ddad(config, args.out, workers=args.workers, overwrite=args.overwrite)
    else:
        result = generate(config, args.out, workers=args.workers, overwrite=args.overwrite, previews=args.preview)
    if args.raw_tables:
        _write_raw_tables(args.out, config.image_size)
    frames = ', '.join(f'{count} {split}' for split, count in result['frames'].items())
    state = 'already there' if result['reused'] else 'wrote'
    print(f'{state}: {args.out} ({frames} frames, images {"x".join(map(str, config.image_size))})')
    return 0


def _write_raw_tables(root: Path, image_size: tuple[int, int]) -> None:
    from projects.occ.datasets.info_formats import read_info_file
    from projects.streets.nuscenes_table_writer import write_nuscenes_tables

    files = {split: root / f'occ_infos_{split}.pkl' for split in ('train', 'val')}
    contents = {split: read_info_file(str(path), with_boxes=True) for split, path in files.items() if _has_frames(path)}
    version = next(iter(contents.values())).metainfo['version']
    splits = {split: content.records for split, content in contents.items()}
    write_nuscenes_tables(root / 'nuscenes', splits, version, image_size)


def _has_frames(path: Path) -> bool:
    from projects.occ.datasets.safe_pickle import load_numpy_pickle

    return bool(load_numpy_pickle(str(path))['data_list'])


def _add_nuscenes(commands, benchmark: str, title: str, labels: str) -> None:
    parser = commands.add_parser(
        benchmark,
        help=f'annotation files of {title} from the raw downloads, or --check',
        description=f"Writes {title}'s annotation files from the raw tables of nuScenes; no file of another project is needed. "
        'See docs/datasets.md, "From the raw downloads" and "Checking a data root".',
    )
    parser.add_argument('--data-root', type=Path, default=Path('data'), help='folder of everything below (default: data)')
    parser.add_argument('--nuscenes', default='nuscenes', help='folder of the nuScenes download (default: nuscenes)')
    parser.add_argument('--labels', default=labels, help=f'folder of the label download (default: {labels})')
    parser.add_argument('--version', default='v1.0-trainval', help='v1.0-trainval, v1.0-mini or another folder of tables')
    parser.add_argument(
        '--skip-unlabelled', action='store_true', help='leave frames without a label out instead of refusing them'
    )
    parser.add_argument(
        '--skip-missing-images', action='store_true', help='leave frames out whose images are not there (partial downloads)'
    )
    parser.add_argument(
        '--unlabelled', action='store_true', help='write all frames, to predict without labels; also of v1.0-test'
    )
    parser.add_argument(
        '--camera-sweeps',
        type=whole_number,
        default=0,
        metavar='N',
        help="write down N images of each camera before and after the key frame's, for neighbours='sweeps' (default: 0)",
    )
    parser.add_argument(
        '--ann-file',
        action='append',
        metavar='FILE',
        help='with --check: annotation file below the data root; repeatable (default: all in the label folder and the root)',
    )
    add_check(parser)
    add_workers(parser, 'processes of --check')
    parser.set_defaults(run=_run_nuscenes, benchmark=benchmark)


def _run_nuscenes(args: argparse.Namespace) -> int:
    from projects.preparation.nuscenes import origin_frames, prepare_nuscenes

    grid = label_grid(args.benchmark, args.data_root)
    if args.check:
        from projects.preparation.check_nuscenes import check_nuscenes

        findings = check_nuscenes(args.benchmark, args.data_root, grid, args.nuscenes, args.labels, args.ann_file, args.workers)
        return tell_findings(findings, args.report)
    from projects.occ.evaluation.functional import origins_by_token
    from projects.occ.evaluation.ray_origin_files import write_ray_origins

    splits = prepare_nuscenes(
        args.benchmark,
        args.data_root,
        args.nuscenes,
        args.labels,
        args.version,
        skip_unlabelled=args.skip_unlabelled,
        camera_sweeps=args.camera_sweeps,
        skip_missing_images=args.skip_missing_images,
        unlabelled=args.unlabelled,
    )
    for split, prepared in splits.items():
        print(f'{prepared.path}: {prepared.labelled} frames')
        if prepared.without_label:
            print(f'  {len(prepared.without_label)} frames without a label were left out, e.g. {prepared.without_label[0]}')
        if prepared.without_images:
            print(
                f'  {len(prepared.without_images)} frames without all images were left out, e.g. {prepared.without_images[0]}'
            )
        path = prepared.path.with_name(f'ray_origins_{split}.npz')
        write_ray_origins(path, origins_by_token(origin_frames(prepared.records), grid), grid.frame)
        print(f'{path}: RayIoU origins of {len(prepared.records)} frames')
    return 0


def _add_kitti360(commands) -> None:
    parser = commands.add_parser(
        'sscbench-kitti360',
        help='labels and images of SSCBench-KITTI-360 from the raw downloads, or --check',
        description='Converts the raw labels of SSCBench-KITTI-360, and takes images and poses from KITTI-360 if it is given. '
        'See docs/datasets.md, "From the raw downloads" and "Checking a data root".',
    )
    parser.add_argument('--data-root', type=Path, default=Path('data/sscbench-kitti'), help='default: data/sscbench-kitti')
    parser.add_argument(
        '--splits', nargs='+', default=['train', 'val', 'test'], choices=('train', 'val', 'test'), help='default: all three'
    )
    parser.add_argument(
        '--kitti360', type=Path, metavar='DIR', help='KITTI-360 itself, for images and poses that SSCBench lacks'
    )
    parser.add_argument(
        '--frame-map', type=Path, metavar='FILE', help='kitti_360_match.txt (or .gz): sequence, KITTI-360 image, SSCBench image'
    )
    parser.add_argument('--overwrite', action='store_true', help='convert labels again that exist')
    add_check(parser)
    parser.add_argument(
        '--depth',
        action=argparse.BooleanOptionalAction,
        help='with --check: whether every frame must have a depth map (default: if the folder depth exists)',
    )
    add_workers(parser)
    parser.set_defaults(run=_run_kitti360)


def _run_kitti360(args: argparse.Namespace) -> int:
    from projects.preparation.check_synthetic import read_marker

    grid = label_grid('sscbench-kitti360', args.data_root)
    complete = read_marker(args.data_root) is None
    if args.check:
        from projects.preparation.check_kitti360 import check_kitti360

        findings = check_kitti360(args.data_root, grid, args.splits, complete, args.workers, args.depth)
        return tell_findings(findings, args.report)
    from projects.preparation.kitti360 import prepare_kitti360

    for line in prepare_kitti360(
        args.data_root,
        args.splits,
        args.kitti360,
        args.frame_map,
        shape=grid.shape,
        workers=args.workers,
        overwrite=args.overwrite,
        complete=complete,
    ):
        print(line)
    return 0


def _add_ddad(commands) -> None:
    parser = commands.add_parser(
        'ddad',
        help='annotation files of DDAD from the download, or --check',
        description='Reads the scenes of DDAD (DGP JSON) and writes ddad_infos_<split>.pkl beside ddad.json; with --depth also '
        'depth maps from the LiDAR. See docs/datasets.md, "DDAD".',
    )
    parser.add_argument('--data-root', type=Path, default=Path('data/ddad/raw_data'), help='default: data/ddad/raw_data')
    parser.add_argument(
        '--splits', nargs='+', default=['train', 'val'], choices=('train', 'val', 'test'), help='default: train val'
    )
    parser.add_argument('--depth', type=Path, metavar='DIR', help='write the depth map of every image below DIR')
    add_check(parser)
    parser.add_argument('--masks', type=Path, metavar='DIR', help='with --check: folder of the self-occlusion masks')
    parser.add_argument(
        '--mask-pattern',
        default='{camera}/{scene}/mask.png',
        help='path of a mask below it (default: %(default)s)',
    )
    parser.add_argument(
        '--mask-valid', choices=('zero', 'nonzero'), default='zero', help='values that show the scene (default: zero)'
    )
    parser.add_argument('--pseudo', type=Path, metavar='DIR', help='with --check: folder of the class maps of images')
    add_workers(parser)
    parser.set_defaults(run=_run_ddad)


def _run_ddad(args: argparse.Namespace) -> int:
    from projects.preparation.check_synthetic import read_marker

    marker = read_marker(args.data_root)
    if args.check:
        from projects.preparation.check_ddad import IMAGE_WH, check_ddad

        findings = check_ddad(
            args.data_root,
            args.splits,
            args.masks,
            args.mask_pattern,
            args.mask_valid,
            args.pseudo,
            IMAGE_WH if marker is None else tuple(marker['config']['image_size']),
            complete=marker is None,
            workers=args.workers,
        )
        return tell_findings(findings, args.report)
    from projects.preparation.ddad import export_depth_maps, prepare_ddad

    for path, count in prepare_ddad(args.data_root, args.splits).values():
        print(f'{path}: {count} frames')
    if args.depth is not None:
        print(f'{args.depth}: {export_depth_maps(args.data_root, args.depth, args.splits, args.workers)} depth maps')
    return 0


def _add_lidar_rays(commands) -> None:
    parser = commands.add_parser(
        'lidar-rays',
        help="LiDAR depths and classes of image pixels in RenderOcc's files, or --check",
        description='Projects the LiDAR sweep of every key frame into its images and writes <out>/depth_gt/<image>.bin and '
        '<out>/seg_gt_lidarseg/<image>.bin. Files that exist are kept, so that an interrupted run goes on. LoadLidarRays reads '
        'them with ray_files, or needs none and projects the sweeps itself. See docs/datasets.md, "LiDAR rays".',
    )
    parser.add_argument('ann_file', type=Path, nargs='+', metavar='INFOS.pkl', help='annotation files, of any known format')
    parser.add_argument(
        '--nuscenes', type=Path, default=Path('data/nuscenes'), help='folder of samples/ and lidarseg/ (default: data/nuscenes)'
    )
    parser.add_argument('--out', type=Path, help='folder to write to (default: that of --nuscenes)')
    parser.add_argument('--min-depth', type=float, default=0.0, metavar='M', help='leave nearer points out (default: 0)')
    parser.add_argument('--overwrite', action='store_true', help='write files again that exist')
    add_check(parser)
    add_workers(parser)
    parser.set_defaults(run=_run_lidar_rays)


def _run_lidar_rays(args: argparse.Namespace) -> int:
    from projects.preparation.lidar_rays import check_lidar_rays, write_lidar_rays

    out = args.out or args.nuscenes
    if args.check:
        return tell_findings(check_lidar_rays(args.ann_file, args.nuscenes, out, args.workers), args.report)
    images, without = write_lidar_rays(args.ann_file, args.nuscenes, out, args.min_depth, args.overwrite, args.workers)
    print(f'{out}: LiDAR rays of {images} images')
    if without:
        print(f'  {without} of them have depths alone: the annotation file names no point classes (nuScenes-lidarseg) for them')
    return 0


def _add_convert(commands) -> None:
    parser = commands.add_parser(
        'convert-infos',
        help="turn another project's annotation file into ours",
        description='Reads mmdetection3d, BEVDet/RenderOcc, SurroundOcc, SparseOcc and GaussRender pickles (safely: nothing in '
        'them runs) and writes the occ-1.0 format. See docs/datasets.md, "Annotation files".',
    )
    parser.add_argument('source', type=Path, metavar='IN.pkl')
    parser.add_argument('target', type=Path, metavar='OUT.pkl')
    parser.add_argument('--version', help="nuScenes version to note (default: the source's)")
    parser.add_argument('--gts', type=Path, metavar='DIR', help='gts folder of Occ3D, for scene names that the source lacks')
    parser.set_defaults(run=_run_convert)


def _run_convert(args: argparse.Namespace) -> int:
    from projects.preparation.info_conversion import convert_infos

    result = convert_infos(args.source, args.target, args.version, args.gts)
    print(f'{args.target}: {result.frames} frames of {result.scenes or "unknown"} scenes from the {result.format} format')
    if result.boxes:
        print(f'  {result.boxes} boxes: ' + ', '.join(f'{name} {count}' for name, count in result.classes.items()))
    for note in result.notes:
        print(f'  note: {note}')
    return 0


def _add_make_labels(commands) -> None:
    parser = commands.add_parser(
        'make-labels',
        help='make voxel labels of your own frames from LiDAR points and 3D boxes',
        description="Makes labels from the LiDAR points and boxes of a scene's frames, for data without published labels. They "
        'are no substitute for a benchmark. See docs/datasets.md, "Label making".',
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--ann-file', type=Path, help='annotation file with boxes and scene names')
    source.add_argument('--frames', type=Path, metavar='DIR', help='folder of one scene, <frame>.npz with plain arrays')
    parser.add_argument(
        '--nuscenes', type=Path, default=Path('data/nuscenes'), help='folder of samples/ (default: data/nuscenes)'
    )
    parser.add_argument(
        '--format', choices=('occ3d', 'surroundocc'), default='occ3d', help='grid and file format (default: occ3d)'
    )
    parser.add_argument('--config', type=Path, help="config whose 'grid' to use instead of the benchmark's")
    parser.add_argument('--out', type=Path, required=True, help='folder to write gts/ (occ3d) or samples/ (surroundocc) to')
    parser.add_argument('--window', type=int, metavar='N', help='use N frames before and after each (default: the whole scene)')
    parser.add_argument('--ignore-point-classes', action='store_true', help='do not use lidarseg classes where there are some')
    parser.add_argument('--image-size', type=pixels, default=(1600, 900), metavar='WxH', help='default: 1600x900')
    parser.add_argument('--compare', type=Path, metavar='DIR', help='other labels of the same frames, arranged as --out')
    add_workers(parser)
    parser.set_defaults(run=_run_make_labels)


def _run_make_labels(args: argparse.Namespace) -> int:
    from mmengine.config import Config

    from projects.occ.structures import VoxelGrid
    from projects.preparation.label_preparation import make_labels
    from projects.preparation.label_sources import scene_from_folder, scenes_from_infos

    use_classes = not args.ignore_point_classes
    if args.frames is not None:
        scenes = [scene_from_folder(args.frames, use_classes)]
    else:
        scenes = scenes_from_infos(args.ann_file, args.nuscenes, use_classes)
    if args.config is not None:
        grid = VoxelGrid.build(Config.fromfile(str(args.config), import_custom_modules=False).grid.to_dict())
    else:
        grid = label_grid(args.format, args.nuscenes.parent)
    report = make_labels(scenes, grid, args.out, args.window, args.image_size, None, args.compare, args.workers)
    print(f'{args.out}: {report.frames} labels; voxels by class:')
    for class_id in sorted(range(grid.num_classes), key=lambda c: -report.counts[c]):
        if report.counts[class_id]:
            print(f'  {grid.class_names[class_id]:<22}{report.counts[class_id]:>12}')
    print(f'seen by the LiDAR {report.seen_lidar}, by a camera {report.seen_camera}')
    if report.own_points:
        agree, occupied = report.own_agree / report.own_points, report.own_occupied / report.own_points
        print(f"frames' own points: {report.own_points}, in a voxel of their class {agree:.1%}, in any but free {occupied:.1%}")
    compared = report.compared(grid)
    if compared is not None:
        print(f'against {args.compare}: mIoU {compared["mIoU"]:.1%}, IoU {compared["IoU"]:.1%}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='dataset', required=True, metavar='DATASET')
    _add_nuscenes(commands, 'occ3d', 'Occ3D-nuScenes', 'occ3d_nuscenes')
    _add_nuscenes(commands, 'surroundocc', 'SurroundOcc-nuScenes', 'surroundocc_nuscenes')
    _add_kitti360(commands)
    _add_ddad(commands)
    _add_lidar_rays(commands)
    _add_synthetic(commands)
    _add_convert(commands)
    _add_make_labels(commands)
    add_own_data(commands)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError) as error:
        # errors of the operating system name the file after a number
        known = isinstance(error, OSError) and error.filename is not None
        message = f"'{error.filename}': {error.strerror}" if known else error
        print(f'create_data.py {args.dataset}: {message}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
