"""The command line of ``tools/create_data.py``."""

import importlib.util
import json

import pytest


@pytest.fixture(scope='module')
def create_data(request):
    path = request.config.rootpath / 'tools' / 'create_data.py'
    spec = importlib.util.spec_from_file_location('create_data_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = ('--scenes-train', '1', '--scenes-val', '0', '--frames', '1', '--image-size', '48x28')


def test_generates_and_reuses(create_data, tmp_path, capsys):
    arguments = [
        'synthetic',
        '--format',
        'surroundocc',
        '--out',
        str(tmp_path / 'd'),
        *SMALL,
        '--light',
        'dusk',
        '--preview',
        '1',
    ]
    assert create_data.main(arguments) == 0
    assert 'wrote: ' in capsys.readouterr().out
    marker = json.loads((tmp_path / 'd' / 'synthetic.json').read_text())
    assert marker['complete'] and marker['frames'] == {'train': 1, 'val': 0}
    assert marker['config']['camera']['light'] == 'dusk' and list(marker['config']['grids']) == ['surroundocc']
    assert len(list((tmp_path / 'd').rglob('*.jpg'))) == 6 and (tmp_path / 'd' / 'preview' / 'scene-0001.png').exists()
    assert not (tmp_path / 'd' / 'occ3d_nuscenes').exists()
    assert create_data.main(arguments) == 0
    assert 'already there: ' in capsys.readouterr().out
    assert create_data.main([*arguments, '--seed', '5']) == 2
    assert 'seed: 0 there, 5 asked); add --overwrite' in capsys.readouterr().err


def test_generates_in_the_format_of_kitti360(create_data, tmp_path, capsys):
    arguments = ['synthetic', '--format', 'sscbench-kitti360', '--out', str(tmp_path / 'd'), *SMALL]
    assert create_data.main([*arguments, '--raw-tables']) == 2
    assert '--raw-tables writes the tables of nuScenes' in capsys.readouterr().err and not (tmp_path / 'd').exists()
    assert create_data.main(arguments) == 0
    names = {path.name for path in (tmp_path / 'd').iterdir()}
    assert names == {'synthetic.json', 'calibration', 'data_2d_raw', 'data_3d_raw', 'depth', 'poses', 'preprocess'}
    # another format may not go to the same folder, and a foreign folder is left alone
    assert create_data.main(['synthetic', '--out', str(tmp_path / 'd'), *SMALL]) == 2
    assert 'another configuration' in capsys.readouterr().err
    (tmp_path / 'e' / 'depth').mkdir(parents=True)
    assert create_data.main(['synthetic', '--out', str(tmp_path / 'e'), *SMALL]) == 2
    assert 'holds depth but no synthetic.json' in capsys.readouterr().err


def test_own_grid_by_flags(create_data, tmp_path):
    grid = ('--range', '-6', '-6', '-1', '6', '6', '3', '--voxel-size', '0.5')
    assert create_data.main(['synthetic', '--format', 'both', '--out', str(tmp_path), *SMALL, *grid]) == 0
    grids = json.loads((tmp_path / 'synthetic.json').read_text())['config']['grids']
    assert grids['occ3d']['shape'] == [24, 24, 8] == grids['surroundocc']['shape']
    assert grids['surroundocc']['point_cloud_range'][2] == pytest.approx(-2.8)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--preset', 'huge'), "preset must be one of ('tiny', 'small', 'full'), got 'huge'"),
        (('--voxel-size', '0.7'), 'is not a whole number of voxels of 0.7 m'),
        (('--frames', '0'), '--frames must be at least 1, got 0'),
        (('--workers', '0'), '--workers must be at least 1, got 0'),
    ],
)
def test_bad_values_give_one_line(create_data, tmp_path, capsys, arguments, message):
    assert create_data.main(['synthetic', '--out', str(tmp_path / 'd'), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (tmp_path / 'd').exists()


def test_files_that_do_not_exist_are_named(create_data, tmp_path, capsys):
    absent = tmp_path / 'absent'
    for arguments in (['convert-infos', absent, 'x.pkl'], ['make-labels', '--ann-file', absent, '--out', tmp_path / 'x']):
        assert create_data.main([str(argument) for argument in arguments]) == 2
        assert capsys.readouterr().err == f"create_data.py {arguments[0]}: '{absent}': No such file or directory\n"


def test_findings_are_printed_before_a_report_that_cannot_be_written(create_data, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    arguments = [
        'occ3d',
        '--data-root',
        str(tmp_path),
        '--check',
        '--workers',
        '1',
        '--report',
        str(tmp_path / 'file' / 'r.json'),
    ]
    assert create_data.main(arguments) == 2
    shown = capsys.readouterr()
    assert 'annotation-missing: 1' in shown.out and f"'{tmp_path / 'file'}'" in shown.err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('synthetic', '--out', 'x', '--image-size', '200'), "expected WIDTHxHEIGHT in pixels, e.g. 200x112, got '200'"),
        (('synthetic',), 'the following arguments are required: --out'),
        (('synthetic', '--out', 'x', '--format', 'kitti'), "invalid choice: 'kitti'"),
        ((), 'the following arguments are required: DATASET'),
    ],
)
def test_usage_errors(create_data, capsys, arguments, message):
    with pytest.raises(SystemExit, match='2'):
        create_data.main(list(arguments))
    assert message in capsys.readouterr().err


def test_help_of_every_command(create_data, capsys):
    for command in ('occ3d', 'surroundocc', 'sscbench-kitti360', 'synthetic', 'convert-infos', 'make-labels'):
        with pytest.raises(SystemExit, match='0'):
            create_data.main([command, '--help'])
        assert f'{command} [-h]' in ' '.join(capsys.readouterr().out.split())
