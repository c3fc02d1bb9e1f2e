"""The whole network, its losses and its gradients against the original implementation, stage by stage."""

import json

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope
from occ_batches import batch_of_samples
from symphonies_official_config import model_config_from_official

from projects.occ.models.voxel_views import frustum_index, project_grid
from projects.occ.structures import OccDataSample
from projects.symphonies.checkpoint import to_project
from projects.symphonies.scene_geometry import plane_reference

LOSS_RTOL, GRAD_RTOL = 1e-5, 1e-3
TERMS = dict(ce_ssc='ce', sem_scal='sem_scal', geo_scal='geo_scal', frustum='frustum')
STEPS = (
    'query_image_cross_deform_attn',
    'scene_query_cross_attn',
    'scene_self_deform_attn',
    'query_scene_cross_deform_attn',
    'query_self_attn',
)


@pytest.fixture(scope='module')
def case(golden_dir):
    return torch.load(golden_dir / 'symphonies_small.pt', weights_only=True)


@pytest.fixture(scope='module')
def model(case):
    init_default_scope('mmdet3d')
    torch.set_num_threads(1)
    model = MODELS.build(model_config_from_official(json.loads(case['config']), class_weights=case['class_weights']))
    model.load_state_dict(to_project.state_dict(case['state_dict'], 'authors'), strict=True)
    return model.eval()


def build_sample(case):
    """The case as a data sample."""
    inputs, (height, width) = case['inputs'], case['inputs']['img'].shape[-2:]
    cam2img, ref2cam = inputs['cam_K'], inputs['cam_pose']
    padded = torch.eye(4)
    padded[:3, :3] = cam2img[0]
    sample = OccDataSample(gt_occ=case['labels']['target'][0])
    sizes = np.float32([[width, height]])
    sample.set_metainfo(
        dict(
            ref2img=(padded @ ref2cam).numpy(),
            ref2cam=ref2cam.numpy(),
            cam2img=cam2img.numpy(),
            img_wh=sizes,
            ori_img_wh=sizes,
            token='golden',
        )
    )
    return sample


def build_batch(case, projected=True, **changes):
    """The case as a batch; without ``projected`` everything has to follow from the cameras."""
    inputs, fields = case['inputs'], dict(depths=case['inputs']['depth'][:, None])
    if projected:
        fields.update(voxel_pixels=inputs['projected_pix_2'][None].long(), voxel_visible=inputs['fov_mask_2'][None])
    return batch_of_samples(inputs['img'][:, None], [build_sample(case)], **{**fields, **changes})


class AllOutputs:
    """Lets the view encoder return the volumes of all layers, with dropout and norms in evaluation mode."""

    def __init__(self, model):
        self.encoder = model.view_encoder

    def __enter__(self):
        self.encoder.training = True

    def __exit__(self, *error):
        self.encoder.training = False


@pytest.fixture(scope='module')
def taps(model, case):
    """Outputs of the modules of interest during one forward pass without gradients, and what the layers know of the scene."""
    seen = {}

    def keep(name):
        def hook(module, args, output):
            assert name not in seen
            seen[name] = output

        return hook

    def keep_scene(module, args):
        seen['proposed_scene'] = args[0]

    encoder = model.view_encoder
    watched = dict(
        backbone=model.img_backbone, pixel_decoder=model.img_neck, proposed=encoder.voxel_proposal, aspp=encoder.aspp
    )
    watched['decoder.scene_pos'] = encoder.scene_pos
    watched.update({f'encoder.feat{i}': proj for i, proj in enumerate(encoder.out_projs)})
    watched.update({f'layer{i}': layer for i, layer in enumerate(encoder.layers)})
    watched.update({f'layer0.{step}': getattr(encoder.layers[0], step) for step in STEPS})
    handles = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    look = encoder._look

    def remember(*args):
        seen['view'], seen['surface'], seen['pixels'] = result = look(*args)
        return result

    encoder._look = remember
    handles.append(encoder.layers[0].register_forward_pre_hook(keep_scene))
    with torch.no_grad(), AllOutputs(model):
        seen['prediction'] = model.encode_decode(build_batch(case))
    del encoder._look
    for handle in handles:
        handle.remove()
    return seen


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def as_volume(scene, theirs):
    return scene.transpose(1, 2).reshape(theirs.shape)


def test_image_network(taps, case):
    theirs = case['taps']
    for i in range(4):
        assert_close(taps['backbone'][i], theirs[f'backbone.res{i + 2}'])
        assert_close(taps['pixel_decoder'][i + 1], theirs[f'pixel_decoder.level{i}'])
    for i in range(3):
        assert_close(taps[f'encoder.feat{i}'], theirs[f'encoder.feat{i}'])
    assert_close(taps['pixel_decoder'][0], theirs['backbone.res2'])


