"""What a check of a data root has found, and how it is told."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from projects.occ.atomic_write import write_atomically

SHOWN_PER_KIND = 20
_DOC = 'docs/datasets.md'
# Kind of damage -> section of the document to read.
SECTIONS = {
    'annotation-missing': 'annotation-files',
    'annotation-damaged': 'annotation-files',
    'frame-count': 'from-the-raw-downloads',
    'frame-duplicate': 'annotation-files',
    'frame-order': 'annotation-files',
    'split-overlap': 'annotation-files',
    'camera-missing': 'frames-and-matrices',
    'pose-empty': 'frames-and-matrices',
    'matrix': 'frames-and-matrices',
    'intrinsics': 'frames-and-matrices',
    'foreign-path': 'folders',
    'image-missing': 'folders',
    'image-damaged': 'folders',
    'image-size': 'pipeline',
    'lidar-damaged': 'folders',
    'label-missing': 'label-files',
    'label-damaged': 'label-files',
    'label-array': 'label-files',
    'label-shape': 'label-files',
    'label-type': 'label-files',
    'label-class': 'label-files',
    'label-empty': 'label-files',
    'classes-missing': 'label-files',
    'mask-shape': 'label-files',
    'mask-values': 'label-files',
    'mask-empty': 'label-files',
    'origins': 'from-the-raw-downloads',
    'sequence-missing': 'sscbench-kitti-360',
    'frame-name': 'sscbench-kitti-360',
    'depth-missing': 'depth-maps',
    'depth-damaged': 'depth-maps',
    'depth-shape': 'depth-maps',
    'depth-values': 'depth-maps',
    'raw-label-damaged': 'sscbench-kitti-360',
    'raw-label-missing': 'sscbench-kitti-360',
    'calibration': 'sscbench-kitti-360',
    'scene-missing': 'ddad',
    'scene-damaged': 'ddad',
    'lidar-missing': 'ddad',
    'image-mask-missing': 'ddad',
    'image-mask-damaged': 'ddad',
    'rays-missing': 'lidar-rays',
    'rays-damaged': 'lidar-rays',
    'class-map-missing': 'ddad',
    'class-map-damaged': 'ddad',
}


@dataclass(frozen=True)
class Finding:
    """Something missing or damaged.

    Attributes:
        kind: Key of ``SECTIONS``.
        path: File that it is about.
        message: What was expected and what is there.
    """

    kind: str
    path: str
    message: str

    def __post_init__(self) -> None:
        if self.kind not in SECTIONS:
            raise ValueError(f'kind must be one of {sorted(SECTIONS)}, got {self.kind!r}')

    @property
    def section(self) -> str:
        """Where to read about it, e.g. ``docs/datasets.md#label-files``."""
        return f'{_DOC}#{SECTIONS[self.kind]}'


def print_findings(findings: list[Finding], shown: int = SHOWN_PER_KIND) -> None:
    """Prints findings by kind, at most ``shown`` of each; nothing if there are none."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for kind, group in by_kind.items():
        print(f'{kind}: {len(group)} (see {group[0].section})')
        for finding in group[:shown]:
            print(f'  {finding.path}: {finding.message}')
        if len(group) > shown:
            print(f'  ... and {len(group) - shown} more; --report FILE writes all of them')


def write_findings(findings: list[Finding], path: str | Path) -> None:
    """Writes all findings as a json list of objects with ``kind``, ``path``, ``message`` and ``section``."""
    rows = [{**asdict(finding), 'section': finding.section} for finding in findings]
    write_atomically(path, lambda file: file.write((json.dumps(rows, indent=1) + '\n').encode()))
