"""The import rules between layers, read from the sources, and the shape of the tree."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTENSION = ROOT / 'extensions' / 'diff-gaussian-rasterization' / 'gaussian_rasterization'
FAMILIES = ('bevdet', 'tpvformer', 'surroundocc', 'symphonies')
STRUCTURES, FUNCTIONAL = 'projects.occ.structures', 'projects.occ.evaluation.functional'
LOW = (STRUCTURES, FUNCTIONAL, 'projects.gaussrender.gaussians', 'projects.gaussrender.cameras')
OCC_PARTS = ('datasets', 'models', 'evaluation', 'visualization', 'engine')
MM = ('mmengine', 'mmcv', 'mmdet', 'mmdet3d')

# The longest matching prefix rules; third parties other than the mm* packages and gaussian_rasterization are free.
ALLOWED = {
    'gaussian_rasterization': (),
    STRUCTURES: ('mmengine.structures',),
    FUNCTIONAL: (STRUCTURES,),
    'projects.gaussrender': (STRUCTURES, 'projects.gaussrender', 'gaussian_rasterization'),
    'projects.gaussrender.gaussians': (STRUCTURES,),
    'projects.gaussrender.cameras': (STRUCTURES,),
    'projects.gaussrender.aggregator': (STRUCTURES, 'projects.gaussrender', *MM),
    'projects.gaussrender.image_metric': (STRUCTURES, FUNCTIONAL, 'projects.gaussrender', *MM),
    'projects.rendering': (STRUCTURES, FUNCTIONAL, 'gaussian_rasterization'),
    'projects.occ.atomic_write': (),
    **{f'projects.occ.{part}': (*LOW[:2], 'projects.occ.atomic_write', *MM) for part in OCC_PARTS},
    'projects.occ.apis': (
        *LOW[:2],
        'projects.occ.atomic_write',
        'projects.occ.engine',
        'projects.occ.visualization',
        *MM,
    ),
    **{f'projects.{family}': (*LOW, 'projects.occ.models', *MM) for family in FAMILIES},
    'projects.gaussianocc': (*LOW, 'projects.occ.models', 'projects.rendering.pose_vectors', *MM),
    # the example stands for a user's code: parts of a family, and a loop of its own that calls GaussRender
    'projects.example_model': (STRUCTURES, 'projects.occ.models', *MM),
    'projects.example_model.voxel_network': (STRUCTURES,),
    'projects.example_model.bare_loop': (STRUCTURES, 'projects.example_model.voxel_network', 'projects.gaussrender'),
}


def sources() -> list[tuple[str, Path]]:
    files = [(f'gaussian_rasterization.{p.relative_to(EXTENSION).with_suffix("")}', p) for p in EXTENSION.rglob('*.py')]
    files += [(str(p.relative_to(ROOT).with_suffix('')), p) for p in (ROOT / 'projects').rglob('*.py')]
    return sorted((name.replace('/', '.').removesuffix('.__init__'), path) for name, path in files)


def imports(module: str, path: Path) -> set[str]:
    """Absolute names of everything that a source file imports, function bodies included."""
    package = module.split('.') if path.name == '__init__.py' else module.split('.')[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                base = '.'.join(package[: len(package) - node.level + 1] + ([node.module] if node.module else []))
            found.update(f'{base}.{alias.name}' for alias in node.names)
    return found


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + '.')


def rule_of(module: str) -> tuple[str, tuple[str, ...]]:
    prefix = max((p for p in ALLOWED if below(module, p)), key=len)
    return prefix, ALLOWED[prefix]


def violations(module: str, found: set[str]) -> list[str]:
    prefix, allowed = rule_of(module)
    guarded = ('projects', 'gaussian_rasterization', 'tools', 'tests', *MM)
    return sorted(
        name for name in found if any(below(name, g) for g in guarded) and not any(below(name, ok) for ok in (prefix, *allowed))
    )


def test_every_module_respects_its_layer():
    broken = {}
    for module, path in sources():
        if module in ('projects', 'projects.occ'):
            continue
        bad = violations(module, imports(module, path))
        if bad:
            broken[module] = bad
    assert not broken, f'these modules import from a layer that they may not know: {broken}'


@pytest.mark.parametrize(
    'module, name',
    [
        ('projects.tpvformer.tpvformer_head', 'projects.gaussrender.GaussRender'),
        ('projects.tpvformer.tpvformer_head', 'projects.occ.datasets.Occ3DNuScenesDataset'),
        ('projects.tpvformer.tpvformer_head', 'projects.surroundocc.head'),
        ('projects.occ.models.occ_segmentor', 'projects.occ.datasets.transforms'),
        ('projects.occ.apis.occ_inferencer', 'projects.occ.models.OccSegmentor'),
        ('projects.occ.evaluation.functional.confusion', 'mmengine.evaluator'),
        ('projects.gaussrender.gauss_render', 'mmdet3d.registry.MODELS'),
        ('projects.gaussrender.image_metric', 'projects.occ.evaluation.presets.get_preset'),
        ('projects.occ.evaluation.ray_iou_metric', 'projects.occ.datasets.Occ3DNuScenesDataset'),
        ('projects.gaussrender.gaussians', 'projects.gaussrender.renderer'),
        ('gaussian_rasterization.reference', 'mmcv.ops'),
    ],
)
def test_the_rules_bite(module, name):
    assert violations(module, {name}) == [name]


def test_relative_imports_are_resolved(tmp_path):
    path = tmp_path / 'module.py'
    path.write_text('from ..occ.datasets import thing\nfrom . import other\n')
    assert imports('projects.tpvformer.module', path) == {'projects.occ.datasets.thing', 'projects.tpvformer.other'}


def test_files_are_short_and_named_after_what_they_hold():
    python = [p for folder in ('projects', 'tools', 'extensions', 'tests') for p in (ROOT / folder).rglob('*.py')]
    long = {str(p.relative_to(ROOT)): n for p in python if (n := len(p.read_text().splitlines())) > 520}
    assert not long, f'split these files, they have more than about 500 lines: {long}'
    vague = [str(p.relative_to(ROOT)) for p in python if p.stem in ('utils', 'util', 'helpers', 'misc', 'common')]
    assert not vague, f'name these files after what they hold: {vague}'
