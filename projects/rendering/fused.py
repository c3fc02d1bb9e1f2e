"""Rendered labels compared tile by tile: where renderer, target and terms fit, no image is written."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from projects.occ.structures import Cameras, OccBatch, OccField, Rays

from .losses import Term
from .splat import SplatRenderer, load_rasterizer
from .targets import LabelTarget, Target

# (name of the error, its options) -> what the rasteriser calls it; the original's softmax of probabilities is the default
SEMANTICS = {
    ('l1', None): 'l1',
    ('kl', None): 'kl_softmax',
    ('kl', 'log_softmax'): 'kl_softmax',
    ('kl', 'log'): 'kl_log',
}


def semantic_kind(term: Term) -> str | None:
    """The rasteriser's name for the error of a class image, or None if it has none."""
    options = dict(term.options or {})
    key = (term.function, options.pop('log_input', None))
    return None if options or term.quantity != 'features' else SEMANTICS.get(key)


def is_depth(term: Term) -> bool:
    """Whether a term is the error of depth images."""
    return term.function == 'depth_l1' and term.quantity == 'depth' and set(term.options or ()) <= {'metres'}


def fits_fused(renderer: object, target: Target, terms: Collection[Term], field: OccField, views: Cameras | Rays) -> bool:
    """Whether these terms of one kind of views can be computed without images, with the same losses and gradients.

    That is: a splatter of the compiled backend, labels as target, at most one error of class images and one of depth images,
    and no gradient to places and shapes of Gaussians or to cameras.
    """
    if type(renderer) is not SplatRenderer or not renderer.fused or type(target) is not LabelTarget:
        return False
    if not isinstance(views, Cameras) or field.has_ids or field.num_features != target.grid.num_classes:
        return False
    semantic, depth = (sum(map(test, terms)) for test in (lambda term: semantic_kind(term) is not None, is_depth))
    if semantic > 1 or depth > 1 or semantic + depth != len(terms):
        return False
    moving = (field.scales, field.quats, field.background, views.ref2cam, views.K)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in moving):
        return False
    return load_rasterizer().has_fused_loss(renderer.backend, field.opacity.device, field.opacity.dtype)


def fused_errors(
    field: OccField,
    cameras: Cameras,
    renderer: SplatRenderer,
    target: LabelTarget,
    terms: Mapping[str, Term],
    batch: OccBatch,
    known: Tensor | None,
    cull: str | None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """What :meth:`Term.compare` says of the rendered prediction and the rendered labels, without their images.

    Args:
        field: Of B samples, with gradient to opacity and features.
        cameras: B x V of one image size.
        renderer: Of prediction and labels.
        target: Gives the labels and says which pixels count.
        terms: Those that :func:`fits_fused` has accepted.
        batch: With the labels.
        known: (B, X, Y, Z) bool, voxels that may be shown, or None for all.
        cull: Which voxels a view leaves out, see :class:`SplatRenderer`.

    Returns:
        By the name of a term, errors and whether there is any valid pixel, both (B, V).
    """
    rasterizer = load_rasterizer()
    cameras = cameras.to(device=field.opacity.device, dtype=field.opacity.dtype)
    inside = renderer.inside(field, cameras, cull)
    with torch.no_grad():
        goal = target.field(batch, field.opacity.dtype)
        goals = list(renderer.gaussians(goal, cameras, renderer.shown(goal, known, inside)))
    kinds = {name: semantic_kind(term) for name, term in terms.items()}
    settings = rasterizer.RenderLossSettings(
        semantic=next(filter(None, kinds.values()), None),
        depth=any(map(is_depth, terms.values())),
        min_depth=target.min_depth,
        free_class=target.grid.free_index if target.mask_elems else None,
    )
    errors, pixels = [], []
    for view, wanted in zip(renderer.gaussians(field, cameras, renderer.shown(field, known, inside)), goals, strict=True):
        with torch.autocast(device_type=field.opacity.device.type, enabled=False):
            out = rasterizer.fused_render_loss(
                *view.rows,
                rasterizer.TargetGaussians(*wanted.rows),
                *view.camera,
                loss=settings,
                **renderer.options(field.background.to(view.rows[0])),
            )
        errors.append(torch.stack([out.semantic, out.depth]))
        pixels.append(out.view_pixels[0] > 0)
    # (2, B, V): class images, depth images
    lead = (cameras.batch_size, cameras.num_cameras)
    values, valid = (torch.stack(part, 1).unflatten(1, lead) for part in (errors, pixels))
    return {
        name: (values[0], valid[0]) if kinds[name] else (values[1] / (term.options or {}).get('metres', 1.0), valid[1])
        for name, term in terms.items()
    }
