"""Bad input gets one sentence."""

import pytest
import torch

from gaussian_rasterization import RasterSettings, backends, rasterize

CASES = [
    (dict(means=torch.zeros(40, 2)), ValueError, r'means must be \(G, 3\), got \(40, 2\) float32'),
    (dict(quats=torch.zeros(39, 4)), ValueError, r'quats must be \(40, 4\) to fit means, got \(39, 4\)'),
    (dict(scales=torch.zeros(40)), ValueError, r'scales must be \(40, 3\)'),
    (dict(opacities=torch.zeros(40, 1)), ValueError, r'opacities must be \(40,\).*squeeze the last axis'),
    (dict(features=torch.zeros(40, 0)), ValueError, r'features must be \(40, C\) with C >= 1'),
    (dict(features=torch.zeros(40, dtype=torch.long)), ValueError, r'integer features are class labels and need num_classes'),
    (dict(features=torch.full((40,), 9), num_classes=4), ValueError, r'class labels must be in 0\.\.3, got 9\.\.9'),
    (dict(features=torch.zeros(40, 3, dtype=torch.bool)), TypeError, r'features must be floating point'),
    (dict(num_classes=5), ValueError, r'num_classes=5 is for integer labels; these features have 3 channels'),
    (dict(viewmats=torch.eye(4)), ValueError, r'viewmats must be \(V, 4, 4\), got \(4, 4\)'),
    (dict(viewmats=torch.zeros(0, 4, 4)), ValueError, r'viewmats holds no view'),
    (dict(Ks=torch.zeros(2, 3, 3)), ValueError, r'Ks must be \(1, 3, 3\) to fit viewmats'),
    (dict(background=torch.zeros(4)), ValueError, r'background must be \(3,\) or \(1, 3\), got \(4,\)'),
    (dict(means=torch.zeros(40, 3, dtype=torch.long)), TypeError, r'means must be floating point, got torch.int64'),
    (dict(means=[[0, 0, 0]]), TypeError, r'means must be a torch.Tensor, got list'),
    (dict(opacities=torch.zeros(40, device='meta')), ValueError, r'one device, but means is on cpu and opacities on meta'),
    (dict(width=0), ValueError, r'width must be an integer in 1\.\.32768, got 0'),
    (dict(height=2.5), ValueError, r'height must be an integer in 1\.\.32768, got 2\.5'),
    (dict(settings=dict(near=1.0)), TypeError, r"settings must be RasterSettings\(\.\.\.\), got dict \{'near': 1\.0\}"),
    (dict(settings=None), TypeError, r'settings must be RasterSettings'),
    (dict(backend='opengl'), ValueError, r"backend must be None or one of .*got 'opengl'"),
    (dict(tile_mask=torch.ones(1, 2, 2, dtype=torch.bool)), ValueError, r'tile_mask must be a bool tensor \(1, 2, 3\)'),
]


@pytest.mark.parametrize('changes, error, message', CASES, ids=[m for _, _, m in CASES])
def test_message(make_scene, changes, error, message):
    with pytest.raises(error, match=message):
        rasterize(**dict(make_scene(0), backend='reference') | changes)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(jacobian_clamp='none'), r"jacobian_clamp must be one of \('symmetric', 'offcentre'\), got 'none'"),
        (dict(cap_gradient=1), r'cap_gradient must be one of'),
        (dict(tile_compat='rect16'), r"tile_compat must be one of \(None, 'rect12'\)"),
        (dict(near=0.0), r'near must be > 0'),
        (dict(dilation=-1.0), r'dilation must be >= 0'),
        (dict(alpha_max=1.0), r'alpha_max must be between 0 and 1'),
        (dict(alpha_min=0.0), r'alpha_min must be above 0'),
        (dict(transmittance_min=0.0), r'transmittance_min must be between 0 and 1'),
        (dict(scale_modifier=float('nan')), r'scale_modifier must be finite'),
    ],
)
def test_settings(options, message):
    with pytest.raises(ValueError, match=message):
        RasterSettings(**options)


def test_debug_names_the_tensor_and_the_index(make_scene):
    scene = make_scene(0)
    scene['scales'][7, 2] = float('inf')
    with pytest.raises(ValueError, match=r'scales\[7, 2\] is inf \(1 non-finite values in scales\)'):
        rasterize(**scene, settings=RasterSettings(debug=True), backend='reference')
    assert rasterize(**scene, backend='reference').features.isfinite().all()


@pytest.fixture
def not_built(monkeypatch):
    """A process without the shared object."""
    monkeypatch.setattr(backends, 'LIBRARY', None)
    monkeypatch.setattr(backends, 'REASON', 'it was not built')
    monkeypatch.setattr(backends, 'AVAILABLE', dict(cpu=False, cuda=False, reference=True))


