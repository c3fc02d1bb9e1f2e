"""Which backends exist here. The compiled ones live in one shared object next to this file: loaded on import, never built."""

import os
from pathlib import Path
from typing import Any

import torch

BUILD_COMMAND = 'pip install --no-deps --no-build-isolation -e extensions/diff-gaussian-rasterization'
NAMESPACE = 'gaussian_rasterization'
NAMES = ('cpu', 'cuda', 'reference')


def _load() -> tuple[str | None, str | None]:
    """Load the compiled operators.

    Returns:
        Path of the shared object or None, and why it could not be loaded or None.
    """
    path = Path(os.path.abspath(__file__)).with_name('_C.so')
    if not path.exists():
        return None, 'it was not built'
    try:
        torch.ops.load_library(str(path))
        from . import native  # noqa: F401  (tells PyTorch about shapes and gradients)
    except (OSError, RuntimeError) as error:
        return None, f'{path.name} does not load ({error}); it was probably built for another PyTorch'
    return str(path), None


LIBRARY, REASON = _load()
AVAILABLE = {
    name: name == 'reference'
    or (LIBRARY is not None and torch._C._dispatch_has_kernel_for_dispatch_key(f'{NAMESPACE}::render', name.upper()))
    for name in NAMES
}
"""Backend -> whether it can be used in this process."""


def require(backend: str) -> None:
    """Make sure that a backend can be used.

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If it was not built; the message holds the command that builds it.
    """
    if backend not in NAMES:
        raise ValueError(f'backend must be None or one of {NAMES}, got {backend!r}')
    if not AVAILABLE[backend]:
        switch = 'FORCE_CUDA=1 ' if backend == 'cuda' else ''
        raise RuntimeError(
            f"the '{backend}' backend of gaussian_rasterization is missing: {REASON or 'the library was built without it'}. "
            f"Build it with\n    {switch}{BUILD_COMMAND}\nor use backend='reference' (pure PyTorch, slow)."
        )


def build_config() -> dict[str, Any]:
    """What was built and what is used.

    Returns:
        ``cpu``, ``cuda``, ``reference``: bool, usable backends; ``default``: device type -> backend that ``backend=None``
        takes; ``library``: path of the shared object or None; ``reason``: why it is missing or None; ``compiler``, ``simd``,
        ``cuda_archs``: text from the build, None without it; ``torch``: version in use; ``build_command``.
    """
    info: dict[str, Any] = dict(AVAILABLE)
    info['default'] = {device: default_backend(torch.device(device)) for device in ('cpu', 'cuda')}
    info.update(library=LIBRARY, reason=REASON, compiler=None, simd=None, cuda_archs=None)
    if LIBRARY is not None:
        text = getattr(torch.ops, NAMESPACE).build_info()
        info.update(item.split('=', 1) for item in text.split(';') if item)
    info.update(torch=torch.__version__, build_command=BUILD_COMMAND)
    return info


def default_backend(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The backend that ``backend=None`` stands for: the compiled one of the device if it was built, else the reference.

    float64 is always the reference's.
    """
    if dtype != torch.float64 and AVAILABLE.get(device.type, False):
        return device.type
    return 'reference'
