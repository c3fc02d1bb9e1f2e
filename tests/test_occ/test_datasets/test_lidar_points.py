import numpy as np
import pytest

from projects.occ.datasets.lidar_points import read_points


@pytest.mark.parametrize('dims', [4, 5])
def test_points_are_read_row_by_row(tmp_path, dims):
    points = np.arange(3 * dims, dtype='<f4').reshape(3, dims)
    points.tofile(tmp_path / 'a.bin')
    assert np.array_equal(read_points(tmp_path / 'a.bin', dims, 'sweep', 'copy it'), points)


@pytest.mark.parametrize('size', [0, 19, 21])
def test_files_without_whole_points(tmp_path, size):
    (tmp_path / 'a.bin').write_bytes(bytes(size))
    with pytest.raises(ValueError, match=rf"sweep: '.*a\.bin' has {size} bytes"):
        read_points(tmp_path / 'a.bin', 5, 'sweep', 'copy it')
    with pytest.raises(FileNotFoundError, match='sweep'):
        read_points(tmp_path / 'b.bin', 5, 'sweep', 'copy it')
