"""The classic class interface, the camera helpers and the two copies of the constants."""

import math
import re
from pathlib import Path

import pytest
import torch

from gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, camera, constants, rasterize

HEADER = Path(__file__).parents[1] / 'csrc' / 'common.h'


def _settings(scene, **changes):
    view, K = scene['viewmats'][0], scene['Ks'][0]
    projection = camera.projection_matrix(K, scene['width'], scene['height'])
    options = dict(
        image_height=scene['height'],
        image_width=scene['width'],
        tanfovx=scene['width'] / (2 * float(K[0, 0])),
        tanfovy=scene['height'] / (2 * float(K[1, 1])),
        bg=scene['background'],
        scale_modifier=1.0,
        viewmatrix=view.T,
        projmatrix=(projection @ view).T,
    )
    return GaussianRasterizationSettings(**(options | changes))


def _call(scene, rasterizer, **changes):
    options = dict(
        means3D=scene['means'],
        means2D=torch.zeros_like(scene['means']),
        opacities=scene['opacities'][:, None],
        colors_precomp=scene['features'],
        scales=scene['scales'],
        rotations=scene['quats'],
    )
    return rasterizer(**(options | changes))


def test_equals_the_functional_form(backend, to_device, make_scene):
    scene = to_device(make_scene(0, count=80, channels=4), backend)
    extra = torch.rand(80, 2, device=scene['means'].device)
    color, depth, normal, alpha, radii, extra_image = _call(
        scene, GaussianRasterizer(_settings(scene), backend=backend), extra_attrs=extra
    )
    want = rasterize(**scene, backend=backend)
    torch.testing.assert_close(color, want.features[0].movedim(-1, 0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(depth, want.depth, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(alpha, want.alpha, atol=1e-3, rtol=1e-3)
    assert radii.shape == (80,) and normal.shape == (3, 23, 37)
    assert extra_image.shape == (2, 23, 37) and extra_image.max() > 0
    assert len(_call(scene, GaussianRasterizer(_settings(scene), backend=backend))[5]) == 0


def test_normals_face_the_camera(make_scene):
    """A plate in front of the camera: its normal is the optical axis, towards the camera, of length one."""
    scene = make_scene(0, count=1)
    scene['viewmats'][0] = torch.eye(4)
    scene['means'][0] = torch.tensor([0.0, 0.0, 3.0])
    scene['scales'][0] = torch.tensor([2.0, 2.0, 0.01])
    scene['quats'][0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    scene['opacities'][0] = 0.9
    normal = _call(scene, GaussianRasterizer(_settings(scene), backend='reference'))[2]
    torch.testing.assert_close(normal[:, 11, 18], torch.tensor([0.0, 0.0, -1.0]))


def test_given_normals_replace_those_of_the_gaussians(make_scene):
    scene = make_scene(0)
    rasterizer = GaussianRasterizer(_settings(scene), backend='reference')
    given = torch.tensor([0.0, 0.6, 0.8]).expand(40, 3)
    color, _, normal, alpha, *_ = _call(scene, rasterizer, norm3Ds_precomp=given)
    drawn = alpha[0] > 1e-3
    torch.testing.assert_close(normal[:, drawn], given[0][:, None].expand(3, int(drawn.sum())))
    assert torch.equal(color, _call(scene, rasterizer, norm3Ds_precomp=None)[0])


def test_half_precision_keeps_the_camera(make_scene):
    scene = make_scene(0, count=80)
    scene['Ks'] = torch.tensor([[[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]])
    scene['width'], scene['height'] = 1600, 900
    half = {k: scene[k].half() for k in ('means', 'quats', 'scales', 'opacities', 'features')}
    color = _call(dict(scene, **half), GaussianRasterizer(_settings(scene)))[0]
    torch.testing.assert_close(color, rasterize(**dict(scene, **half)).features[0].movedim(-1, 0), atol=1e-3, rtol=1e-3)


def test_scale_modifier_and_visibility(make_scene):
    scene = make_scene(1)
    small, large = (
        _call(scene, GaussianRasterizer(_settings(scene, scale_modifier=m), backend='reference'))[4] for m in (0.5, 2.0)
    )
    assert (large >= small).all() and (large > small).any()
    visible = GaussianRasterizer(_settings(scene)).markVisible(scene['means'])
    # in front of the camera, but not all of it in the image
    radii = rasterize(**scene, backend='reference').radii[0]
    assert visible[radii > 0].all() and 0 < (radii > 0).sum() < visible.sum() == len(radii)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(colors_precomp=None, shs=torch.zeros(40, 1, 3)), r'give colors_precomp .* spherical harmonics'),
        (dict(cov3D_precomp=torch.zeros(40, 6)), r'cov3D_precomp is not supported'),
        (dict(scales=None), r'give scales \(N, 3\) and rotations'),
    ],
)
def test_refusals(make_scene, changes, message):
    scene = make_scene(2)
    with pytest.raises(ValueError, match=message):
        _call(scene, GaussianRasterizer(_settings(scene)), **changes)


def test_intrinsics_survive_the_classic_form():
    K = camera.intrinsic_matrix(1200.0, 1100.0, 333.0, 250.0, dtype=torch.float64)
    P = camera.projection_matrix(K, 1600, 900)
    back = camera.intrinsics_from_projection(P, 1600 / 2400, 900 / 2200, 1600, 900)
    torch.testing.assert_close(back, K)
    assert camera.fov_to_focal(camera.focal_to_fov(700.0, 640), 640) == pytest.approx(700.0)
    assert camera.focal_to_fov(320.0, 640) == pytest.approx(math.pi / 2)


def test_projection_matrix_agrees_with_the_rasteriser():
    """Normalised device coordinates of P land on the pixel that fx x / z + cx - 0.5 names."""
    K = camera.intrinsic_matrix(30.0, 32.0, 20.0, 9.0, dtype=torch.float64)
    point = torch.tensor([0.3, -0.2, 2.5, 1.0], dtype=torch.float64)
    h = camera.projection_matrix(K, 37, 23) @ point
    pixel = ((h[:2] / h[3] + 1) * torch.tensor([37.0, 23.0]) - 1) / 2
    want = torch.stack([30 * 0.3 / 2.5 + 20 - 0.5 + 0 * h[0], 32 * -0.2 / 2.5 + 9 - 0.5 + 0 * h[0]])
    torch.testing.assert_close(pixel, want)


def test_constants_of_both_languages_agree():
    text = HEADER.read_text()
    found = {name: float(value) for name, value in re.findall(r'constexpr \w+ ([A-Z_0-9]+) = ([0-9.e+-]+)f?;', text)}
    for name in (
        'CLAMP_MARGIN',
        'RADIUS_SIGMAS',
        'RADIUS_FLOOR',
        'Z_LIMIT',
        'COMPAT_TILE',
        'MASK_TILE',
        'EXTENT_FACTOR',
        'EXTENT_MARGIN',
    ):
        assert found[name] == getattr(constants, name), name


@pytest.mark.parametrize('kind', ['orthographic', 'mirrored', 'zero', 'other field of view', 'not transposed', 'skewed'])
def test_projections_that_would_be_drawn_as_others_are_refused(make_scene, kind):
    scene = make_scene(0)
    view, K = scene['viewmats'][0], scene['Ks'][0]
    projection = camera.projection_matrix(K, scene['width'], scene['height'])
    if kind == 'orthographic':
        projection[3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    elif kind == 'mirrored':
        projection[1] *= -1
    elif kind == 'zero':
        projection *= 0
    elif kind == 'other field of view':
        projection[0, 0] *= 2
    elif kind == 'skewed':
        projection[0, 1] = 0.3
    whole = projection @ view
    changed = _settings(scene, projmatrix=whole if kind == 'not transposed' else whole.T)
    with pytest.raises(ValueError, match='projmatrix'):
        _call(scene, GaussianRasterizer(changed, backend='reference'))


def test_the_page_on_moving_a_script_counts_contributions(make_scene):
    page = (Path(__file__).parents[3] / 'docs' / 'moving_a_3dgs_script.md').read_text()
    names = {}
    exec(re.findall(r'```python\n(.*?)```', page, re.DOTALL)[0], names)
    scene = make_scene(2, count=30)
    keys = ('means', 'quats', 'scales', 'opacities', 'viewmats', 'Ks', 'width', 'height')
    got = names['contributions'](*(scene[key] for key in keys))
    # every Gaussian alone in its channel
    each = rasterize(**scene | dict(features=torch.eye(30), background=None)).features.sum((0, 1, 2))
    torch.testing.assert_close(got, each, rtol=1e-4, atol=1e-4)
