import pickle

import numpy as np
import pytest

from projects.occ.datasets import SurroundOccNuScenesDataset
from projects.occ.datasets.info_formats import read_info_file
from projects.occ.structures.frame_record import occ3d_label_path
from projects.preparation.info_conversion import convert_infos


@pytest.mark.parametrize('style', ['bevdet', 'sparseocc', 'gaussrender', 'mmdet3d-v2', 'occ-1.0'])
def test_every_style_becomes_ours(formats, tmp_path, style):
    frames = [formats.RawFrame(index) for index in range(3)]
    source = formats.write_pickle(tmp_path / 'in.pkl', formats.styles[style](frames))
    result = convert_infos(source, tmp_path / 'out.pkl')
    assert (result.format, result.frames) == (style, 3)
    before, after = read_info_file(source), read_info_file(str(tmp_path / 'out.pkl'))
    assert after.format == 'occ-1.0'
    for one, other in zip(before.records, after.records, strict=True):
        assert (one.token, one.scene_name, one.label_path) == (other.token, other.scene_name, other.label_path)
        for name, camera in one.cameras.items():
            assert np.array_equal(camera.lidar2cam, other.cameras[name].lidar2cam)
            assert np.array_equal(camera.cam2img, other.cameras[name].cam2img)


@pytest.mark.parametrize('subset', ['all', 'mini'])
def test_a_converted_file_means_the_same_frames_in_the_same_order(formats, tmp_path, subset):
    content = formats.gaussrender_infos([formats.RawFrame(index) for index in range(30)])
    np.random.default_rng(0).shuffle(content['metadata'])
    content['metadata'] = [(scene, int(index)) for scene, index in content['metadata']]
    source = formats.write_pickle(tmp_path / 'in.pkl', content)
    convert_infos(source, tmp_path / 'out.pkl')
    before, after = (
        SurroundOccNuScenesDataset(ann_file=str(path), grid=formats.tiny_grid('surroundocc'), subset=subset)
        for path in (source, tmp_path / 'out.pkl')
    )
    tokens = [[data.get_data_info(index)['token'] for index in range(len(data))] for data in (before, after)]
    assert tokens[0] == tokens[1] and len(tokens[0]) == (30 if subset == 'all' else 6)


def test_scene_names_come_from_the_label_folder(formats, tmp_path):
    frames = [formats.RawFrame(index) for index in range(2)]
    source = formats.write_pickle(tmp_path / 'in.pkl', formats.bevdet_infos(frames, with_scene=False))
    assert any('2 of 2 frames have no scene name' in note for note in convert_infos(source, tmp_path / 'a.pkl').notes)
    for frame in frames:
        (tmp_path / 'gts' / frame.scene_name / frame.token).mkdir(parents=True)
    result = convert_infos(source, tmp_path / 'b.pkl', gts=tmp_path / 'gts')
    assert result.scenes == 1 and not any('scene name' in note for note in result.notes)
    record = read_info_file(str(tmp_path / 'b.pkl')).records[1]
    assert (record.scene_name, occ3d_label_path(record)) == ('scene-0001', 'scene-0001/token01/labels.npz')


def test_errors(formats, tmp_path):
    source = formats.write_pickle(tmp_path / 'in.pkl', formats.bevdet_infos([formats.RawFrame(0)]))
    with pytest.raises(ValueError, match='would be overwritten; give the converted file another name'):
        convert_infos(source, tmp_path / 'in.pkl')
    with pytest.raises(FileNotFoundError, match=r"nowhere' does not exist; --gts is the folder of Occ3D's labels"):
        convert_infos(source, tmp_path / 'out.pkl', gts=tmp_path / 'nowhere')

    class Evil:
        def __reduce__(self):
            return print, ('code ran',)

    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps({'infos': [Evil()]}))
    with pytest.raises(ValueError, match='refused to load this pickle'):
        convert_infos(tmp_path / 'evil.pkl', tmp_path / 'out.pkl')
    assert not (tmp_path / 'out.pkl').exists()


@pytest.mark.parametrize(('name', 'style'), [('nuscenes_infos_val', 'bevdet'), ('nuscenes_infos_val_mini_sweep', 'sparseocc')])
def test_real_files(shared_data, tmp_path, create_data_main, capsys, name, style):
    source = shared_data / 'nuscenes_mini_val_infos' / f'{name}.pkl'
    if not source.is_file():
        pytest.skip(f'{source} not found')
    assert create_data_main(['convert-infos', str(source), str(tmp_path / 'out.pkl')]) == 0
    out = capsys.readouterr().out
    assert f'81 frames of unknown scenes from the {style} format' in out and '4514 boxes: bicycle 52, bus 41, car 2568' in out
    assert ('no cam2ego' in out) == (style == 'sparseocc')
    before, after = read_info_file(str(source)).records, read_info_file(str(tmp_path / 'out.pkl')).records
    assert [record.token for record in before] == [record.token for record in after]
    for one, other in zip(before, after):
        assert all(np.array_equal(one.cameras[name].lidar2cam, other.cameras[name].lidar2cam) for name in one.cameras)
