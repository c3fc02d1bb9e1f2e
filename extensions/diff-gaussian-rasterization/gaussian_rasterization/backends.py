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

        if hasattr(torch.ops.gaussian_rasterization, 'march'):  # an older library has none
            from . import march_native  # noqa: F401
        if hasattr(torch.ops.gaussian_rasterization, 'render_loss'):
            from . import loss_native  # noqa: F401
    except (OSError, RuntimeError) as error:
        return None, f'{path.name} does not load ({error}); it was probably built for another PyTorch'
    return str(path), None


LIBRARY, REASON = _load()


def _compiled(operator: str, backend: str) -> bool:
    """Whether the library has an operator of this name for a device."""
    if LIBRARY is None or not hasattr(getattr(torch.ops, NAMESPACE), operator):
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(f'{NAMESPACE}::{operator}', backend.upper())


OPERATORS = ('render', 'march', 'render_loss')
# looked up once: the question cannot be traced by torch.compile
COMPILED = {(operator, name): _compiled(operator, name) for operator in OPERATORS for name in NAMES[:2]}
AVAILABLE: dict[str, bool] = {name: name == 'reference' or COMPILED['render', name] for name in NAMES}
"""Backend -> whether it can be used in this process."""


def require_backend(backend: str) -> None:
    """Make sure that a backend can be used, for instance when a model is built and long before it renders.

    Args:
        backend: ``'cpu'``, ``'cuda'`` or ``'reference'``.

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If it was not built; the message holds the command that builds it.
    """
    if backend not in NAMES:
        raise ValueError(f'backend must be None or one of {NAMES}, got {backend!r}')
    if not AVAILABLE[backend]:
        raise RuntimeError(f"the '{backend}' backend of gaussian_rasterization is missing: {remedy(backend)}")


def remedy(backend: str) -> str:
    """Why a backend is missing and what to do about it."""
    reason = REASON or f'the library was built without it ({_build_info().get("cuda_obstacle", "unknown reason")})'
    if 'no CUDA source' in reason:
        return f"{reason}. Move the tensors to the CPU for backend='cpu', or use backend='reference' (pure PyTorch, slow)."
    switch = 'FORCE_CUDA=1 ' if backend == 'cuda' else ''
    return f"{reason}. Build it with\n    {switch}{BUILD_COMMAND}\nor use backend='reference' (pure PyTorch, slow)."


def _build_info() -> dict[str, str]:
    if LIBRARY is None:
        return {}
    text = getattr(torch.ops, NAMESPACE).build_info()
    return dict(item.split('=', 1) for item in text.split(';') if item)


def build_config() -> dict[str, Any]:
    """What was built and what is used.

    Returns:
        ``cpu``, ``cuda``, ``reference``: bool, usable backends; ``default``: device type -> backend that ``backend=None``
        takes, None where it raises; ``library``: path of the shared object or None; ``reason``: why it is missing or None;
        ``compiler``, ``simd``, ``cuda_archs``, ``cuda_obstacle`` (why CUDA was left out): text from the build, None without
        it; ``torch``: version in use; ``build_command``.
    """
    info: dict[str, Any] = dict(AVAILABLE)
    info['default'] = {device: device if AVAILABLE[device] else None for device in ('cpu', 'cuda')}
    info.update(library=LIBRARY, reason=REASON, compiler=None, simd=None, cuda_archs=None, cuda_obstacle=None)
    info.update(_build_info())
    info.update(torch=torch.__version__, build_command=BUILD_COMMAND)
    return info


def default_backend(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The backend that ``backend=None`` stands for: the compiled one of the device; the reference for float64.

    Raises:
        RuntimeError: If the compiled backend of the device was not built: the slow reference is never taken silently.
    """
    if dtype == torch.float64:
        return 'reference'
    if device.type not in NAMES:
        raise RuntimeError(
            f"gaussian_rasterization has no compiled backend for {device.type!r}: move the tensors to 'cpu' or 'cuda', or use "
            "backend='reference' (pure PyTorch, slow)."
        )
    require_backend(device.type)
    return device.type


def choose_backend(caller: str, operator: str, backend: str | None, device: torch.device, dtype: torch.dtype) -> str:
    """The backend of a call.

    Args:
        caller: Name of the public function, for messages.
        operator: The compiled operator that it needs.
        backend: What the caller asked for.
        device: Of the tensors.
        dtype: In which the call computes.

    Raises:
        ValueError: If the backend does not exist, or fits neither device nor dtype.
        RuntimeError: If it was not built, or before this function existed.
    """
    if backend is None:
        backend = default_backend(device, dtype)
    else:
        require_backend(backend)
    if backend == 'reference':
        return backend
    if device.type != backend:
        raise ValueError(f"{caller}: backend='{backend}' needs tensors on {backend}, got {device}")
    if dtype == torch.float64:
        raise ValueError(
            f"{caller}: backend='{backend}' computes in float32 but an input is float64; convert it or use backend='reference'"
        )
    if not COMPILED[operator, backend]:
        raise RuntimeError(
            f'{caller}: the library was built before {caller} existed. Build it again with\n    {BUILD_COMMAND}\n'
            "or use backend='reference' (pure PyTorch, slow)."
        )
    return backend
