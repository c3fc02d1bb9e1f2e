"""The benchmarks agree with the configs and with themselves."""

from dataclasses import replace

import pytest
from mmengine.config import Config

from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import BENCHMARKS, get_benchmark
from projects.occ.structures.masks import MASK_FIELDS


def base_configs(root):
    """Base configs of data sets and of whole experiments that name a benchmark."""
    paths = [*root.glob('configs/_base_/datasets/*.py'), *root.glob('configs/[!_]*/*.py')]
    for path in sorted(paths):
        cfg = Config.fromfile(path, import_custom_modules=False)
        evaluators = cfg.get('test_evaluator') or []
        evaluators = [evaluators] if isinstance(evaluators, dict) else evaluators
        evaluator = next((e for e in evaluators if 'preset' in e), {})
        if 'grid' in cfg and evaluator.get('preset'):
            yield path, cfg, BENCHMARKS[evaluator['preset']]


def test_every_config_has_the_grid_of_its_benchmark(repo_root):
    own = []
    for path, cfg, benchmark in base_configs(repo_root):
        grid = VoxelGrid.build(cfg.grid.to_dict())
        assert grid.class_names == benchmark.grid.class_names, path
        assert grid.ahead == benchmark.grid.ahead, path
        if benchmark.check(grid):
            assert grid == benchmark.grid, path
            own.append((path.parent.name, benchmark.name))
    assert {name for folder, name in own if folder == 'datasets'} == set(BENCHMARKS)
    assert len(own) >= 16


@pytest.mark.parametrize('benchmark', BENCHMARKS.values(), ids=BENCHMARKS)
def test_a_benchmark_fits_itself(benchmark):
    assert get_benchmark(benchmark.name) is benchmark
    assert len(benchmark.colors) == benchmark.grid.num_classes and len(set(benchmark.palette.values())) >= 16
    assert benchmark.mask in MASK_FIELDS and set(MASK_FIELDS[benchmark.mask]) <= set(benchmark.label_masks)
    assert benchmark.frames == benchmark.splits[benchmark.split] > 2000
    assert benchmark.check(benchmark.grid) is True
    benchmark.check_classes(benchmark.grid)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match='absent.*occ3d'):
        get_benchmark('absent')


def test_grids_of_other_benchmarks_are_refused():
    for name, benchmark in BENCHMARKS.items():
        for other, another in BENCHMARKS.items():
            if name != other:
                with pytest.raises(ValueError, match=name):
                    benchmark.check(another.grid)


def test_width_of_the_gaussians_is_the_published_one_and_follows_the_voxels():
    published = {name: benchmark.gaussian_scale(benchmark.grid) for name, benchmark in BENCHMARKS.items()}
    assert published == {'occ3d': 0.27, 'surroundocc': 0.25, 'sscbench-kitti360': 0.1}
    grid = BENCHMARKS['occ3d'].grid
    coarse = replace(grid, voxel_size=0.8, shape=(100, 100, 8))
    assert BENCHMARKS['occ3d'].gaussian_scale(coarse) == 0.54


def test_both_releases_of_sscbench_are_known():
    bench = get_benchmark('sscbench-kitti360')
    assert bench.frame_counts('train') == (8487, 8483) and bench.frame_counts('test') == (2566, 2165)
    assert bench.frame_counts('val') == (1812,) and get_benchmark('occ3d').frame_counts('val') == (6019,)
    assert bench.incomparable(2566) == '' and 'call final' in bench.incomparable(2165)
    assert bench.incomparable(17) == '17 of 2566 test frames' and get_benchmark('occ3d').incomparable(6019) == ''
