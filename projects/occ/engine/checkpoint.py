"""Which checkpoints may be loaded, which one to resume from, and whether one belongs to a model.

Importing this module makes every local checkpoint that mmengine loads (``load_from``, ``--resume``, ``Pretrained`` weights)
pass through torch's weights-only loader, so that a file cannot run code of its author.
"""

import contextlib
import functools
import os
import pickle
import re
import sys
import urllib.parse
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    load_from_ceph,
    load_from_mmcls,
    load_from_openmmlab,
    load_from_pavi,
    load_from_torchvision,
)
from torch import Tensor, nn

from projects.occ.safe_pickle import PickleRefusedError, ReadArray, ReadDType, numpy_stand_ins

from .checkpoint_file import DamagedFileError, ReadHistory, checked_file, mmengine_stand_ins
from .errors import CheckpointError

TRUST_FLAG = '--trust-checkpoint'
# texts that mmengine would execute: Runner.resume and BaseInferencer hand them to Config.fromstring
_CODE_TEXTS = (('meta', 'config'), ('meta', 'cfg'), ('message_hub', 'runtime_info', 'cfg'))
_WEIGHTS = ('state_dict', 'ema_state_dict')
_trust_checkpoints = False


def install_safe_globals() -> None:
    """Lets torch's weights-only loader read mmengine's own checkpoints (for the whole process).

    What is registered under the names of numpy's and mmengine's types are stand-ins that take plain data alone: the types
    themselves would let a file reach memory that is not its own.
    """
    stand_ins = {**numpy_stand_ins(sys.maxsize), **mmengine_stand_ins()}
    ours = ('numpy.', 'mmengine.', 'builtins.getattr')
    allowed = [(value, name) for name, value in stand_ins.items() if name.startswith(ours)]
    # types of which torch lets the state be set
    allowed += [(kind, f'{kind.__module__}.{kind.__qualname__}') for kind in (ReadArray, ReadDType)]
    torch.serialization.add_safe_globals(allowed)


@contextlib.contextmanager
def loading_policy(trust: bool = False) -> Iterator[None]:
    """Sets how checkpoints are loaded inside the block.

    Args:
        trust: Load Python objects of any kind (may run code of the file's author). Otherwise only tensors and plain data are
            loaded, also by code that asks torch for more, such as loaders of ``http://`` and ``torchvision://`` addresses.
    """
    global _trust_checkpoints
    names = ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    before = {name: os.environ.pop(name, None) for name in names}, _trust_checkpoints
    _trust_checkpoints = trust
    if not trust:
        os.environ[names[0]] = '1'
    try:
        yield
    finally:
        environment, _trust_checkpoints = before
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def load_from_local(filename: str | os.PathLike, map_location: Any = None) -> Any:
    """Loads a checkpoint file as plain data, or as it is inside ``loading_policy(trust=True)``.

    Args:
        filename: Path of the file.
        map_location: Passed to ``torch.load``.

    Returns:
        The contents of the file.

    Raises:
        CheckpointError: If the file does not exist, cannot be read, or contains more than tensors and plain data.
    """
    path = Path(filename).expanduser()
    check_checkpoint_file(path)
    try:
        if _trust_checkpoints:
            content = torch.load(path, map_location=map_location, weights_only=False)
        else:
            with checked_file(path):
                content = torch.load(path, map_location=map_location, weights_only=True)
    except PickleRefusedError as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} contains more than tensors and plain data: {error}. Loading it could run code written '
            f'by the author of the file, so nothing was loaded. If you trust where the file comes from, add {TRUST_FLAG}'
        ) from error
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path):
            raise _unreadable(path, error) from error
        raise CheckpointError(
            f'checkpoint {str(path)!r} contains Python objects besides tensors and plain data ({_refused_names(path, error)}). '
            'Loading them could run code written by the author of the file, so nothing was loaded. '
            f'If you trust where the file comes from, add {TRUST_FLAG}'
        ) from error
    except OSError:
        raise
    except Exception as error:  # whatever the bytes of a file that is none make the unpickler do
        raise _unreadable(path, error) from error
    return as_plain_data(content, os.fspath(filename))


def as_plain_data(content: Any, origin: str) -> Any:
    """What a loaded checkpoint may hand on: weights that a model can have, and without trust no text that would be executed.

    Args:
        content: Contents of a file, changed in place.
        origin: Named in messages.

    Raises:
        CheckpointError: If a weight is no dense, real, finite tensor.
    """
    if not isinstance(content, Mapping):
        return content
    if not _trust_checkpoints:
        for *path, key in _CODE_TEXTS:
            node: Any = content
            for part in path:
                node = node.get(part) if isinstance(node, dict) else None
            if isinstance(node, dict):
                node.pop(key, None)
    hub = content.get('message_hub')
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    if isinstance(scalars, dict):
        scalars.update({name: value.plain() for name, value in scalars.items() if isinstance(value, ReadHistory)})
    states = [content[key] for key in _WEIGHTS if isinstance(content.get(key), Mapping)] or [content]
    for state in states:
        for key, value in state.items():
            if not isinstance(key, str):
                raise CheckpointError(
                    f'checkpoint {origin!r}: {key!r} is no name of a weight; expected a dict of tensors by their names'
                )
            if isinstance(value, Tensor) and (fault := _fault(value)):
                raise CheckpointError(
                    f'checkpoint {origin!r}: entry {key!r} {fault}, so it is no weight of a model; fetch the file again or use '
                    'an earlier checkpoint'
                )
    return content


