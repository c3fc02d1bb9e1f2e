"""Renames the weights of an official checkpoint to the names of this code base, or back.

Usage:
    python tools/convert_checkpoint.py tpvformer official.pth ours.pth [--config CONFIG]
    python tools/convert_checkpoint.py tpvformer ours.pth official.pth --reverse
    python tools/convert_checkpoint.py surroundocc surroundocc.pth ours.pth
    python tools/convert_checkpoint.py symphonies symphonies.ckpt ours.pth
    python tools/convert_checkpoint.py gaussianocc nusc-sem-gs/ ours.pth     (a folder with one file per network)

A family takes part by offering ``projects/<family>/checkpoint.py`` with four functions:
``identify(keys)``, ``to_project(keys)``, ``to_official(state_dict, source, dropped)`` and ``adapt(key, given, own)``;
and ``SOURCES``, which describes the code bases that it knows. Where the authors publish folders, ``FOLDER`` names the files
without their ending, which becomes the first part of every name. Nothing is computed: every weight keeps its bits.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.engine.checkpoint import TRUST_FLAG, KeyReport, compare_keys, load_from_local  # noqa: E402
from projects.occ.engine.command_line import run_tool  # noqa: E402
from projects.occ.engine.errors import CheckpointError  # noqa: E402

RECORD = 'converted'  # entry of ``meta`` that remembers where the weights come from


def families() -> list[str]:
    """Model families that know official names."""
    return sorted(path.parent.name for path in (ROOT / 'projects').glob('*/checkpoint.py'))


def mapping_of(family: str) -> ModuleType:
    """The module with the naming rules of a family."""
    return importlib.import_module(f'projects.{family}.checkpoint')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('family', choices=families(), help='model family of the checkpoint')
    parser.add_argument('input', help='checkpoint to read, a file or a published folder')
    parser.add_argument('output', help='checkpoint to write, a folder where the authors publish folders')
    parser.add_argument('--reverse', action='store_true', help='from our names to the official ones')
    parser.add_argument('--config', help='compare every name and shape with the model of this config')
    parser.add_argument('--no-strict', action='store_true', help='write what fits even if something is missing or left over')
    parser.add_argument('--summary', action='store_true', help='print counts only, not every key')
    parser.add_argument(TRUST_FLAG, action='store_true', help='load Python objects too; only for files you trust')
    return parser.parse_args(argv)


def read_weights(path: str, rules: ModuleType) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and ``meta`` of a checkpoint file, or the weights of a published folder.

    Raises:
        CheckpointError: If the file or folder holds no weights.
    """
    if os.path.isdir(path):
        return read_folder(path, getattr(rules, 'FOLDER', ())), {}
    content = load_from_local(path, map_location='cpu')
    weights = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not weights or not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f'{path!r} holds no weights: expected a dict of tensors, or one under the key "state_dict"')
    meta = content.get('meta') if weights is not content else None
    return dict(weights), meta if isinstance(meta, dict) else {}


def read_folder(path: str, names: Sequence[str]) -> dict[str, Tensor]:
    """Weights of a folder with one file per network; a plain number among them becomes a tensor.

    Args:
        path: The folder.
        names: Files that may be there, without ``.pth``; the first part of the names of their entries.

    Raises:
        CheckpointError: If none of the files is there, or one holds no weights.
    """
    files = {name: os.path.join(path, f'{name}.pth') for name in names}
    files = {name: file for name, file in files.items() if os.path.isfile(file)}
    if not files:
        expected = ', '.join(f'{name}.pth' for name in names)
        raise CheckpointError(
            f'{path!r} is a folder with none of the files {expected}'
            if expected
            else f'{path!r} is a folder; weights of this family come as one file'
        )
    weights = {}
    for name, file in files.items():
        content = load_from_local(file, map_location='cpu')
        if not isinstance(content, Mapping) or not all(isinstance(value, Tensor | int) for value in content.values()):
            raise CheckpointError(f'{file!r} holds no weights: expected a dict of tensors')
        weights.update({f'{name}.{key}': torch.as_tensor(value) for key, value in content.items()})
    return weights


