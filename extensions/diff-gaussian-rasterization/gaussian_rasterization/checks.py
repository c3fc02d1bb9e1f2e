"""Checks of what callers hand to the rasteriser: one clear sentence per mistake."""

import torch
from torch import Tensor

# of what a matrix may lack to a rotation: half precision, and poses that are optimised entry by entry
CAMERA_TOLERANCE = 1e-2
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f'rasterize: {message}')


def _shape(tensor: Tensor) -> str:
    return f'{tuple(tensor.shape)} {str(tensor.dtype).removeprefix("torch.")}'


def check_tensors(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    background: Tensor | None,
) -> None:
    """Check types, shapes, dtypes and devices.

    Raises:
        TypeError: If an argument is not a tensor or has no floating-point dtype.
        ValueError: If a shape or a device does not fit.
    """
    named = dict(
        means=means, quats=quats, scales=scales, opacities=opacities, features=features, viewmats=viewmats, Ks=Ks
    )  # fmt: skip
    if background is not None:
        named['background'] = background
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f'rasterize: {name} must be a torch.Tensor, got {type(tensor).__name__}')
        if tensor.dtype not in FLOATS and name != 'features':
            raise TypeError(f'rasterize: {name} must be floating point, got {tensor.dtype}; convert it with .float()')
        _need(
            tensor.device == means.device,
            f'all tensors must be on one device, but means is on {means.device} and {name} on {tensor.device}',
        )

    _need(means.dim() == 2 and means.shape[1] == 3, f'means must be (G, 3), got {_shape(means)}')
    count = means.shape[0]
    for name, width in (('quats', 4), ('scales', 3)):
        tensor = named[name]
        _need(tuple(tensor.shape) == (count, width), f'{name} must be ({count}, {width}) to fit means, got {_shape(tensor)}')
    _need(
        tuple(opacities.shape) == (count,),
        f'opacities must be ({count},) to fit means, got {_shape(opacities)}'
        + ('; squeeze the last axis' if tuple(opacities.shape) == (count, 1) else ''),
    )
    _need(viewmats.dim() == 3 and viewmats.shape[1:] == (4, 4), f'viewmats must be (V, 4, 4), got {_shape(viewmats)}')
    views = viewmats.shape[0]
    _need(views >= 1, 'viewmats holds no view; give at least one camera')
    _need(tuple(Ks.shape) == (views, 3, 3), f'Ks must be ({views}, 3, 3) to fit viewmats, got {_shape(Ks)}')


def check_cameras(viewmats: Tensor, Ks: Tensor) -> None:
    """Check that matrices are cameras; with those of a GPU this waits for it once.

    View matrices must be rigid (reflections pass: a mirrored scene has them), intrinsics without skew and in pixels. Matrices
    that are not finite pass: nothing is drawn with them.

    Raises:
        ValueError: Naming the entry and what is probably wrong.
    """
    with torch.no_grad():
        viewmats, Ks = viewmats.detach().double(), Ks.detach().double()
        rotations = viewmats[:, :3, :3]
        last_rows = torch.eye(4, dtype=torch.float64, device=viewmats.device)[3]
        rest = torch.stack(
            [
                (viewmats[:, 3] - last_rows).abs().amax(-1),
                (rotations @ rotations.mT - torch.eye(3, dtype=torch.float64, device=viewmats.device)).abs().amax((-1, -2)),
                (Ks[:, 2] - last_rows[1:]).abs().amax(-1),
                torch.maximum(Ks[:, 0, 1].abs(), Ks[:, 1, 0].abs()) / Ks[:, 0, 0].abs(),
                (torch.minimum(Ks[:, 0, 0], Ks[:, 1, 1]) <= 0).double(),
            ],
            -1,
        )
        wrong = (rest > CAMERA_TOLERANCE).nonzero()[:1].tolist()
    if not wrong:
        return
    view, kind = wrong[0]
    shown = [[round(x, 4) for x in row] for row in (viewmats if kind < 2 else Ks)[view].tolist()]
    reason = (
        f'viewmats[{view}] must end with the row (0, 0, 0, 1), got {shown}; is it transposed, or multiplied by a projection?',
        f'viewmats[{view}] must be rigid, but its upper left 3 x 3 block is no rotation: {shown}; scale the scene instead',
        f'Ks[{view}] must end with the row (0, 0, 1), got {shown}; divide it by its last entry, or transpose it',
        f'Ks[{view}] has a skew, which is not supported: {shown}',
        f'Ks[{view}] must have positive focal lengths fx = K[0, 0] and fy = K[1, 1], got {shown}',
    )[kind]
    _need(False, reason)