def _fault(value: Tensor) -> str:
    """What keeps a tensor from being a weight, or an empty string."""
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        return f'is a {"quantised" if value.is_quantized else "sparse or nested"} tensor'
    if value.is_meta:
        return 'has a shape but no values (device meta)'
    if value.is_complex():
        return 'holds complex numbers'
    if value.is_floating_point() and not _is_finite(value.detach()):
        wide = value.detach().float()
        return f'holds {int((~torch.isfinite(wide)).sum())} of {value.numel()} numbers that are NaN or infinite'
    return ''


def _is_finite(value: Tensor) -> bool:
    if value.device.type != 'cpu':
        return bool(torch.isfinite(value).all())
    # one thread of numpy: those of torch wait for each other at every weight, for seconds where processors are busy
    array = (value if value.dtype in (torch.float64, torch.float32) else value.float()).numpy()
    with np.errstate(all='ignore'):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _checked(loader: Callable[..., Any]) -> Callable[..., Any]:
    """A loader of mmengine whose files pass :func:`as_plain_data`, and which loads weights only unless told otherwise."""

    @functools.wraps(loader)
    def load(filename: str, map_location: Any = None, **kwargs: Any) -> Any:
        with loading_policy(_trust_checkpoints):
            return as_plain_data(loader(filename, map_location=map_location, **kwargs), filename)

    return load


def _load_from_address(filename: str, map_location: Any = None, **kwargs: Any) -> Any:
    """Downloads a file once, to torch's folder, and loads it as :func:`load_from_local` does."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    name = Path(urllib.parse.urlparse(filename).path).name
    if not name:
        raise CheckpointError(f'the address {filename!r} names no file')
    # the first process downloads for all that share its disk
    for first in (True, False):
        if (get_rank() == 0) is first and not (folder / name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(filename, str(folder / name), progress=first)
        barrier()
    return load_from_local(folder / name, map_location)


def check_checkpoint_file(path: str | os.PathLike) -> None:
    """Raises CheckpointError if no file lies at a local path; addresses such as ``https://...`` pass."""
    if not re.match(r'^[\w\-]+://', os.fspath(path)) and not Path(path).expanduser().is_file():
        raise CheckpointError(f'checkpoint {os.fspath(path)!r} does not exist; give the path of a .pth file')


def _refused_names(path: Path, error: Exception) -> str:
    try:
        names = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    except Exception:  # the list is a courtesy; a file made to be refused need not be listable
        names = []
    names = names or re.findall(r'GLOBAL (\S+)', str(error)) or ['type unknown']
    return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, DamagedFileError) or zipfile.is_zipfile(path):
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    else:  # the text of torch advises to load without care
        reason = f'it starts with {path.read_bytes()[:16]!r}' if path.stat().st_size else 'it is empty'
    return CheckpointError(
        f'checkpoint {str(path)!r} ({path.stat().st_size} bytes) is no readable PyTorch file: {reason}. '
        'It may be an interrupted download or copy; fetch it again or use an earlier checkpoint'
    )


def find_latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """The checkpoint that ``--resume`` without a path continues from.

    The file ``last_checkpoint`` decides. If it is missing, empty or names a file that is gone (the work directory was moved or
    the run was killed), the checkpoint ``epoch_*.pth`` or ``iter_*.pth`` with the latest time of writing is taken.

    Returns:
        Path of the checkpoint, or None if there is none.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file():
        named = pointer.read_text().strip()
        for candidate in (Path(named), work_dir / Path(named).name) if named else ():
            if candidate.is_file():
                return str(candidate)
    found = [path for path in work_dir.glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+\.pth', path.name)]
    return str(max(found, key=lambda path: (path.stat().st_mtime, path.name))) if found else None


@dataclass
class KeyReport:
    """How the entries of a checkpoint fit those of a model.

    Attributes:
        matched: Number of keys with equal shape on both sides.
        missing: Keys of the model that the checkpoint lacks.
        unexpected: Keys of the checkpoint that the model lacks.
        reshaped: Keys of both sides with shapes (checkpoint, model).
        retyped: Keys of both sides with types (checkpoint, model), where only one of them has floating-point numbers.
        skipped: Keys that may differ and do: on one side only, or of another shape.
    """

    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    retyped: dict[str, tuple[str, str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether every key that may not differ fits."""
        return not (self.missing or self.unexpected or self.reshaped or self.retyped)

    def describe(self) -> str:
        """One sentence with the counts, the prefixes and examples."""
        parts = []
        if self.missing:
            parts.append(f'only in the model: {_by_prefix(self.missing)}')
        if self.unexpected:
            parts.append(f'only in the checkpoint: {_by_prefix(self.unexpected)}')
        if self.reshaped:
            shown = [f'{key} {old} in the checkpoint, {new} in the model' for key, (old, new) in self.reshaped.items()]
            parts.append(f'other shape: {_some(shown, "; ")}')
        if self.retyped:
            shown = [f'{key} {old} in the checkpoint, {new} in the model' for key, (old, new) in self.retyped.items()]
            parts.append(f'other type: {_some(shown, "; ")}')
        total = self.matched + len(self.missing) + len(self.reshaped) + len(self.retyped)
        return f'{self.matched} of {total} model entries match; ' + '; '.join(parts or ['nothing differs'])


