"""What docs/configs.md shows works."""

import inspect
import re
import shlex

import pytest
from mmdet3d.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, VISUALIZERS
from mmengine.config import Config
from toy_occupancy import REPO_ROOT, load_tool

import projects.gaussrender.image_metric
import projects.occ.datasets
import projects.occ.evaluation.ray_iou_metric
import projects.occ.models
import projects.occ.visualization.visualization_hook  # noqa: F401
from projects.occ.engine.config_options import apply_cfg_options

TEXT = (REPO_ROOT / 'docs' / 'configs.md').read_text()
EXAMPLES = re.findall(r'^python (tools/train\.py configs/.*)$', TEXT, re.MULTILINE)
RENDERED = re.search(r'^`G` stands for `(.*?)`', TEXT, re.MULTILINE)[1]
ABLATIONS = [
    ' '.join(options)
    for options in (re.findall(r'`([^`]*)`', row.split('|')[2]) for row in TEXT.split('## 3.')[1].split('## 4.')[0].split('\n')
                    if row.startswith('| ') and 'model.' in row or 'dataset.' in row)
]  # fmt: skip


def test_examples_were_found():
    assert len(EXAMPLES) >= 4 and len(ABLATIONS) >= 14


@pytest.mark.parametrize('command', EXAMPLES + [f'tools/train.py {RENDERED} --cfg-options {options}' for options in ABLATIONS])
def test_every_example_names_existing_keys(command):
    args = load_tool('train').parse_args(shlex.split(command)[1:])
    assert args.cfg_options
    cfg = Config.fromfile(REPO_ROOT / args.config, import_custom_modules=False)
    apply_cfg_options(cfg, args.cfg_options, args.allow_new_keys)


def test_every_runtime_key_and_option_is_documented():
    runtime = Config.fromfile(REPO_ROOT / 'configs' / '_base_' / 'default_runtime.py', import_custom_modules=False)
    names = [key for key in runtime if key not in ('default_scope', 'default_hooks')]
    stock = ('timer', 'param_scheduler', 'sampler_seed')
    names += [f'default_hooks.{key}' for key in runtime.default_hooks if key not in stock]
    for tool in ('train', 'test'):
        with pytest.raises(SystemExit):
            load_tool(tool).parse_args(['--help'])
        source = (REPO_ROOT / 'tools' / f'{tool}.py').read_text()
        names += re.findall(r"add_argument\(\s*'(--[\w-]+)'", source)
    source = (REPO_ROOT / 'projects' / 'occ' / 'engine' / 'command_line.py').read_text()
    names += [name for name in re.findall(r"add_argument\(\s*'(--[\w-]+)'", source) if name != '--local_rank']
    missing = [name for name in names if f'`{name}' not in TEXT]
    assert not missing


# what mmengine's classes have too, or code sets and no config
STOCK = {'self', 'args', 'kwargs', 'backend_args', 'init_cfg', 'collect_device', 'collect_dir', 'test_mode'}


def arguments(cls: type) -> set[str]:
    """Arguments that our part of a class adds."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith('projects') and '__init__' in vars(base)]
    parameters = [parameter for base in ours for parameter in inspect.signature(base.__init__).parameters.values()]
    return {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD} - STOCK


# headings of the sections that explain what a registry builds
SECTIONS = {
    'dataset': ('### Data and grid',),
    'transform': ('### Data and grid',),
    'metric': ('### Data and grid',),
    'model': ('### Model', '### Schedule'),
    'hook': ('### Runtime', '### Schedule'),
    'visualizer': ('### Runtime',),
}


def section(heading: str) -> str:
    """Text of the sections below a heading, without blocks of code."""
    found = [part for part in re.split(r'(?m)^(?=##+ )', TEXT) if part.startswith(heading)]
    assert len(found) == 1, heading
    return re.sub('```.*?```', '', found[0], flags=re.DOTALL)


@pytest.mark.parametrize('registry', [DATASETS, TRANSFORMS, METRICS, VISUALIZERS, HOOKS, MODELS], ids=lambda r: r.name)
def test_every_argument_of_what_configs_build_is_documented(registry):
    # the parts of the families and of GaussRender are explained in their base files
    ours = [cls for cls in registry.module_dict.values() if re.match(r'projects\.(occ|gaussrender\.image)', cls.__module__)]
    assert ours
    # only where its kind is explained: a common word in another section explains nothing
    code = ' '.join(re.findall(r'`[^`]+`', ''.join(map(section, SECTIONS[registry.name]))))
    missing = {cls.__name__: {name for name in arguments(cls) if not re.search(rf'\b{name}\b', code)} for cls in ours}
    assert {name: names for name, names in missing.items() if names} == {}
