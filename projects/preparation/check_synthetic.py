"""Checks a generated data set."""

import json
from pathlib import Path
from typing import Any

from projects.occ.structures import VoxelGrid

from .check_ddad import check_ddad
from .check_kitti360 import check_kitti360
from .check_nuscenes import check_nuscenes
from .findings import Finding

MARKER = 'synthetic.json'


def read_marker(root: str | Path) -> dict[str, Any] | None:
    """What the generator says about the data set that it wrote to a folder; None if it wrote none.

    Raises:
        ValueError: If the file is damaged.
    """
    path = Path(root) / MARKER
    if not path.is_file():
        return None
    try:
        marker = json.loads(path.read_text())
        for grid in marker['config']['grids'].values():
            VoxelGrid.build(grid)
        return marker
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"'{path}' is damaged ({type(error).__name__}: {error}); generate the data set again: create_data.py synthetic"
        ) from None


def check_synthetic(root: str | Path, workers: int = 1) -> list[Finding]:
    """Looks at a generated data set in every format that ``synthetic.json`` names.

    Args:
        root: Folder that it was written to.
        workers: Processes.

    Returns:
        Findings, empty if all is well.

    Raises:
        FileNotFoundError: If nothing was generated there.
        ValueError: If the generator was interrupted, or ``synthetic.json`` is damaged.
    """
    root = Path(root)
    marker = read_marker(root)
    if marker is None:
        raise FileNotFoundError(f"'{root / MARKER}' does not exist; give --out the folder of a generated data set")
    if not marker.get('complete'):
        raise ValueError(f"'{root}' is not complete: its generation was interrupted; run it again without --check")
    if marker.get('layout') == 'ddad':
        size = tuple(marker['config']['image_size'])
        return check_ddad(
            root, masks=root / 'mask', pseudo=root / 'ddad_semantic', image_wh=size, complete=False, workers=workers
        )
    findings = []
    for benchmark, fields in marker['config']['grids'].items():
        grid = VoxelGrid.build(fields)
        if benchmark == 'sscbench-kitti360':
            count, expected = len(list(root.glob('data_2d_raw/*/voxels/*.bin'))), sum(marker['frames'].values())
            if count != expected:
                findings.append(Finding('frame-count', str(root), f'{count} frames; {expected} were generated'))
            findings += check_kitti360(root, grid, ('train', 'val'), complete=False, workers=workers, depth=True)
        else:
            annotations = [root / f'occ_infos_{split}.pkl' for split in marker['frames']]
            absent = [path for path in annotations if not path.is_file()]
            findings += [Finding('annotation-missing', str(path), 'does not exist') for path in absent]
            findings += check_nuscenes(benchmark, root, grid, workers=workers)
    # two formats share their images
    return list(dict.fromkeys(findings))
