"""Image backbones of the timm library."""

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .layers import recompute


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """Feature maps of any timm model that has a feature pyramid, for example ConvNeXt.

    Nothing is downloaded: weights come from a local file, when a training initialises the model. Networks that load a
    checkpoint of their own need no such file.

    Args:
        model_name: Name in timm, for example ``'convnext_base'``.
        out_indices: Outputs in the numbering of timm, fine to coarse. ConvNeXt and Swin number their stages 0 to 3, ResNets
            begin with the stem.
        checkpoint: File with weights in the format of timm or of the model's authors (``.safetensors``, ``.pth``), or None:
            random weights.
        norm_eval: Keep batch norms in evaluation mode while training.
        with_cp: Recompute the stages in the backward pass: less memory, more time, same numbers.
        **options: Passed to ``timm.create_model``, for example ``drop_path_rate``.

    Raises:
        ValueError: If timm has no such model, or the model has no such outputs.
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        checkpoint: str | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        **options: Any,
    ) -> None:
        import timm

        super().__init__()
        if not timm.is_model(model_name):
            close = difflib.get_close_matches(model_name, timm.list_models(), n=3)
            hint = f'; did you mean {" or ".join(map(repr, close))}?' if close else ''
            raise ValueError(f'img_backbone.model_name: timm {timm.__version__} has no model {model_name!r}{hint}')
        self.model_name, self.options, self.checkpoint = model_name, options, checkpoint
        self.norm_eval, self.with_cp = norm_eval, with_cp
        try:
            self.model = timm.create_model(model_name, features_only=True, out_indices=tuple(out_indices), **options)
        except (AssertionError, IndexError) as error:
            raise ValueError(
                f'img_backbone.out_indices {tuple(out_indices)} are not outputs of {model_name!r} in fine to coarse order'
            ) from error
        # models of a chain of stages are run stage by stage
        self._stages = getattr(self.model, 'return_layers', None) if isinstance(self.model, nn.ModuleDict) else None
        if with_cp and self._stages is None:
            raise ValueError(f'img_backbone.with_cp: {model_name!r} cannot be recomputed stage by stage; set it to False')

    @property
    def out_channels(self) -> list[int]:
        """Channels of the outputs."""
        return self.model.feature_info.channels()

    def init_weights(self) -> None:
        """Loads ``checkpoint``, if there is one.

        Raises:
            FileNotFoundError: If the file is missing.
            ValueError: If it lacks weights of this model, or they have another shape.
        """
        super().init_weights()
        if self.checkpoint is None:
            return
        import timm

        if not os.path.isfile(self.checkpoint):
            raise FileNotFoundError(
                f'img_backbone.checkpoint: {self.checkpoint!r} does not exist; put the weights of {self.model_name!r} there, '
                'or set it to None to start from random weights'
            )
        weights = timm.models.load_state_dict(self.checkpoint)
        whole = timm.create_model(self.model_name, **self.options)
        # turns the names of the model's authors into those of timm
        convert = getattr(sys.modules[type(whole).__module__], 'checkpoint_filter_fn', None)
        weights = weights if convert is None else convert(weights, whole)
        own = self.model.state_dict()
        found = {key: weights[name] for key in own if (name := _name_in(weights, key)) is not None}
        bad = [key for key in own if key not in found or found[key].shape != own[key].shape]
        if bad:
            raise ValueError(
                f'img_backbone.checkpoint: {self.checkpoint!r} has no fitting weights for {len(bad)} of the {len(own)} entries '
                f'of {self.model_name!r}, the first is {bad[0]!r}; is it a file of another model?'
            )
        self.model.load_state_dict(found)

    def train(self, mode: bool = True) -> 'TimmBackbone':
        """Training or evaluation mode; batch norms stay in evaluation mode with ``norm_eval``."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps, fine to coarse, each (M, C_l, h_l, w_l), of images (M, 3, H, W)."""
        if self._stages is None:
            return self._channels_first(self.model(images))
        return self._run(images, len(set(self._stages)))

    def first_stage(self, images: Tensor) -> Tensor:
        """The first of the outputs, without what comes after it where the model is a chain of stages."""
        return self.forward(images)[0] if self._stages is None else self._run(images, 1)[0]

    def _run(self, feats: Tensor, count: int) -> list[Tensor]:
        outputs: list[Tensor] = []
        for name, module in self.model.items():
            # single layers of a stem save nothing, and may change what they are given
            worth_it = self.with_cp and next(module.children(), None) is not None
            feats = recompute(module, feats) if worth_it else module(feats)
            if name in self._stages:
                outputs.append(feats)
                if len(outputs) == count:
                    break
        return self._channels_first(outputs)

    def _channels_first(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        if str(getattr(self.model, 'output_fmt', 'NCHW')).endswith('NHWC'):
            return [output.permute(0, 3, 1, 2).contiguous() for output in outputs]
        return list(outputs)


def _name_in(weights: dict[str, torch.Tensor], key: str) -> str | None:
    """Name in a file of an entry of a feature network, which writes stage ``stages.0`` as ``stages_0``."""
    head, _, rest = key.partition('.')
    names = (key, f'{".".join(head.rsplit("_", 1))}.{rest}', rest)
    return next((name for name in names if name in weights), None)