def test_geometry(taps, case, model):
    theirs, view = case['taps'], taps['view']
    cells = model.view_encoder.cells
    assert_close(model.view_encoder.query_embed.weight[None], theirs['encoder.queries'])
    assert_close(view.query_points, theirs['encoder.pred_pts'])
    assert_close(view.query_points[:, :, None].expand(-1, -1, 3, -1), theirs['decoder.ref_2d'])
    assert_close(taps['decoder.scene_pos'][None], theirs['decoder.scene_pos'])
    assert_close(taps['pixels'], theirs['decoder.ref_pix'])
    # visible cells, in order
    assert torch.equal(view.visible._query, theirs['decoder.fov_mask'][0].nonzero()[:, 0])
    # their normalised x, y, z, in the position that the folded volume wants
    x, y, z = theirs['decoder.ref_3d'][:, :, 0].unbind(-1)
    assert_close(view.query_planes, torch.stack((y, x + (z - 0.5) / cells.shape[2]), -1))
    grid = case['state_dict']['decoder.voxel_grid'].flatten(1)
    assert_close(view.cell_planes[0], torch.stack((grid[1], grid[0] + (grid[2] - 0.5) / cells.shape[2]), -1))
    index = (theirs['decoder.ref_3d'][:, :, 0] * (torch.tensor(cells.shape) - 1)).round()
    assert_close(plane_reference(index, cells), view.query_planes)


def test_cells_of_all_pixels_are_met_exactly(case, model):
    from projects.symphonies.scene_geometry import back_project, cells_of_points

    inputs = case['inputs']
    points = back_project(inputs['depth'], inputs['cam_K'].double(), inputs['cam_pose'].double())
    ours = cells_of_points(points, model.view_encoder.cells).flatten(1, 2)
    assert torch.equal(ours, case['taps']['decoder.vol_pts'].long())
    floor = cells_of_points(points, model.view_encoder.cells, 'floor').flatten(1, 2)
    assert not torch.equal(floor, ours)


def test_proposal(taps, case):
    theirs = case['taps']
    assert_close(taps['proposed'], theirs['voxel_proposal.surface_embed'])
    assert_close(as_volume(taps['proposed_scene'], theirs['voxel_proposal.scene']), theirs['voxel_proposal.scene'])


def test_layers(taps, case):
    theirs = case['taps']
    for step in STEPS:
        assert_close(
            taps[f'layer0.{step}'], theirs['layer0.' + step.replace('query_image_cross_deform', 'query_image_cross_defrom')]
        )
    for i in range(3):
        scene, queries = taps[f'layer{i}']
        assert_close(as_volume(scene, theirs[f'layer{i}.scene']), theirs[f'layer{i}.scene'])
        assert_close(queries, theirs[f'layer{i}.inst_queries'])
    assert_close(taps['aspp'], theirs['aspp'])


@torch.no_grad()
def test_logits(taps, case, model):
    *aux, last = taps['prediction'].logits
    assert_close(last, case['outputs']['ssc_logits'])
    assert torch.equal(last.argmax(1), case['outputs']['ssc_logits'].argmax(1))
    for ours, theirs in zip(aux, case['outputs']['aux_logits_sub2'], strict=True):
        assert_close(ours[:, :, ::2, ::2, ::2], theirs)
    # the features for the aggregator are those in front of the last classifier
    assert_close(model.occ_head.classifier(taps['prediction'].voxel_feats), last)


@torch.no_grad()
def test_two_samples_equal_two_single_runs(case, model):
    """The case beside its mirror image with depths of its own and without projections from the sample."""
    sample = build_sample(case)
    images, depths = case['inputs']['img'][:, None], case['inputs']['depth'][:, None]
    others = images.flip(-1), depths.flip(-1) * 1.1
    both = batch_of_samples(torch.cat([images, others[0]]), [sample, sample], depths=torch.cat([depths, others[1]]))
    with AllOutputs(model):
        joint = model.encode_decode(both).logits
        second = model.encode_decode(batch_of_samples(others[0], [sample], depths=others[1])).logits
    assert_close(joint[-1][:1], case['outputs']['ssc_logits'])
    for index, logits in enumerate(second):
        assert_close(joint[index][1:], logits)
    assert not torch.allclose(joint[-1][0], joint[-1][1], atol=1e-2)


