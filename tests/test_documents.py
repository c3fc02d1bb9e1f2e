"""Links of documents lead to files and headings, and commands name scripts and options that exist."""

import re
import shlex
from argparse import ArgumentParser
from copy import deepcopy
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from mmengine.config import Config

from projects.occ.engine.checkpoint import TRUST_FLAG
from projects.occ.engine.command_line import add_common_arguments
from projects.occ.engine.config_options import ALLOW_FLAG, apply_cfg_options

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r'^(`{3,})[^\n]*\n.*?^\1', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)')
SCRIPT = re.compile(r'\b((?:tools|tests|docs|extensions|projects)/[\w./-]+\.(?:py|sh))\b')
NOT_OURS = ('build', 'data', 'work_dirs')  # and hidden folders


def documents() -> list[Path]:
    found = (path for path in ROOT.rglob('*.md') if not _skipped(path.relative_to(ROOT).parts[:-1]))
    # the notes on data and results are documents, what else lies in these folders is not
    return sorted([*found, *(ROOT / 'data').glob('README.md'), *(ROOT / 'work_dirs').glob('README.md')])


def _skipped(folders: tuple[str, ...]) -> bool:
    return any(folder.startswith('.') or folder in NOT_OURS for folder in folders)


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings: small letters, no punctuation, a hyphen for every space, numbers for repetitions."""
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r'^#{1,6} +(.*?)\s*$', CODE.sub('', path.read_text()), re.MULTILINE):
        text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
        slug = re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-')
        found.add(f'{slug}-{seen[slug]}' if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


def broken_links(path: Path) -> list[str]:
    broken = []
    for link in LINK.findall(CODE.sub('', path.read_text())):
        if re.match(r'[a-z]+:', link):
            continue
        file, _, anchor = unquote(link).partition('#')
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and target.suffix == '.md' and anchor not in anchors(target)):
            broken.append(link)
    return broken


def test_there_are_documents():
    names = {path.relative_to(ROOT).as_posix() for path in documents()}
    assert {'README.md', 'docs/datasets.md', 'docs/evaluation.md'} <= names


@pytest.mark.parametrize('path', documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_scripts_of_a_document_exist(path):
    broken = broken_links(path)
    if path.name == 'benchmarks.md' and 'Not run yet.' in path.read_text():
        # the files come with the measurements
        broken = [link for link in broken if not link.startswith('benchmarks/')]
    assert broken == []
    # x stands for any name in the rules for contributors
    named = {name for name in SCRIPT.findall(path.read_text()) if Path(name).stem not in ('x', 'test_x')}
    gone = [name for name in named if not (ROOT / name).is_file() and not (path.parent / name).is_file()]
    assert gone == []


def commands(text: str) -> list[tuple[str, str]]:
    """Script and the rest of every command ``python tools/....py ...`` in code blocks, tables and sentences."""
    text = re.sub(r'\s*\\\n\s*', ' ', text)
    return re.findall(r'(?:python|\$\{?PYTHON\}?) (tools/\w+\.py)([^`\n]*)', text)


@cache
def known_flags(script: str) -> set[str]:
    """Every option that a script, or the modules that its options come from, add to a parser."""
    text = (ROOT / script).read_text()
    shared = {
        f'{module.replace(".", "/")}.py' for module in re.findall(r'^from (projects\.[\w.]*command_line) import', text, re.M)
    }
    text += ''.join((ROOT / file).read_text() for file in shared | {'projects/occ/engine/command_line.py'})
    flags = set(re.findall(r"'(--[a-z][\w-]*)'", text)) | {TRUST_FLAG, ALLOW_FLAG, '--help'}
    return flags | {f'--no-{flag[2:]}' for flag in flags}


@pytest.mark.parametrize('path', documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_document_have_the_options_that_they_name(path):
    for script, arguments in commands(path.read_text()):
        flags = set(re.findall(r'(?<!\S)\[?(--[a-z][\w-]*)', arguments.split(' #')[0]))
        assert flags <= known_flags(script), f'{script}: {sorted(flags - known_flags(script))}'


def test_commands_are_found():
    text = 'Run `python tools/a.py X --one 1` or\n```bash\nFOO=1 python tools/b.py --two \\\n    --three  # why\n```\n'
    assert commands(text) == [('tools/a.py', ' X --one 1'), ('tools/b.py', ' --two --three  # why')]
    assert len(commands((ROOT / 'docs' / 'visualization.md').read_text())) > 10
    assert {'--metrics-json', '--launcher', '--trust-checkpoint'} <= known_flags('tools/test.py')
    assert '--metric-json' not in known_flags('tools/test.py')


OPTION = re.compile(r'[a-z]\w*(\.\w+)*=')
CONFIG = re.compile(r'\b(?:configs|projects)/[\w./-]+\.py\b')
# what sentences name in dotted form that is no key of a resolved config: variables of files and arguments in Python
NO_OVERRIDES = ('grid', 'data_prefix', 'aggregator')


@cache
def config_of(page: Path, named: str | None = None) -> Config:
    """The config that a command names, else the small one with rendering of the family of a page; not to be changed."""
    if named is None:
        family = page.parent.name if page.parent.parent.name == 'configs' and page.parent.name != 'debug' else 'tpvformer'
        small = sorted((ROOT / 'configs' / 'debug').glob(f'{family}_tiny_synthetic-*.py'))
        # a family that renders by itself has no variant with GaussRender
        path = next((path for path in small if path.stem.endswith('_gaussrender')), small[0])
    else:
        path = ROOT / named
    return Config.fromfile(path, import_custom_modules=False)


def overrides(page: Path) -> list[tuple[str | None, list[str], bool]]:
    """Config if one is named, ``key=value`` entries, and whether new keys are allowed, of every override on a page.

    Overrides are what follows ``--cfg-options``, and ``key.name=value`` in code spans of sentences and tables. The keys of
    GaussRender may be named from the blocks of ``model.aggregator`` on.
    """
    text = re.sub(r'\s*\\\n\s*', ' ', page.read_text())
    blocks = ''.join(match[0] for match in CODE.finditer(text))
    found = [(line.split(' #')[0], '') for line in blocks.split('\n') if '--cfg-options' in line]
    # a code span, and the flag where the sentence goes on with it
    found += re.findall(rf'`([^`]+)`( with `{ALLOW_FLAG}`)?', CODE.sub('', text))
    roots = set(config_of(page)) - set(NO_OVERRIDES)
    result = []
    for code, flag in found:
        arguments = code.split('--cfg-options')[-1].strip()
        if '--cfg-options' not in code and not re.match(r'[a-z]\w*(\.\w+)+=', arguments):
            continue
        options = [word for word in shlex.split(arguments) if OPTION.match(word)]
        if '--cfg-options' not in code:
            short = config_of(page).model.aggregator
            options = [f'model.aggregator.{word}' if word.split('.')[0] in short else word for word in options]
            options = [word for word in options if word.split('.')[0] in roots]
        if options:
            named = CONFIG.search(code)
            result.append((named and named[0], options, ALLOW_FLAG in code + flag))
    return result


@pytest.mark.parametrize('path', documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_overrides_of_a_document_are_accepted(path):
    parser = ArgumentParser()
    add_common_arguments(parser)
    for named, options, new_keys in overrides(path):
        cfg = config_of(path, named)
        for option in options:
            parsed = parser.parse_args(['--cfg-options', option]).cfg_options
            apply_cfg_options(deepcopy(cfg), parsed, new_keys)


def test_overrides_are_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        'Set `model.a=1 model.b="[1, 2]"` with `--allow-new-keys`,\n`loss.weight=2` or `--allow-new-keys --cfg-options\n'
        "model.c=3`; `grid.frame='ego'`, `x.npz`, `shape=(1, 2)`.\n```bash\n"
        'python tools/train.py configs/x/y.py --cfg-options a=1 \\\n    "b.0.c=(1, 2)" --amp  # why=not\n```\n'
    )
    assert overrides(page) == [
        ('configs/x/y.py', ['a=1', 'b.0.c=(1, 2)'], False),
        (None, ['model.a=1', 'model.b=[1, 2]'], True),
        (None, ['model.aggregator.loss.weight=2'], False),
        (None, ['model.c=3'], True),
    ]
    assert len(overrides(ROOT / 'docs' / 'gaussrender.md')) > 8 and overrides(ROOT / 'configs' / 'symphonies' / 'README.md')


def test_broken_links_are_found(tmp_path):
    (tmp_path / 'other.md').write_text('# A `key`: two words\n## Again\n## Again\n```text\n# no heading\n```\n')
    good = ['other.md', 'other.md#a-key-two-words', 'other.md#again-1', 'https://nowhere.example/x', '#here']
    bad = ['gone.md', 'other.md#no-heading', 'other.md#again-2', '#there']
    page = tmp_path / 'page.md'
    page.write_text('# Here\n' + '\n'.join(f'see [it]({link}).' for link in good + bad) + '\n```\n[code](gone.md)\n```\n')
    assert broken_links(page) == bad
