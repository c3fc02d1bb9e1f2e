import argparse

import pytest
from toy_occupancy import train, write_config

from projects.occ.engine.command_line import add_common_arguments, load_config, run_tool
from projects.occ.engine.errors import OccError


def parse(*argv):
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)
    return parser.parse_args([str(value) for value in argv])


def test_work_directory_is_named_by_the_argument_the_config_or_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path, 'name')
    assert load_config(parse(config)).work_dir == 'work_dirs/name'
    config.write_text(config.read_text() + f'work_dir = {str(tmp_path / "own")!r}\n')
    assert load_config(parse(config)).work_dir == str(tmp_path / 'own')
    assert load_config(parse(config, '--work-dir', tmp_path / 'arg')).work_dir == str(tmp_path / 'arg')
    assert all((tmp_path / name).is_dir() for name in ('work_dirs/name', 'own', 'arg'))


def test_options_are_merged_and_checked(tmp_path):
    config = write_config(tmp_path)
    arguments = (config, '--work-dir', tmp_path / 'w', '--cfg-options', 'train_dataloader.batch_size=1')
    cfg = load_config(parse(*arguments, 'optim_wrapper.optimizer.lr=1e-4'))
    assert cfg.train_dataloader.batch_size == 1 and cfg.optim_wrapper.optimizer.lr == 1e-4
    with pytest.raises(OccError, match='optim_wrapper.optimizer.lr'):
        load_config(parse(*arguments, 'optim_wrapper.optimizer.rl=1e-4'))
    assert load_config(parse(*arguments, 'model.extra=1', '--allow-new-keys')).model.extra == 1


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('/my data/a  b.pth', '/my data/a  b.pth'),
        ('"/my data"', '/my data'),
        ('a (copy) [2] of b', 'a (copy) [2] of b'),
        (' 3 ', 3),
        ('" None "', None),
        ('[1, 2]', [1, 2]),
        ('"[ 1 , 2 ]"', [1, 2]),
        ('1, 2', [1, 2]),
        ('( (1, 2), [True, x y] )', ((1, 2), [True, 'x y'])),
        ("['/my data', 'b']", ['/my data', 'b']),
        ('[]', []),
        ('', ''),
    ],
)
def test_options_keep_the_spaces_of_texts(text, value):
    assert parse('c.py', '--cfg-options', f'key={text}', 'other=1e-4').cfg_options == {'key': value, 'other': 1e-4}


def test_every_tool_keeps_the_spaces_of_options(repo_root):
    for path in (repo_root / 'tools').glob('*.py'):
        assert 'DictAction' not in path.read_text(), path


def test_errors_become_one_sentence_and_others_pass(capsys):
    def fail(error):
        def tool(args):
            raise error

        return tool

    assert run_tool(fail(OccError('use another')), parse('x')) == 1
    assert capsys.readouterr().err == 'error: use another\n'
    with pytest.raises(ZeroDivisionError):
        run_tool(fail(ZeroDivisionError()), parse('x'))
    assert run_tool(lambda args: None, parse('x')) == 0


def test_control_c_ends_without_a_stack_trace(capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    assert run_tool(interrupt, parse('c.py')) == 130
    assert 'interrupted' in capsys.readouterr().err


def test_a_config_that_is_not_python(tmp_path):
    (tmp_path / 'c.py').write_text('a = (')
    with pytest.raises(OccError, match=r"c.py' or a base of it is not valid Python: '\(' was never closed"):
        load_config(parse(tmp_path / 'c.py', '--work-dir', tmp_path / 'w'))


def test_a_wrong_work_directory_stops_before_the_config_is_read(tmp_path, capfd):
    (tmp_path / 'file').write_text('')
    config = tmp_path / 'broken.py'
    config.write_text('this is no config')
    assert train(config, '--work-dir', tmp_path / 'file' / 'w') == 1
    assert 'choose a writable directory with --work-dir' in capfd.readouterr().err