@torch.no_grad()
def test_prediction_from_the_cameras_alone(case, model):
    """Projections that the sample lacks are computed, to the same integers."""
    prediction = model.predict(build_batch(case, projected=False), [build_sample(case)])[0].pred_occ
    assert torch.equal(prediction.long(), case['outputs']['ssc_logits'][0].argmax(0))


def test_projection_and_frustums(case, model):
    inputs, batch = case['inputs'], build_batch(case)
    for scale in (1, 2):
        pixels, visible = project_grid(model.grid, batch.cameras, batch.image_sizes, scale)
        assert torch.equal(visible[0], inputs[f'fov_mask_{scale}'])
        assert torch.equal(pixels[0][visible[0]], inputs[f'projected_pix_{scale}'].long()[visible[0]])
    boxes = frustum_index(batch, model.grid, 4)[0].long()
    masks = case['labels']['frustums_masks'][0].bool()
    known = case['labels']['target'][0] != 255
    for box in range(16):
        assert torch.equal((boxes == box) & known, masks[box]), box
    labels = case['labels']['target'][0].long()
    for box, theirs in enumerate(case['labels']['frustums_class_dists'][0]):
        counts = torch.bincount(labels[masks[box]], minlength=19).float()
        torch.testing.assert_close(counts / counts.sum().clamp(min=1), theirs / theirs.sum().clamp(min=1e-6))


def loss_and_gradients(model, case, **changes):
    model.zero_grad(set_to_none=True)
    losses = model.loss(build_batch(case, **changes), [])
    sum(losses.values()).backward()
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope='module')
def step(model, case):
    with AllOutputs(model):
        return loss_and_gradients(model, case)


def test_losses(step, case):
    losses = step[0]
    assert len(losses) == len(case['losses']) == 12
    for key, theirs in case['losses'].items():
        name, index = key.removeprefix('loss_').rsplit('_', 1)
        ours = losses[f'loss_occ_{TERMS[name]}_{2 - int(index)}']
        assert ours.item() == pytest.approx(float(theirs), rel=LOSS_RTOL), key
    assert sum(losses.values()).item() == pytest.approx(float(case['loss_total']), rel=LOSS_RTOL)


def test_losses_of_the_last_output_alone(model, case):
    with torch.no_grad():
        losses = model.loss(build_batch(case), [])
    assert len(losses) == len(case['losses_eval_only']) == 4
    for key, theirs in case['losses_eval_only'].items():
        ours = losses[f'loss_occ_{TERMS[key.removeprefix("loss_")[:-2]]}_0']
        assert ours.item() == pytest.approx(float(theirs), rel=LOSS_RTOL), key


def test_losses_with_frustums_of_the_pipeline(model, case, step):
    boxes = frustum_index(build_batch(case), model.grid, 4)
    with torch.no_grad(), AllOutputs(model):
        losses = model.loss(build_batch(case, frustum_index=boxes, frustums=4), [])
    for key, value in step[0].items():
        torch.testing.assert_close(losses[key], value.detach())


def assert_gradients_close(ours, theirs, rtol=GRAD_RTOL):
    for name, grad in theirs.items():
        error = (ours[name] - grad).abs().max() / grad.abs().max().clamp(min=1e-12)
        assert error < rtol, f'{name}: {error:.2e}'


def test_gradients(step, case):
    theirs = to_project.state_dict(case['grads'], 'authors')
    assert len(theirs) == len(case['grads']) == 9
    assert_gradients_close(step[1], theirs)
    _, renamed, unknown = to_project([*case['grad_norms'], 'decoder.scene_embed.weight'])
    assert not unknown
    for name, norm in case['grad_norms'].items():
        if norm is None:
            assert renamed[name] not in step[1]
        else:
            assert step[1][renamed[name]].norm().item() == pytest.approx(float(norm), rel=1e-3, abs=1e-7), name


def test_every_trainable_parameter_gets_a_gradient(model, step, case):
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == step[1].keys()
    without = sum(norm is None for norm in case['grad_norms'].values())
    assert without == 106 + 8 == sum(not p.requires_grad for p in model.parameters())


def test_checkpointing_changes_no_number(model, case, step):
    parts = [model.img_neck, model.view_encoder, model.occ_head]
    for part in parts:
        part.with_cp = True
    try:
        with AllOutputs(model):
            losses, grads = loss_and_gradients(model, case)
    finally:
        for part in parts:
            part.with_cp = False
    for key, value in step[0].items():
        torch.testing.assert_close(losses[key], value)
    assert grads.keys() == step[1].keys()
    assert_gradients_close(grads, step[1], rtol=1e-5)
