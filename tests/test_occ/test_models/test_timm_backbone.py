"""Backbones of timm: shapes, partial runs, recomputation and weights from files."""

import pytest
import timm
import torch
from mmdet3d.registry import MODELS

from projects.occ.models.timm_backbone import TimmBackbone

CONVNEXT = dict(model_name='convnext_atto', depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))
RESNET = dict(model_name='resnet18', channels=(8, 16, 24, 32))
SWIN = dict(model_name='swin_tiny_patch4_window7_224', img_size=(64, 96), embed_dim=12, depths=(1, 1, 1, 1), window_size=4)
VIT = dict(model_name='vit_tiny_patch16_224', img_size=(64, 96), embed_dim=24, depth=4)


def build(options, out_indices, **extra):
    return MODELS.build(dict(options, type='TimmBackbone', out_indices=out_indices, **extra))


@pytest.mark.parametrize(
    'options, out_indices, strides',
    [(CONVNEXT, (0, 2, 3), (4, 16, 32)), (RESNET, (1, 3, 4), (4, 16, 32)), (SWIN, (0, 2), (4, 16)), (VIT, (1, 3), (16, 16))],
)
def test_maps_and_the_first_stage_alone(options, out_indices, strides):
    backbone = build(options, out_indices).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(images)
        expected = [(2, channels, 64 // s, 96 // s) for channels, s in zip(backbone.out_channels, strides, strict=True)]
        assert [tuple(feats.shape) for feats in maps] == expected
        assert torch.equal(backbone.first_stage(images), maps[0])
        ours = backbone.model(images)
    for feats, theirs in zip(maps, ours, strict=True):
        assert torch.equal(feats, theirs if options is not SWIN else theirs.permute(0, 3, 1, 2))


def test_the_first_stage_runs_nothing_else():
    backbone = build(CONVNEXT, (0, 3)).eval()
    ran = []
    for name, module in backbone.model.items():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    backbone.first_stage(torch.randn(1, 3, 32, 32))
    assert ran == list(backbone.model)[: len(ran)] and 'stages_0' in ran and 'stages_1' not in ran


def test_recomputation_changes_no_number_and_counts_batches_once():
    images = torch.randn(2, 3, 64, 64)
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = build(RESNET, (1, 4), with_cp=with_cp).train()
        sum(feats.square().mean() for feats in backbone(images)).backward()
        norms = {key: value for key, value in backbone.state_dict().items() if 'running' in key or 'num_batches' in key}
        results.append(({name: p.grad for name, p in backbone.named_parameters()}, norms))
    for plain, recomputed in zip(*results):
        assert plain.keys() == recomputed.keys()
        for key, value in plain.items():
            torch.testing.assert_close(recomputed[key], value)


def test_norms_can_stay_in_evaluation_mode():
    for norm_eval in (False, True):
        backbone = build(RESNET, (1, 4), norm_eval=norm_eval).train()
        assert backbone.training and backbone.model['bn1'].training is not norm_eval


@pytest.mark.parametrize('options, out_indices', [(CONVNEXT, (0, 2)), (RESNET, (1, 3)), (SWIN, (0, 2)), (VIT, (1, 2))])
def test_weights_from_a_file(tmp_path, options, out_indices):
    whole = timm.create_model(**{**options, 'model_name': options['model_name']})
    torch.save(dict(state_dict=whole.state_dict()), tmp_path / 'weights.pth')
    backbone = build(options, out_indices, checkpoint=str(tmp_path / 'weights.pth'))
    images = torch.randn(1, 3, 64, 96)
    whole.eval(), backbone.eval()
    before = backbone(images)[-1]
    backbone.init_weights()
    expected = whole.forward_intermediates(images, indices=list(out_indices), intermediates_only=True)
    for ours, theirs in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(backbone(images)[-1], before)


def test_files_that_do_not_fit(tmp_path):
    backbone = build(CONVNEXT, (0, 3), checkpoint=str(tmp_path / 'weights.pth'))
    with pytest.raises(FileNotFoundError, match='weights.pth'):
        backbone.init_weights()
    other = timm.create_model(**{**CONVNEXT, 'dims': (8, 16, 24, 40)})
    torch.save(other.state_dict(), tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match='stages_3'):
        backbone.init_weights()


def test_settings_that_cannot_be_meant():
    with pytest.raises(ValueError, match='convnext_base'):
        TimmBackbone('convnext_bass')
    with pytest.raises(ValueError, match='out_indices'):
        build(CONVNEXT, (0, 9))
    with pytest.raises(ValueError, match='with_cp'):
        build(VIT, (1, 3), with_cp=True)