def write_folder(path: str, weights: Mapping[str, Tensor], names: Sequence[str], numbers: Sequence[str]) -> None:
    """Writes one file per network, the opposite of :func:`read_folder`; ``numbers`` are entries that are no tensors there."""
    os.makedirs(path, exist_ok=True)
    for name in names:
        part = {key: value for key, value in weights.items() if key.startswith(f'{name}.')}
        content = {key[len(name) + 1 :]: int(value) if key in numbers else value for key, value in part.items()}
        if content:
            write_atomically(os.path.join(path, f'{name}.pth'), lambda file, content=content: torch.save(content, file))


def other_family(keys: list[str], family: str) -> str:
    """A hint at the family that a file belongs to, or an empty string."""
    for name in families():
        if name != family:
            try:
                source = mapping_of(name).identify(keys)
            except ValueError:
                continue
            if source not in (None, 'image_network'):
                return f'; it looks like a checkpoint of {name}: {mapping_of(name).SOURCES[source]}'
    return ''


def model_weights(config: str) -> dict[str, Tensor]:
    """State dict of the model that a config describes."""
    return build_model(config).state_dict()


def build_model(config: str) -> nn.Module:
    """The model that a config describes, with random weights."""
    from mmdet3d.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    try:
        cfg = Config.fromfile(config)
    except FileNotFoundError as error:
        raise CheckpointError(f'--config: {error}') from error
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    return MODELS.build(cfg.model)


def compare_with_model(
    weights: Mapping[str, Tensor], network: nn.Module, rules: ModuleType, source: str
) -> tuple[KeyReport, dict[str, Tensor]]:
    """Compares weights in our names with a model; weights of an image network with that part of the model only.

    A family that takes less than backbone and neck from an image network says so by ``IMAGE_PARTS``; ``PARTS`` names the parts
    that another source fills.

    Returns:
        The report, and entries of another shape as they have to be for this model.
    """
    # training-time parts: a model with them and a file without them fit each other, and the other way round
    guests = network.training_only_prefixes
    sides = (weights, network.state_dict())
    sides = [{key: value for key, value in side.items() if not key.endswith('_extra_state')} for side in sides]
    weights, model = sides  # without the progress of a training, which is no weight
    if source == 'image_network':
        parts = getattr(rules, 'IMAGE_PARTS', ('img_backbone.', 'img_neck.'))
        model = {key: value for key, value in model.items() if key.startswith(parts)}
    elif parts := getattr(rules, 'PARTS', {}).get(source):
        model = {key: value for key, value in model.items() if key.startswith(parts)}
    both_have_guests = all(any(key.startswith(guests) for key in side) for side in sides)
    report = compare_keys(weights, model, () if both_have_guests else guests)
    adapted = {key: rules.adapt(key, weights[key], model[key]) for key in report.reshaped}
    adapted = {key: value for key, value in adapted.items() if value is not None}
    for key in adapted:
        del report.reshaped[key]
    return report, adapted


@dataclass
class Conversion:
    """What a conversion found.

    Attributes:
        weights: Weights of the input file.
        source: Code base that the official names belong to.
        renamed: New name of every known key, None where there is no counterpart.
        unknown: Keys of the file that have no place.
        checkpoint: Contents of the output file.
        report: Comparison with the model of ``--config``, by our names.
        adapted: Entries, by our names, that the model of ``--config`` needs in another shape.
    """

    weights: dict[str, Tensor]
    source: str
    renamed: dict[str, str | None]
    unknown: list[str]
    checkpoint: dict[str, Any]
    report: KeyReport | None = None
    adapted: Mapping[str, Tensor] = field(default_factory=dict)


def to_ours(args: argparse.Namespace, rules: ModuleType) -> Conversion:
    """Converts to our names.

    Raises:
        CheckpointError: If the file belongs to another model, has our names already, or holds a weight twice.
    """
    weights, _ = read_weights(args.input, rules)
    try:
        source, renamed, unknown = rules.to_project(list(weights))
    except ValueError as error:
        raise CheckpointError(
            f'{args.input!r} cannot be converted as {args.family}: {error} (its first key is {next(iter(weights))!r})'
            + other_family(list(weights), args.family)
        ) from None
    if source == 'project':
        raise CheckpointError(f'{args.input!r} already has the names of this code base; --reverse gives the official ones')
    converted: dict[str, Tensor] = {}
    for old, new in renamed.items():
        if new is not None:
            if new in converted and not torch.equal(converted[new], weights[old]):
                raise CheckpointError(f'{args.input!r} holds two different tensors for {new!r}')
            converted[new] = weights[old]
    report, adapted = compare_with_model(converted, build_model(args.config), rules, source) if args.config else (None, {})
    if report is not None:
        converted = {key: value for key, value in converted.items() if key not in {*report.reshaped, *report.unexpected}}
    converted.update(adapted)
    record = dict(
        family=args.family,
        source=source,
        file=os.path.basename(os.path.normpath(args.input)),
        dropped={old: weights[old] for old, new in renamed.items() if new is None or new in adapted},
    )
    return Conversion(weights, source, renamed, unknown, dict(state_dict=converted, meta={RECORD: record}), report, adapted)


