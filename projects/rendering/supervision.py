"""Rendered supervision: field, views, renderer, target and terms, each replaceable, put together."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from projects.occ.structures import Cameras, OccBatch, OccField, OccPrediction, Rays

from .fused import fits_fused, fused_errors
from .losses import READS, TAKES, Term, assemble
from .rendered import Rendered
from .targets import Target


def rendered_losses(
    field: OccField,
    views: Mapping[str, Cameras | Rays],
    renderer: Callable[..., Rendered],
    target: Target,
    terms: Mapping[str, Term],
    batch: OccBatch,
    cull: Mapping[str, str | None],
) -> dict[str, Tensor]:
    """Renders a field, compares it with a target and returns the weighted terms.

    Args:
        field: Of B samples.
        views: By kind; those that no term reads are not rendered.
        renderer: ``(field, views, known=, cull=) -> Rendered``.
        target: Of the same views.
        terms: By the name of the loss; a weight of 0 switches a term off.
        batch: What the target reads.
        cull: Rule of each kind of views by which voxels are left out.

    Returns:
        Each term under its name, without dimensions.
    """
    known = target.known(batch)
    losses: dict[str, Tensor] = {}
    for kind, view in views.items():
        wanted = {name: term for name, term in terms.items() if term.view == kind and term.weight}
        if not wanted:
            continue
        parts: dict[str, list] = {name: [] for name in wanted}
        for samples, indices, group in groups(view):
            whole = len(samples) == len(field.opacity)
            part_field = field if whole else field.samples(samples)
            part_batch = batch if whole else batch.samples(samples)
            known_part = known if known is None or whole else known[samples]
            if fits_fused(renderer, target, wanted.values(), part_field, group):
                errors = fused_errors(part_field, group, renderer, target, wanted, part_batch, known_part, cull.get(kind))
                for name, values in errors.items():
                    parts[name].append((samples, indices, values))
                continue
            bound = partial(renderer, known=known_part, cull=cull.get(kind))
            rendered = bound(part_field, group)
            compared = any(not term.regularizes for term in wanted.values())
            values = target(part_batch, group, bound) if compared else {}
            for name, term in wanted.items():
                if term.regularizes:
                    parts[name].append((samples, indices, (term.regularize(rendered, part_field), None)))
                else:
                    parts[name].append((samples, indices, term.compare(rendered, values[term.quantity])))
        for name, term in wanted.items():
            if term.regularizes:
                values = [value for _, _, (value, _) in parts[name]]
                losses[name] = sum(values) / len(values)
                continue
            shape = (len(field.opacity), view.num_cameras) if isinstance(view, Cameras) else (len(field.opacity), 1)
            errors, valid = (assemble([(s, i, v[k]) for s, i, v in parts[name]], shape) for k in (0, 1))
            losses[name] = term.reduce(errors, valid)
    # in the order of the terms, as logs show them
    return {name: losses[name] for name in terms if name in losses}


def groups(views: Cameras | Rays):
    """Views that can be rendered together: see :meth:`Cameras.by_size`; rays are one group."""
    if isinstance(views, Cameras):
        yield from views.by_size()
    else:
        yield list(range(views.batch_size)), [0], views


class RenderSupervision(nn.Module):
    """A rendered supervision of one's own choice of parts; see docs/architecture.md.

    Args:
        field: Module ``(OccPrediction) -> OccField``.
        views: Module ``(OccBatch) -> {kind: Cameras or Rays}`` with the attributes ``kinds``, ``gives``, ``reads`` and
            ``cull``.
        renderer: Module ``(OccField, Cameras or Rays, known=, cull=) -> Rendered`` with ``accepts`` and ``quantities``.
        target: A :class:`Target`.
        terms: Loss name -> :class:`Term`, or a dict of its arguments.
        weight: Factor of all terms, for example 0.1 beside voxel losses (UniOcc).

    Raises:
        ValueError: If the parts do not fit together, or the weight is not above 0.
    """

    def __init__(
        self,
        field: nn.Module,
        views: nn.Module,
        renderer: nn.Module,
        target: Target,
        terms: Mapping[str, Term | Mapping[str, Any]],
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f'the weight of a supervision must be above 0, got {weight}; leave the supervision out instead')
        self.weight = weight
        self.field, self.views, self.renderer, self.target = field, views, renderer, target
        self.terms = {name: term if isinstance(term, Term) else Term(**term) for name, term in terms.items()}
        check_parts(field, views, renderer, target, self.terms)

    def loss(self, prediction: OccPrediction, batch: OccBatch) -> dict[str, Tensor]:
        """Rendered losses of one training step.

        Args:
            prediction: What the field reads of a network's output.
            batch: What views and target read.

        Returns:
            The terms under their names, weighted, without dimensions.

        Raises:
            ValueError: If the batch lacks what a part reads.
        """
        for part in (self.views, self.target):
            for name in part.reads:
                if getattr(batch, name) is None:
                    raise ValueError(
                        f'{type(part).__name__} reads {name!r}, which the samples {batch.tokens} do not have; put the '
                        'transform that loads it into the pipeline'
                    )
        field = self.field(prediction)
        views = {
            kind: view.to(device=field.opacity.device, dtype=field.opacity.dtype) for kind, view in self.views(batch).items()
        }
        losses = rendered_losses(field, views, self.renderer, self.target, self.terms, batch, self.views.cull)
        return losses if self.weight == 1 else {name: self.weight * value for name, value in losses.items()}


def check_parts(field: Any, views: Any, renderer: Any, target: Target, terms: Mapping[str, Term]) -> None:
    """Refuses parts that do not fit together, when a model is built.

    Raises:
        ValueError: With one sentence that names the parts.
    """
    names = {
        role: type(part).__name__ for role, part in dict(field=field, views=views, renderer=renderer, target=target).items()
    }
    if views.gives not in renderer.accepts:
        taken = [kind.__name__ for kind in renderer.accepts]
        raise ValueError(
            f'{names["views"]} gives {views.gives.__name__}, but {names["renderer"]} renders {taken} only; take another '
            'renderer or other views'
        )
    meant, read = getattr(field, 'density_form', None), getattr(renderer, 'form', None)
    if None not in (meant, read) and meant != read:
        raise ValueError(
            f'the density of {names["field"]} is of the form {meant!r}, but {names["renderer"]} reads it as {read!r}; set '
            'field.form or renderer.form'
        )
    if views.gives not in target.takes_views:
        raise ValueError(
            f'{names["target"]} has values for {[kind.__name__ for kind in target.takes_views]} only, but {names["views"]} '
            f'gives {views.gives.__name__}; take other views or another target'
        )
    if target.needs_real_cameras and not getattr(views, 'gives_real_cameras', False):
        raise ValueError(
            f'{names["target"]} compares with what belongs to the real cameras of the key frame, but {names["views"]} gives '
            'other ones; take KeyFrameCameras'
        )
    if not terms or not any(term.weight for term in terms.values()):
        raise ValueError('terms must hold at least one loss term with a weight above 0')
    for name, term in terms.items():
        if term.view not in views.kinds:
            raise ValueError(f'term {name!r} reads the view {term.view!r}, but {names["views"]} gives {list(views.kinds)}')
        if term.regularizes:
            needed = READS.get(term.function)
            if needed is not None and needed not in renderer.quantities:
                raise ValueError(
                    f'term {name!r}: {term.function!r} reads {needed!r}, which {names["renderer"]} does not render: it renders '
                    f'{renderer.quantities}; set its options (renderer.distortion) or take another one'
                )
            continue
        for role, part in (('target', target), ('renderer', renderer)):
            if term.quantity not in part.quantities:
                raise ValueError(
                    f'term {name!r} compares {term.quantity!r}, which {names[role]} does not have: it has {part.quantities}'
                )
        quantities, kind = TAKES.get(term.function, ((term.quantity,), None))
        if term.quantity not in quantities:
            raise ValueError(
                f'term {name!r}: {term.function!r} compares {quantities}, not {term.quantity!r}; set its quantity or function'
            )
        given = target.value_kinds.get(term.quantity, 'image')
        if kind not in (None, given):
            raise ValueError(
                f'term {name!r}: {term.function!r} compares with {kind}, but {names["target"]} gives {given} for '
                f'{term.quantity!r}; take another function or target'
            )


class SupervisionGroup(nn.Module):
    """Several supervisions at once; their terms are added to one dict.

    Args:
        **supervisions: Modules with ``loss(prediction, batch) -> dict``, by name.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, **supervisions: nn.Module) -> None:
        super().__init__()
        if not supervisions:
            raise ValueError('SupervisionGroup needs at least one supervision')
        self.supervisions = tuple(supervisions)
        for name, module in supervisions.items():
            self.add_module(name, module)

    @property
    def field(self) -> Any:
        """The field of the first supervision that has one, or None."""
        return next((part.field for name in self.supervisions if hasattr(part := getattr(self, name), 'field')), None)

    def loss(self, prediction: OccPrediction, batch: OccBatch) -> dict[str, Tensor]:
        """The terms of all supervisions.

        Raises:
            ValueError: If two of them use the same name.
        """
        losses: dict[str, Tensor] = {}
        for name in self.supervisions:
            for term, value in getattr(self, name).loss(prediction, batch).items():
                if term in losses:
                    raise ValueError(f'two supervisions have a term {term!r}; rename the one of {name!r} in its terms')
                losses[term] = value
        return losses
