"""``create_data.py own-data --check --config FILE``: data sets of any config."""

import cv2
import numpy as np

CONFIG = """
_base_ = ['{base}']
data_root = {root!r}
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
"""


def test_the_data_sets_of_a_config_are_checked(root_copy, create_data_main, repo_root, tmp_path, capsys):
    base = repo_root / 'configs' / '_base_' / 'datasets' / 'synthetic-occ3d.py'
    (tmp_path / 'config.py').write_text(CONFIG.format(base=base, root=f'{root_copy}/'))
    command = ['own-data', '--config', str(tmp_path / 'config.py'), '--workers', '1']
    assert create_data_main(command) == 2
    assert 'add --check' in capsys.readouterr().err
    assert create_data_main([*command, '--check']) == 0
    assert 'docs/datasets.md' not in capsys.readouterr().out  # no finding, only what data sets log
    images = sorted((root_copy / 'nuscenes' / 'samples' / 'CAM_FRONT').glob('*.jpg'))
    images[0].unlink()
    small = cv2.imencode('.jpg', np.zeros((20, 30, 3), np.uint8))[1].tobytes()
    images[1].unlink()
    images[1].write_bytes(small)
    label = sorted((root_copy / 'occ3d_nuscenes' / 'gts').rglob('labels.npz'))[0]
    label.unlink()
    assert create_data_main([*command, '--check']) == 1
    out = capsys.readouterr().out
    for text in ('image-missing: 1', 'image-size: 1', '30 x 20 pixels', 'label-missing: 1', images[0].name, str(label)):
        assert text in out