def compare_keys(checkpoint: Mapping[str, Any], model: Mapping[str, Tensor], interchangeable: Sequence[str] = ()) -> KeyReport:
    """Compares the state dict of a checkpoint with that of a model.

    Args:
        checkpoint: State dict of the file.
        model: State dict of the model.
        interchangeable: Prefixes of entries that may be absent on either side, ``model.training_only_prefixes``.

    Returns:
        The report. ``num_batches_tracked``, which old files lack and inference does not need, is never missing.
    """
    report = KeyReport()
    free = tuple(interchangeable)
    for key, value in model.items():
        if key not in checkpoint:
            if key.startswith(free):
                report.skipped.append(key)
            elif not key.endswith('num_batches_tracked'):
                report.missing.append(key)
        elif isinstance(value, Tensor) and value.shape != _shape(checkpoint[key]):
            if key.startswith(free):
                report.skipped.append(key)
            else:
                report.reshaped[key] = (tuple(_shape(checkpoint[key]) or ()), tuple(value.shape))
        elif isinstance(value, Tensor) and value.is_floating_point() != checkpoint[key].is_floating_point():
            report.retyped[key] = (str(checkpoint[key].dtype), str(value.dtype))
        else:
            report.matched += 1
    for key in checkpoint:
        if key not in model:
            (report.skipped if key.startswith(free) else report.unexpected).append(key)
    return report


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def weights_of(checkpoint: Any) -> dict[str, Any]:
    """The entries of a loaded checkpoint, without the prefix ``module.`` of data-parallel wrappers.

    Args:
        checkpoint: Contents of a file: a state dict, or a dict with one under ``state_dict``.

    Raises:
        CheckpointError: If it holds no weights.
    """
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError('the checkpoint holds no weights: expected a dict of tensors, or one under state_dict')
    if not all(isinstance(key, str) for key in state):
        raise CheckpointError('the checkpoint holds no weights: expected a dict of tensors by their names')
    return {key.removeprefix('module.'): value for key, value in state.items()}


def misfit(report: KeyReport) -> CheckpointError:
    """What to raise for a checkpoint whose entries are not those of the model."""
    return CheckpointError(
        f'the checkpoint does not fit the model of this config: {report.describe()}. Use the config that it was '
        'trained with; convert weights of the official repositories with tools/convert_checkpoint.py --config CONFIG, which '
        'also cuts tables of six cameras for fewer'
    )


def load_weights_strictly(model: nn.Module, checkpoint: Any) -> None:
    """Gives a model the weights of a checkpoint; every entry must fit, but for those that :func:`compare_keys` lets differ.

    Args:
        model: The model, changed in place.
        checkpoint: Contents of a file, see :func:`weights_of`.

    Raises:
        CheckpointError: If it holds no weights, or others than the model has. The model is unchanged then.
    """
    weights = weights_of(checkpoint)
    report = compare_keys(weights, model.state_dict(), getattr(model, 'training_only_prefixes', ()))
    if not report.exact:
        raise misfit(report)
    # not strict: what may be absent has been told from what may not above
    model.load_state_dict({key: value for key, value in weights.items() if key not in report.skipped}, strict=False)


def _by_prefix(keys: Sequence[str]) -> str:
    counts = Counter(key.split('.')[0] for key in keys)
    return _some([f'{prefix}.* ({count})' for prefix, count in counts.most_common()])


def _some(items: Sequence[str], separator: str = ', ', limit: int = 6) -> str:
    return separator.join(items[:limit]) + (f'{separator}and {len(items) - limit} more' if len(items) > limit else '')


install_safe_globals()
CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=_load_from_address, force=True)
for _prefixes, _loader in (
    ('pavi://', load_from_pavi),
    ((r'(\S+\:)?s3://', r'(\S+\:)?petrel://'), load_from_ceph),
    (('modelzoo://', 'torchvision://'), load_from_torchvision),
    (('open-mmlab://', 'openmmlab://'), load_from_openmmlab),
    ('mmcls://', load_from_mmcls),
):
    CheckpointLoader.register_scheme(prefixes=_prefixes, loader=_checked(_loader), force=True)
