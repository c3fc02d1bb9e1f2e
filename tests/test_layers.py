"""The import rules between layers, read from the sources, and the shape of the tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTENSION = ROOT / 'extensions' / 'diff-gaussian-rasterization' / 'gaussian_rasterization'
FAMILIES = ('bevdet', 'tpvformer', 'surroundocc', 'symphonies')
STRUCTURES, FUNCTIONAL = 'projects.occ.structures', 'projects.occ.evaluation.functional'
LOW = (STRUCTURES, FUNCTIONAL)
FILES = (
    'projects.occ.atomic_write',
    'projects.occ.file_arrays',
    'projects.occ.file_names',
    'projects.occ.image_files',
    'projects.occ.safe_pickle',
)
OCC_PARTS = ('datasets', 'models', 'evaluation', 'visualization', 'engine')
MM = ('mmengine', 'mmcv', 'mmdet', 'mmdet3d')

# what generated streets take from the preparation of data: the writers of file formats, and rays through voxels
FORMAT_WRITERS = tuple(
    f'projects.preparation.{name}' for name in ('info_writer', 'label_files', 'nuscenes_tables', 'voxel_rays')
)

# The longest matching prefix rules; third parties other than the mm* packages and gaussian_rasterization are free.
ALLOWED = {
    'gaussian_rasterization': (),
    STRUCTURES: ('mmengine.structures',),
    FUNCTIONAL: (STRUCTURES,),
    'projects.rendering': (STRUCTURES, FUNCTIONAL, 'gaussian_rasterization'),
    # the parts under names that configs can use
    'projects.rendering.registered_parts': (STRUCTURES, 'projects.rendering', *MM),
    'projects.gaussrender': (STRUCTURES, 'projects.rendering'),
    'projects.gaussrender.aggregator': (STRUCTURES, 'projects.rendering', 'projects.gaussrender', *MM),
    'projects.gaussrender.image_metric': (STRUCTURES, FUNCTIONAL, 'projects.rendering', 'projects.gaussrender', *MM),
    'projects.occ.atomic_write': (),
    'projects.occ.safe_pickle': (),
    'projects.occ.file_names': (),
    'projects.occ.image_files': ('mmcv',),
    'projects.occ.file_arrays': ('mmengine.fileio',),
    **{f'projects.occ.{part}': (*LOW, *FILES, *MM) for part in OCC_PARTS},
    # renders what is predicted
    'projects.occ.evaluation.rendered_depth_metric': (*LOW, 'projects.rendering', 'projects.occ.evaluation', *MM),
    'projects.occ.apis': (
        *LOW,
        *FILES,
        'projects.occ.engine',
        'projects.occ.visualization',
        *MM,
    ),
    **{f'projects.{family}': (*LOW, 'projects.occ.models', *MM) for family in FAMILIES},
    'projects.gaussianocc': (
        *LOW,
        'projects.occ.models',
        # geometry of images and motions, no supervision
        *(f'projects.rendering.{name}' for name in ('frame_images', 'photometric', 'pose_vectors')),
        *MM,
    ),
    'projects.preparation': (*LOW, *FILES, 'projects.occ.datasets', 'mmengine'),
    'projects.streets': (STRUCTURES, *FILES, 'projects.occ.datasets', *FORMAT_WRITERS),
    'projects.example_dataset': (STRUCTURES, 'projects.preparation.info_writer'),
    # the example stands for a user's code: parts of a family, and a loop of its own that calls GaussRender
    'projects.example_model': (STRUCTURES, 'projects.occ.models', *MM),
    'projects.example_model.voxel_network': (STRUCTURES,),
    'projects.example_model.silhouettes': (STRUCTURES, 'projects.rendering', *MM),
    'projects.example_model.bare_loop': (STRUCTURES, 'projects.example_model.voxel_network', 'projects.gaussrender'),
}

# Inside a package, low to high: a module imports from its own level and from lower ones. What is not named is on the empty
# level, or on the lowest where there is none.
LEVELS = {
    'projects.occ': (
        ('atomic_write', 'file_arrays', 'file_names', 'image_files', 'safe_pickle', 'structures'),
        ('evaluation.functional',),
        ('datasets', 'models', 'evaluation', 'visualization', 'engine'),
        ('apis',),
    ),
    'projects.occ.datasets': (
        (),
        ('transforms',),
        ('frame_dataset',),
        ('nuscenes_occ_dataset', 'sscbench_kitti360_dataset', 'ddad_dataset'),
        ('occ3d_nuscenes_dataset', 'surroundocc_nuscenes_dataset'),
    ),
    'projects.rendering': (
        (
            'rendered',
            'camera_strategies',
            'pose_vectors',
            'photometric',
            'regularizers',
            'frame_images',
            'half_space',
            'footprint',
            'ray_losses',
            'ray_pixels',
        ),
        ('camera_sampler', 'fields', 'free_logit_field', 'losses', 'splat', 'targets'),
        ('density_field', 'march_contracted', 'ray_terms'),
        ('views', 'key_cameras', 'image_terms', 'cross_view', 'rig_depth', 'march', 'ray_queries', 'fused'),
        ('supervision',),
        ('registered_parts', 'refinement'),
    ),
    'projects.gaussrender': (('camera_batch', 'loss_terms'), ('gauss_render',), ('aggregator', 'image_metric')),
    'projects.occ.engine': ((), ('hooks',)),
    'projects.occ.evaluation': (
        ('functional',),
        ('depth_metric', 'ray_origin_files'),
        ('occupancy_metric', 'ray_iou_metric', 'ray_profile_metric', 'rendered_depth_metric'),
    ),
    'projects.occ.models': (('layers', 'weight_names'), (), ('occ_segmentor',)),
    'projects.occ.visualization': (
        (),
        ('figures', 'scene_html'),
        ('dataset_page', 'occ_visualizer', 'ray_maps', 'scene_videos'),
        ('visualization_hook',),
    ),
    'projects.preparation': (
        ('findings', 'parallel', 'voxel_rays', 'info_writer', 'label_files'),
        ('check_files', 'label_making', 'nuscenes_tables', 'pseudo_labels', 'raw_label_conversion'),
        ('label_aggregation', 'lidar_rays', 'nuscenes', 'kitti360', 'ddad', 'info_conversion'),
        ('label_sources', 'check_nuscenes', 'check_kitti360', 'check_ddad'),
        ('label_preparation', 'check_synthetic'),
        ('command_line',),
        ('check_config',),
    ),
    'projects.streets': (
        ('config', 'geometry'),
        ('materials', 'scene'),
        ('class_maps', 'objects', 'ray_cast', 'street'),
        ('placement', 'shading'),
        ('world',),
        ('labels', 'sensors'),
        ('frame',),
        ('kitti360_writer', 'ddad_writer', 'nuscenes_table_writer', 'preview', 'writer'),
        ('generate',),
    ),
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


def level_of(module: str, package: str) -> int | None:
    """Level of a module inside a package; None for the package itself and for what lies outside."""
    if not module.startswith(package + '.'):
        return None
    name, levels = module.removeprefix(package + '.'), LEVELS[package]
    found = [(len(part), i) for i, level in enumerate(levels) for part in level if below(name, part)]
    return max(found)[1] if found else levels.index(()) if () in levels else 0


def upward(module: str, names: set[str], modules: set[str]) -> list[str]:
    """The imports that go from a lower level of a package to a higher one."""
    targets = {max((m for m in modules if below(name, m)), key=len) for name in names if below(name, 'projects')}
    found = set()
    for package in LEVELS:
        own = level_of(module, package)
        for target in targets if own is not None else ():
            other = level_of(target, package)
            # a package itself re-exports its highest level
            if target == package or (other is not None and other > own):
                found.add(target)
    return sorted(found)


def test_inside_a_package_imports_go_down():
    modules = {name for name, _ in sources()}
    # __init__ modules only re-export
    files = [(module, path) for module, path in sources() if path.name != '__init__.py']
    broken = {module: bad for module, path in files if (bad := upward(module, imports(module, path), modules))}
    assert not broken, f'these modules import from a higher level of their package: {broken}'


def test_no_module_imports_itself_by_a_detour():
    modules = {name for name, _ in sources()}
    graph = {
        module: {max((m for m in modules if below(name, m)), key=len, default=module) for name in imports(module, path)}
        for module, path in sources()
    }
    graph = {module: targets - {module} for module, targets in graph.items()}
    while free := {module for module, targets in graph.items() if not targets & graph.keys()}:
        graph = {module: targets for module, targets in graph.items() if module not in free}
    assert not graph, f'these modules import each other in a circle: {sorted(graph)}'


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
        ('projects.gaussrender.image_metric', 'projects.occ.evaluation.occupancy_metric.OccupancyMetric'),
        ('projects.occ.evaluation.ray_iou_metric', 'projects.occ.datasets.Occ3DNuScenesDataset'),
        ('projects.rendering.fields', 'projects.gaussrender.GaussRender'),
        ('gaussian_rasterization.reference', 'mmcv.ops'),
        ('projects.occ.datasets.frame_dataset', 'projects.preparation.parallel'),
        ('projects.preparation.check_synthetic', 'projects.streets.generate'),
        ('projects.streets.writer', 'projects.preparation.nuscenes'),
        ('projects.tpvformer.checkpoint', 'projects.preparation.findings'),
        ('projects.occ.engine.metrics_file', 'tools.dev.benchmark_report'),
    ],
)
def test_the_rules_bite(module, name):
    assert violations(module, {name}) == [name]


@pytest.mark.parametrize(
    'module, target',
    [
        ('projects.occ.datasets.transforms.label_loading', 'projects.occ.datasets.nuscenes_occ_dataset'),
        ('projects.occ.datasets.info_formats', 'projects.occ.datasets.transforms'),
        ('projects.occ.datasets.transforms.depth', 'projects.occ.datasets'),
        ('projects.occ.evaluation.functional.confusion', 'projects.occ.evaluation.ray_origin_files'),
        ('projects.preparation.parallel', 'projects.preparation.nuscenes'),
        ('projects.streets.sensors', 'projects.streets.frame'),
    ],
)
def test_the_levels_bite(module, target):
    modules = {name for name, _ in sources()}
    assert {module, target} <= modules and upward(module, {f'{target}.thing'}, modules) == [target]


def test_relative_imports_are_resolved(tmp_path):
    path = tmp_path / 'module.py'
    path.write_text('from ..occ.datasets import thing\nfrom . import other\n')
    assert imports('projects.tpvformer.module', path) == {'projects.occ.datasets.thing', 'projects.tpvformer.other'}


def test_files_are_short_and_named_after_what_they_hold():
    python = [p for folder in ('projects', 'tools', 'extensions', 'tests') for p in (ROOT / folder).rglob('*.py')]

    def limit(path: Path) -> int:
        return 450 if path.relative_to(ROOT).parts[0] in ('projects', 'tools') else 520

    long = {str(p.relative_to(ROOT)): n for p in python if (n := len(p.read_text().splitlines())) > limit(p)}
    assert not long, f'split these files, they are too long: {long}'
    vague = [str(p.relative_to(ROOT)) for p in python if p.stem in ('utils', 'util', 'helpers', 'misc', 'common')]
    assert not vague, f'name these files after what they hold: {vague}'


@pytest.mark.parametrize(
    ('statement', 'needed'),
    [
        ('from projects.gaussrender import GaussRender; import projects.rendering', set()),
        ('from projects.occ.evaluation.functional import ray_iou, voxel_confusion', {'numba'}),
        ('from gaussian_rasterization import rasterize', set()),
    ],
)
def test_parts_import_with_what_the_page_on_installation_says(statement, needed):
    page = (ROOT / 'docs' / 'installation.md').read_text()
    absent = {'mmengine', 'mmcv', 'mmdet', 'mmdet3d', 'numba', 'scipy', 'cv2', 'nuscenes', 'terminaltables', 'timm'} - needed
    code = f'import sys\nfor name in {sorted(absent)}: sys.modules[name] = None\n{statement}'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = next(row for row in page.splitlines() if row.startswith('|') and statement.split()[1] in row)
    assert all(name in row for name in needed)
