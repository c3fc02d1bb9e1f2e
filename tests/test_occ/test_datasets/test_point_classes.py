import numpy as np
import pytest
from nuscenes.utils.color_map import get_colormap

from projects.occ.datasets.point_classes import CLASS_OF_RAW, LIDARSEG_ID, RAW_NAMES, read_lidarseg
from projects.occ.structures.benchmark_classes import NUSCENES_CLASSES


def test_raw_names_are_those_of_the_devkit():
    assert list(RAW_NAMES) == list(get_colormap())


def test_sixteen_classes_and_noise(tmp_path):
    named = {RAW_NAMES[raw]: (('noise', *NUSCENES_CLASSES)[CLASS_OF_RAW[raw]]) for raw in range(32)}
    assert (
        named['vehicle.bus.bendy'] == named['vehicle.bus.rigid'] == 'bus'
        and named['vehicle.construction'] == 'construction_vehicle'
    )
    assert named['flat.driveable_surface'] == 'driveable_surface' and named['static.vegetation'] == 'vegetation'
    noise = 'noise animal human.pedestrian.personal_mobility human.pedestrian.stroller vehicle.emergency.police vehicle.ego'
    assert {named[name] for name in noise.split()} == {'noise'}
    assert np.bincount(CLASS_OF_RAW[:32], minlength=17).tolist() == [12, 1, 1, 2, 1, 1, 1, 4, *[1] * 9]
    assert CLASS_OF_RAW[LIDARSEG_ID].tolist() == list(range(17))
    (tmp_path / 'x.bin').write_bytes(bytes([24, 0, 31, 17]))
    assert read_lidarseg(tmp_path / 'x.bin', 4).tolist() == [11, 0, 0, 4]


def test_errors(tmp_path):
    path = tmp_path / 'x.bin'
    with pytest.raises(FileNotFoundError, match=r'x\.bin.* does not exist; unpack nuScenes-lidarseg'):
        read_lidarseg(path, 3)
    path.write_bytes(bytes([1, 2]))
    with pytest.raises(ValueError, match='has 2 bytes for 3 LiDAR points'):
        read_lidarseg(path, 3)
    path.write_bytes(bytes([1, 2, 99]))
    with pytest.raises(ValueError, match='holds the id 99; ids of nuScenes-lidarseg are 0..31'):
        read_lidarseg(path, 3)
