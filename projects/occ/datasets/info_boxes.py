"""3D boxes of the annotation formats in one convention; only label making needs them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from projects.occ.structures.frame_record import BoxRecord

# Clearly longer than wide in every annotation, so they tell which of the two old column orders a file uses.
_LONG_CLASSES = ('car', 'truck', 'bus', 'trailer', 'bicycle', 'motorcycle')


def boxes_from_instances(instances: Iterable[Mapping], categories: Mapping[str, int]) -> BoxRecord:
    """Boxes of an mmdetection3d v2 frame.

    Args:
        instances: Dicts with ``bbox_3d`` (x, y, z, l, w, h, yaw; z is the centre, see the class), ``bbox_label_3d``,
            ``num_lidar_pts`` and perhaps ``velocity`` and ``instance_token``.
        categories: Name -> id, from the file's ``metainfo``.

    Returns:
        The boxes whose label is a known category.
    """
    names_by_id = {index: name for name, index in categories.items()}
    kept = []
    for instance in instances:
        label = instance.get('bbox_label_3d', instance.get('bbox_label'))
        if label in names_by_id:
            kept.append((names_by_id[label], instance))
    return BoxRecord(
        boxes=np.array([instance['bbox_3d'][:7] for _, instance in kept], dtype=np.float64).reshape(-1, 7),
        names=[name for name, _ in kept],
        num_lidar_pts=np.array([instance.get('num_lidar_pts', -1) for _, instance in kept], dtype=np.int64),
        velocities=_all([instance.get('velocity') for _, instance in kept], lambda rows: np.array(rows, dtype=np.float64)),
        instance_tokens=_all([instance.get('instance_token') for _, instance in kept], list),
    )


def _all(values: list, collect: Callable[[list], Any]) -> Any:
    """``collect(values)``, or None if one of them is missing or there are none."""
    return None if not values or any(value is None for value in values) else collect(values)


def old_boxes_are_width_first(infos: Iterable[Mapping]) -> bool:
    """Whether ``gt_boxes`` of old-style frames are (x, y, z, w, l, h, -yaw - pi/2) and not (x, y, z, l, w, h, yaw).

    mmdetection3d changed the meaning in version 1.0 without a mark in the file. Vehicles are longer than wide, so the
    median ratio of the two columns over all long objects decides; without any, the newer meaning is assumed.
    """
    ratios = []
    for info in infos:
        try:
            boxes, names = _old_boxes(info)
        except (KeyError, ValueError, TypeError):
            continue  # said when the frame is read
        long = np.isin(names, _LONG_CLASSES)
        ratios.append(boxes[long, 3] / boxes[long, 4])
    ratios = np.concatenate(ratios) if ratios else np.zeros(0)
    return ratios.size > 0 and float(np.median(ratios)) < 1


def _old_boxes(info: Mapping) -> tuple[np.ndarray, list[str]]:
    """The first seven columns of ``gt_boxes``, (K, 7) float64, and the K names."""
    boxes, names = np.array(info['gt_boxes'], dtype=np.float64), [str(name) for name in info['gt_names']]
    if boxes.size == 0:
        boxes = boxes.reshape(0, 7)
    if boxes.ndim != 2 or boxes.shape[1] < 7:
        raise ValueError(f'gt_boxes must be (K, 7) x, y, z, three sizes and yaw, perhaps with more columns, got {boxes.shape}')
    if len(names) != len(boxes):
        raise ValueError(f'gt_names must have a name for each of the {len(boxes)} rows of gt_boxes, got {len(names)}')
    return boxes[:, :7], names


def boxes_from_old_info(info: Mapping, width_first: bool) -> BoxRecord:
    """Boxes of an mmdetection3d 0.x / BEVDet frame.

    Args:
        info: Frame with ``gt_boxes`` (K, 7+) in the LiDAR frame with the centre as origin, ``gt_names`` (K,) and perhaps
            ``num_lidar_pts`` (K,) and ``gt_velocity`` (K, 2). Columns after the seventh are left out.
        width_first: Column order, see :func:`old_boxes_are_width_first`.

    Raises:
        ValueError: If ``gt_boxes`` has another shape, or ``gt_names`` another length.
    """
    boxes, names = _old_boxes(info)
    if width_first:
        boxes[:, 3:5] = boxes[:, [4, 3]]
        yaw = -boxes[:, 6] - np.pi / 2
        boxes[:, 6] = np.arctan2(np.sin(yaw), np.cos(yaw))
    counts, velocities = info.get('num_lidar_pts'), info.get('gt_velocity')
    return BoxRecord(
        boxes=boxes,
        names=names,
        num_lidar_pts=None if counts is None else np.asarray(counts, dtype=np.int64),
        velocities=None if velocities is None else np.asarray(velocities, dtype=np.float64).reshape(-1, 2),
    )
