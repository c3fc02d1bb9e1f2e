import io
import warnings

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from projects.occ.apis import FixedRig
from tools.dev.made_up_frames import made_up_frame

TRACED = (
    'tpvformer_tiny_synthetic-occ3d',
    'surroundocc_tiny_synthetic-surroundocc',
    'bevdet_tiny_synthetic-occ3d',
    'gaussianocc_tiny_synthetic-ddad',
    'gaussianocc-stage1_tiny_synthetic-ddad',
)


def rig_and_other_images(repo_root, name):
    cfg = Config.fromfile(repo_root / 'configs' / 'debug' / f'{name}.py')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        # untrained heads see one class everywhere
        for layer in getattr(model, 'occ_head', nn.Module()).modules():
            if getattr(layer, 'bias', None) is not None:
                layer.weight.mul_(5)
                layer.bias.zero_()
    batches = [model.data_preprocessor(pseudo_collate([made_up_frame(cfg, seed, 'test')]), False)['inputs'] for seed in (0, 1)]
    return FixedRig(model, batches[0]), batches[1].images


@pytest.mark.parametrize('name', TRACED)
def test_a_traced_model_gives_the_labels_of_the_model(repo_root, name):
    rig, images = rig_and_other_images(repo_root, name)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        traced = torch.jit.trace(rig, (rig.batch.images,), check_trace=False)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    expected, found = rig(images), torch.jit.load(file)(images)
    assert not torch.equal(expected, rig(rig.batch.images))
    if expected.is_floating_point():
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize('name', TRACED[:2])
def test_an_exported_program_gives_the_labels_of_the_model(repo_root, name):
    rig, images = rig_and_other_images(repo_root, name)
    program = torch.export.export(rig, (rig.batch.images,), strict=False)
    assert torch.equal(program.module()(images), rig(images))


def test_other_models_are_refused(repo_root):
    rig, _ = rig_and_other_images(repo_root, TRACED[0])
    with pytest.raises(TypeError, match='Linear'):
        FixedRig(nn.Linear(1, 1), rig.batch)
