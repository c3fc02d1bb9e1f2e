"""The loss terms of GaussRender from its options."""

from projects.rendering.losses import BATCH_REDUCTIONS, INVALID_VIEWS, Term

TERMS = ('cam_sem', 'cam_depth', 'bev_sem', 'bev_depth')


def loss_terms(
    weight: float = 10.0,
    cam_sem: float = 1.0,
    cam_depth: float = 1.0,
    bev_sem: float = 1.0,
    bev_depth: float = 1.0,
    cam_depth_range: float = 50.0,
    bev_depth_range: float = 100.0,
    kl_loss: bool = False,
    kl_input: str = 'log_softmax',
    batch_reduction: str = 'mean',
    invalid_views: str = 'skip',
) -> dict[str, Term]:
    """L1 (or KL) between class images and L1 between depth images, for cameras and the bird's-eye view.

    A view's loss is the mean over its pixels; views are averaged; the batch is averaged or summed.

    Args:
        weight: Weight of all terms.
        cam_sem: Relative weight of the class images of the cameras; 0 or False switches the term off.
        cam_depth: Same for the depth images of the cameras.
        bev_sem: Same for the class image of the bird's-eye view.
        bev_depth: Same for the depth image of the bird's-eye view.
        cam_depth_range: Depth errors of the cameras are divided by this many metres.
        bev_depth_range: Depth errors of the bird's-eye view are divided by this many metres.
        kl_loss: Kullback-Leibler divergence over the classes, times 10, instead of L1 for the class images.
        kl_input: See ``projects.rendering.losses.semantic_kl``.
        batch_reduction: ``'mean'``, or ``'sum'`` as the original (equal for one sample per GPU).
        invalid_views: What a view without any valid pixel does to its term. ``'skip'``: it contributes 0, the others count as
            usual; ``'zero_term'``: the whole term becomes 0, as in the original.

    Returns:
        ``loss_render_<term>`` for every term that is on.

    Raises:
        ValueError: If an argument is out of range or unknown.
    """
    for name, value, known in (
        ('kl_input', kl_input, ('log_softmax', 'log')),
        ('batch_reduction', batch_reduction, BATCH_REDUCTIONS),
        ('invalid_views', invalid_views, INVALID_VIEWS),
    ):
        if value not in known:
            raise ValueError(f'loss.{name} must be one of {known}, got {value!r}')
    if not (cam_depth_range > 0 and bev_depth_range > 0):
        raise ValueError(
            f'loss.cam_depth_range and loss.bev_depth_range must be positive, got {cam_depth_range} and {bev_depth_range}'
        )
    relative = dict(zip(TERMS, (cam_sem, cam_depth, bev_sem, bev_depth)))
    if not weight >= 0 or not all(value >= 0 for value in relative.values()) or not any(relative.values()):
        raise ValueError(
            f'loss.weight and the weights of the terms {TERMS} must not be negative and one term must be on, '
            f'got weight={weight} and {relative}'
        )
    metres = dict(cam_depth=cam_depth_range, bev_depth=bev_depth_range)
    shared = dict(batch_reduction=batch_reduction, invalid_views=invalid_views)
    classes = dict(function='kl', options=dict(log_input=kl_input)) if kl_loss else dict(function='l1')
    terms = {}
    for name, factor in relative.items():
        if not factor:
            continue
        view, quantity = name.split('_')
        if quantity == 'depth':
            compared = dict(quantity='depth', function='depth_l1', options=dict(metres=metres[name]))
        else:
            compared = dict(quantity='features', **classes)
        terms[f'loss_render_{name}'] = Term(weight=weight * float(factor), view=view, **compared, **shared)
    return terms
