"""Annotation files of other projects turned into this project's."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from projects.occ.datasets.info_formats import InfoFile, read_info_file
from projects.occ.datasets.nuscenes_occ_dataset import NUSCENES_CAMERAS, scenes_by_token
from projects.occ.structures.frame_record import geometry_problems, occ3d_label_path
from projects.preparation.info_writer import write_info_file


@dataclass
class Conversion:
    """What was converted and what the result lacks.

    Attributes:
        format: Format that was found.
        frames, scenes, boxes: Numbers of each; scenes are counted by name or token, 0 if the file names none.
        classes: Boxes by class name.
        notes: Sentences about what the converted file cannot be used for, and about odd matrices.
    """

    format: str
    frames: int
    scenes: int
    boxes: int
    classes: dict[str, int]
    notes: list[str]


def convert_infos(
    source: str | Path, target: str | Path, version: str | None = None, gts: str | Path | None = None
) -> Conversion:
    """Reads an annotation file of any known format and writes it in ours.

    The frames keep their order, by which ``subset='mini'`` is drawn, and the keys by which data sets sort them then.
    Pickles are opened by the safe reader.

    Args:
        source: The file to read.
        target: The file to write.
        version: nuScenes version to note; None takes the source's.
        gts: Occ3D's ``gts`` folder, from which scene names are taken where the source has none.

    Raises:
        FileNotFoundError: If ``source`` or a given ``gts`` does not exist.
        ValueError: If ``source`` is unsafe, damaged or of an unknown format, or would be overwritten.
    """
    if Path(source).resolve() == Path(target).resolve():
        raise ValueError(f"'{source}' would be overwritten; give the converted file another name")
    if gts is not None and not Path(gts).is_dir():
        raise FileNotFoundError(
            f"'{gts}' does not exist; --gts is the folder of Occ3D's labels, gts/<scene>/<token>/labels.npz"
        )
    info_file = _read(str(source))
    records = info_file.records
    names = scenes_by_token(str(gts)) if gts is not None else {}
    for record in records:
        if not record.scene_name and record.token in names:
            record.scene_name = names[record.token]
    write_info_file(str(target), records, version or str(info_file.metainfo.get('version', '')))
    classes = Counter(name for record in records if record.boxes is not None for name in record.boxes.names)
    return Conversion(
        format=info_file.format,
        frames=len(records),
        scenes=len({record.scene_name or record.scene_token for record in records} - {''}),
        boxes=sum(classes.values()),
        classes=dict(sorted(classes.items())),
        notes=_notes(info_file),
    )


def _read(source: str) -> InfoFile:
    """With boxes if the file has them: SparseOcc's and GaussRender's have none."""
    try:
        return read_info_file(source, with_boxes=True, with_sweeps=True)
    except ValueError as error:
        if "the key 'gt_boxes' is missing" not in str(error):
            raise
        return read_info_file(source, with_sweeps=True)


def _notes(info_file: InfoFile) -> list[str]:
    records = info_file.records
    notes = []

    def note(lacking: list, sentence: str) -> None:
        if lacking:
            notes.append(f'{len(lacking)} of {len(records)} frames {sentence}')

    note(
        [r for r in records if not occ3d_label_path(r)],
        'have no scene name: Occ3D labels are found by listing gts when training starts, RayIoU needs the names (give --gts)',
    )
    note(
        [r for r in records if any(camera.cam2ego is None for camera in r.cameras.values())],
        'have no cam2ego: Occ3D needs ego_motion_compensation=True with this file',
    )
    note([r for r in records if r.boxes is None], 'have no boxes: label making needs them, training does not')
    note([r for r in records if set(NUSCENES_CAMERAS) - set(r.cameras)], 'lack one of the six cameras: set dataset.cam_names')
    odd = [(record.token, problem) for record in records for problem in geometry_problems(record)]
    notes.extend(f'frame {token}: {problem}' for token, problem in odd[:5])
    if len(odd) > 5:
        notes.append(f'{len(odd) - 5} more problems of matrices')
    return notes
