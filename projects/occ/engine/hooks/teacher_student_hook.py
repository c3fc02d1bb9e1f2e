"""A teacher, the moving average of the student, who labels samples without labels."""

from typing import Any

import torch
from mmdet3d.registry import HOOKS, MODELS
from mmengine.hooks import EMAHook

from projects.occ.structures import OccBatch
from projects.occ.structures.teacher_targets import TeacherTargets

from ..errors import OccError


@HOOKS.register_module()
class TeacherStudentHook(EMAHook):
    """Keeps the moving average of the weights and lets it predict the unlabelled samples of every training batch.

    Before each iteration the teacher sees the same batch as the student, without dropout and masked images, and hands its voxel
    features and those of its labels that it is sure of to ``OccBatch.teacher``; ``TeacherConsistency`` in ``model.aggregator``
    makes losses of them. With a host that lifts images by depth (LSS) the teacher may lift by the depth that the LiDAR has
    measured. Samples are unlabelled where ``HideLabels`` is in their pipeline; ``LabelledUnlabelledSampler`` mixes them 1:1.
    As with mmengine's hook the average is what is validated and what a checkpoint holds under ``state_dict``; its ramp goes on
    when a training is resumed. Source: UniOcc (https://arxiv.org/abs/2306.09117), section "depth-aware teacher student"; the
    report leaves momentum, losses and thresholds open.

    Args:
        confidence: Probability of the predicted class from which a pseudo label counts.
        mask: Voxels that pseudo labels are restricted to: those of ``mask_camera`` (``'camera'``), or ``'none'``.
        features: Whether voxel features are handed over.
        depth_injection: ``'one_hot'`` or ``'set_one'``, see ``MeasuredDepth``; None: the teacher lifts by its own depth, as a
            host without depth distribution has to.
        ema_type: Kind of average.
        **kwargs: Its arguments, and ``begin_iter`` or ``begin_epoch`` of mmengine's hook, before which the teacher is a copy of
            the student.

    Raises:
        OccError: If an argument is wrong, the host lifts nothing by depth under ``depth_injection``, or batches cannot be half
            unlabelled.
    """

    def __init__(
        self,
        confidence: float = 0.5,
        mask: str = 'camera',
        features: bool = True,
        depth_injection: str | None = None,
        ema_type: str = 'RampedEMA',
        **kwargs: Any,
    ) -> None:
        super().__init__(ema_type=ema_type, **kwargs)
        if not 0 <= confidence <= 1 or mask not in ('camera', 'none'):
            raise OccError(
                "TeacherStudentHook: confidence must lie in [0, 1] and mask be 'camera' or 'none', got "
                f'{confidence} and {mask!r}'
            )
        self.confidence = confidence
        self.mask = mask
        self.features = features
        self.depth_injection = depth_injection

    def before_train(self, runner) -> None:
        """Looks at the size of a batch, and gives the teacher measured depth; a model that is only tested has no teacher."""
        super().before_train(runner)
        size = getattr(runner.train_dataloader, 'batch_size', None)
        if size is None or size % 2:
            raise OccError(
                f'TeacherStudentHook needs batches of which one half is labelled, but train_dataloader.batch_size is {size}; '
                'choose an even number'
            )
        if self.depth_injection is None:
            return
        encoder = getattr(self.ema_model.module, 'view_encoder', None)
        if not hasattr(encoder, 'depth_override'):
            raise OccError(
                f'TeacherStudentHook.depth_injection={self.depth_injection!r} needs a host that lifts images by a depth '
                f'distribution (BEVDet), but {type(encoder).__name__} has none; set depth_injection=None'
            )
        encoder.depth_override = MODELS.build(dict(type='MeasuredDepth', mode=self.depth_injection))

    @torch.no_grad()
    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Lets the teacher predict the unlabelled samples of the batch.

        Raises:
            OccError: If ``depth_injection`` misses depth maps, or ``features`` a head with voxel features.
        """
        chosen = [index for index, sample in enumerate(data_batch['data_samples']) if sample.get('unlabelled', False)]
        if not chosen:
            return
        teacher = self.ema_model.module.eval()
        part = dict(
            inputs={key: [values[index] for index in chosen] for key, values in data_batch['inputs'].items()},
            data_samples=[data_batch['data_samples'][index] for index in chosen],
        )
        batch = teacher.data_preprocessor(part, False)['inputs']
        if self.depth_injection is not None and batch.depths is None:
            raise OccError(
                f'TeacherStudentHook.depth_injection needs depth maps, but the unlabelled samples {batch.tokens} have none; '
                'put LoadDepthFromLidar into both pipelines'
            )
        data_batch['inputs']['teacher'] = self._targets(teacher, batch, chosen)

    def _targets(self, teacher: Any, batch: OccBatch, chosen: list[int]) -> TeacherTargets:
        prediction = teacher.encode_decode(batch)
        labels = teacher.occ_head.predict_labels(prediction)
        probability = prediction.logits[-1].float().softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
        sure = probability >= self.confidence
        if self.mask == 'camera':
            sure &= batch.require_mask('camera', 'TeacherStudentHook (mask)')
        if self.features and prediction.voxel_feats is None:
            raise OccError(
                f'TeacherStudentHook.features=True, but {type(teacher.occ_head).__name__} hands over no voxel features; set '
                'features=False and TeacherConsistency.feature_weight=0'
            )
        return TeacherTargets(
            index=torch.tensor(chosen),
            labels=labels.masked_fill(~sure, teacher.grid.ignore_index),
            feats=prediction.voxel_feats if self.features else None,
        )