def test_missing_backend_says_how_to_build_it(make_scene, not_built):
    with pytest.raises(RuntimeError, match=r"'cpu' backend .* is missing: it was not built.*\n +pip install"):
        rasterize(**make_scene(0), backend='cpu')
    with pytest.raises(RuntimeError, match=r'FORCE_CUDA=1 pip install'):
        rasterize(**make_scene(0), backend='cuda')
    config = backends.build_config()
    assert config['reference'] and not config['cpu'] and config['library'] is None
    assert config['default'] == dict(cpu=None, cuda=None)


def test_cuda_backend_left_out_says_why(make_scene):
    if backends.AVAILABLE['cuda'] or not backends.AVAILABLE['cpu']:
        pytest.skip('needs a library with the CPU backend alone')
    obstacle = backends.build_config()['cuda_obstacle']
    with pytest.raises(RuntimeError, match=r"'cuda' backend .* is missing: the library was built without it") as error:
        rasterize(**make_scene(0), backend='cuda')
    assert obstacle and obstacle in str(error.value)


def test_reference_is_never_taken_silently(make_scene, not_built):
    with pytest.raises(RuntimeError, match=r"'cpu' backend .* is missing: it was not built. Build it with\n +pip install"):
        rasterize(**make_scene(0))
    assert rasterize(**make_scene(0), backend='reference').features.isfinite().all()
    assert rasterize(**make_scene(0, dtype=torch.float64)).features.dtype == torch.float64
    with pytest.raises(RuntimeError, match=r"FORCE_CUDA=1 pip install.*\nor use backend='reference'"):
        backends.default_backend(torch.device('cuda', 0))
    with pytest.raises(RuntimeError, match=r"no compiled backend for 'mps': move the tensors"):
        backends.default_backend(torch.device('mps'))


def test_float64_is_the_reference(make_scene):
    out = rasterize(**make_scene(0, dtype=torch.float64))
    assert out.features.dtype == torch.float64
    if backends.AVAILABLE['cpu']:
        with pytest.raises(ValueError, match=r'computes in float32 but an input is float64'):
            rasterize(**make_scene(0, dtype=torch.float64), backend='cpu')


def _rigid():
    turned = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    view = torch.eye(4)
    view[:3, :3], view[:3, 3] = turned, torch.tensor([0.1, 0.2, 4.0])
    return view[None]


K = torch.tensor([[[30.0, 0.0, 18.0], [0.0, 30.0, 11.0], [0.0, 0.0, 1.0]]])
SKEWED = K + torch.tensor([[[0.0, 2.0, 0.0], [0.0] * 3, [0.0] * 3]])


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(viewmats=_rigid().mT), r'viewmats\[0\] must end with the row .*transposed'),
        (dict(viewmats=_rigid() * 2), r'viewmats\[0\] must end with the row'),
        (dict(viewmats=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))[None] @ _rigid()), r'viewmats\[0\] must be rigid'),
        (dict(viewmats=torch.zeros(1, 4, 4)), r'viewmats\[0\] must end'),
        (dict(Ks=K * 2), r'Ks\[0\] must end with the row'),
        (dict(Ks=K.mT), r'Ks\[0\] must end with the row'),
        (dict(Ks=SKEWED), r'Ks\[0\] has a skew'),
        (dict(Ks=K * torch.tensor([[[-1.0], [1.0], [1.0]]])), r'Ks\[0\] must have positive focal lengths'),
    ],
)
def test_matrices_that_are_no_cameras(make_scene, backend, to_device, changes, message):
    good = dict(viewmats=_rigid(), Ks=K)
    options = dict(backend=backend, settings=RasterSettings(debug=True))
    rasterize(**to_device(make_scene(0) | good, backend), **options)
    with pytest.raises(ValueError, match=message):
        rasterize(**to_device(make_scene(0) | good | changes, backend), **options)


def test_the_second_camera_is_named(make_scene):
    scene = make_scene(0) | dict(viewmats=torch.cat([_rigid(), _rigid().mT]), Ks=torch.cat([K, K]))
    with pytest.raises(ValueError, match=r'viewmats\[1\]'):
        rasterize(**scene, backend='reference')


def test_mirrored_and_half_precision_cameras_pass(make_scene):
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    rasterize(**make_scene(0) | dict(viewmats=_rigid() @ mirror), backend='reference')
    rasterize(**make_scene(0) | dict(viewmats=_rigid().half(), Ks=K.half()), backend='reference')


@pytest.mark.parametrize('name', ['viewmats', 'Ks', 'background', 'opacities', 'features'])
def test_one_float64_input_does_not_send_the_render_to_the_reference(make_scene, monkeypatch, name):
    scene = make_scene(0)
    monkeypatch.setattr('gaussian_rasterization.functional.rasterize_reference', None)
    out = rasterize(**scene | {name: scene[name].double()})
    want = rasterize(**scene)
    assert out.features.dtype == torch.float32
    torch.testing.assert_close(out.features, want.features)
    assert rasterize(**scene | {name: scene[name].double()}, backend='cpu').alpha.dtype == torch.float32