def check_features(features: Tensor, count: int, views: int, background: Tensor | None, num_classes: int | None) -> int:
    """Check features or labels and the background.

    Returns:
        Number of channels C.

    Raises:
        TypeError: If the dtype of the features fits neither features nor labels.
        ValueError: If a shape or ``num_classes`` does not fit.
    """
    if features.dtype in FLOATS:
        _need(
            features.dim() == 2 and features.shape[0] == count and features.shape[1] >= 1,
            f'features must be ({count}, C) with C >= 1 to fit means, got {_shape(features)}',
        )
        channels = features.shape[1]
        _need(
            num_classes in (None, channels),
            f'num_classes={num_classes} is for integer labels; these features have {channels} channels',
        )
    else:
        if features.dtype.is_complex or features.dtype == torch.bool:
            raise TypeError(f'rasterize: features must be floating point, or integer class labels, got {features.dtype}')
        _need(tuple(features.shape) == (count,), f'class labels must be ({count},) to fit means, got {_shape(features)}')
        _need(
            num_classes is not None and num_classes >= 1,
            f'integer features are class labels and need num_classes=C with C >= 1, got {num_classes}',
        )
        channels = int(num_classes)
        if count and features.device.type != 'cuda' and not torch.compiler.is_compiling():
            check_labels(features, channels)  # the CUDA kernels look themselves, and nobody waits for the answer
    if background is not None:
        _need(
            tuple(background.shape) in ((channels,), (views, channels)),
            f'background must be ({channels},) or ({views}, {channels}), got {_shape(background)}',
        )
    return channels


def check_labels(labels: Tensor, channels: int) -> None:
    """Check the range of one or more class labels; waits for the device.

    Raises:
        ValueError: If a label is not in 0..channels - 1.
    """
    low, high = (int(x) for x in labels.aminmax())
    _need(low >= 0 and high < channels, f'class labels must be in 0..{channels - 1}, got {low}..{high}')


def check_size(width: int, height: int) -> None:
    """Check the image size.

    Raises:
        ValueError: If it is not at least one pixel, or so large that 32-bit pixel arithmetic ends.
    """
    for name, value in (('width', width), ('height', height)):
        _need(int(value) == value and 1 <= value <= 32768, f'{name} must be an integer in 1..32768, got {value!r}')


def check_tile_mask(tile_mask: Tensor, views: int, width: int, height: int, block: int, device: torch.device) -> None:
    """Check the mask of image blocks: (V, ceil(H / block), ceil(W / block)) bool.

    Raises:
        ValueError: If it does not fit.
    """
    want = (views, -(-height // block), -(-width // block))
    _need(
        isinstance(tile_mask, Tensor) and tile_mask.dtype == torch.bool and tuple(tile_mask.shape) == want,
        f'tile_mask must be a bool tensor {want}, one entry per {block}-pixel block, got '
        + (_shape(tile_mask) if isinstance(tile_mask, Tensor) else type(tile_mask).__name__),
    )
    _need(tile_mask.device == device, f'tile_mask must be on {device} like means, got {tile_mask.device}')


def check_finite(**tensors: Tensor) -> None:
    """Raise on the first non-finite entry.

    Raises:
        ValueError: Naming the tensor, the index and the value.
    """
    for name, tensor in tensors.items():
        if tensor is None or not tensor.is_floating_point():
            continue
        bad = ~tensor.detach().isfinite()
        if bool(bad.any()):
            index = tuple(bad.nonzero()[0].tolist())
            where = ', '.join(map(str, index))
            _need(False, f'{name}[{where}] is {float(tensor[index])} ({int(bad.sum())} non-finite values in {name})')