def to_theirs(args: argparse.Namespace, rules: ModuleType) -> Conversion:
    """Converts to the official names of the code base that the weights came from, by default GaussRender.

    Raises:
        CheckpointError: If the file does not have our names.
    """
    weights, meta = read_weights(args.input, rules)
    record = meta.get(RECORD, {})
    source = record.get('source', 'project')
    if source != 'image_network' and rules.identify(list(weights)) != 'project':
        raise CheckpointError(
            f'{args.input!r} does not have the names of this code base for {args.family} '
            f'(its first key is {next(iter(weights))!r}), so there is nothing to reverse'
            + other_family(list(weights), args.family)
        )
    report, adapted = compare_with_model(weights, build_model(args.config), rules, source) if args.config else (None, {})
    official, renamed, unknown = rules.to_official(weights, source, record.get('dropped'))
    return Conversion(weights, source, renamed, unknown, dict(state_dict=official), report, adapted)


def print_keys(conversion: Conversion, reverse: bool) -> None:
    """One line for every key of the file, then one for every key that only the model has."""
    report, renamed = conversion.report, conversion.renamed
    for old, new in renamed.items():
        ours, status, note = old if reverse else new, 'loaded', ''
        if new is None:
            status = 'left out'
        elif report is not None and ours in report.reshaped:
            status, note = 'shape', f', the model has {report.reshaped[ours][1]}'
        elif report is not None and ours in report.unexpected:
            status = 'unexpected'
        elif ours in conversion.adapted:
            status, note = 'adapted', f', the model has {tuple(conversion.adapted[ours].shape)}'
        elif report is not None and ours in report.skipped:
            status = 'not in model'
        arrow = '' if new in (None, old) else f' -> {new}'
        print(f'{status:<13}{old}{arrow} {tuple(conversion.weights[old].shape)}{note}')
    for key in conversion.unknown:
        print(f'{"unexpected":<13}{key} {tuple(conversion.weights[key].shape)}')
    if report is not None:
        in_file = set(renamed) if reverse else set(renamed.values())
        for key in report.missing:
            print(f'{"missing":<13}{key}')
        for key in report.skipped:
            if key not in in_file:
                print(f'{"not in file":<13}{key}')


def convert(args: argparse.Namespace) -> None:
    """Reads, converts, reports and writes.

    Raises:
        CheckpointError: If the file is refused, or something does not fit and ``--no-strict`` is not given.
    """
    rules = mapping_of(args.family)
    conversion = (to_theirs if args.reverse else to_ours)(args, rules)
    report, unknown = conversion.report, conversion.unknown
    if not args.summary:
        print_keys(conversion, args.reverse)
    left_out = sum(new is None for new in conversion.renamed.values())
    print(
        f'{args.input}: {rules.SOURCES[conversion.source]}; {len(conversion.weights)} entries, '
        f'{len(conversion.renamed) - left_out} kept, {left_out} without counterpart, {len(unknown)} unknown'
    )
    if report is not None:
        print(f'against {args.config}: {report.describe()}')
    if (unknown or (report is not None and not report.exact)) and not args.no_strict:
        details = f'{len(unknown)} unknown keys, the first is {unknown[0]!r}' if unknown else report.describe()
        raise CheckpointError(f'nothing was written, because not every key fits: {details}; --no-strict writes what fits')
    folder = getattr(rules, 'FOLDER', ()) if args.reverse else ()
    if folder:
        write_folder(args.output, conversion.checkpoint['state_dict'], folder, rules.NUMBERS)
    else:
        write_atomically(args.output, lambda file: torch.save(conversion.checkpoint, file))
    print(f'wrote {args.output} with {len(conversion.checkpoint["state_dict"])} entries')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(convert, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
