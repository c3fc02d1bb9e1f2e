"""Tells before the first iteration whether rendering supervision can work."""

import importlib.util

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..errors import OccError

BUILD_COMMAND = 'pip install --no-deps --no-build-isolation -e extensions/diff-gaussian-rasterization'


@HOOKS.register_module()
class RasterizerCheckHook(Hook):
    """Looks for the rasteriser if the model has an ``aggregator``, which imports it on its first step only.

    Testing and models without rendering supervision need no rasteriser and are not checked.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        """Checks that the rasteriser is there, and warns if only its slow reference serves the device of the model.

        Raises:
            OccError: If it is not installed.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if getattr(model, 'aggregator', None) is None:
            return
        if importlib.util.find_spec('gaussian_rasterization') is None:
            raise OccError(
                'model.aggregator renders, but the rasteriser is not installed; install it with '
                f'{BUILD_COMMAND}, or train the baseline with --cfg-options model.aggregator=None'
            )
        from gaussian_rasterization import build_config

        built = build_config()
        device = next(model.parameters()).device.type
        chosen = getattr(getattr(model.aggregator, 'renderer', None), 'backend', None)
        if chosen is None and built['default'].get(device) == 'reference':
            switch = 'FORCE_CUDA=1 ' if device == 'cuda' else ''
            runner.logger.warning(
                f'The rasteriser has no compiled backend for {device} ({built.get("reason") or "it was built without"}); '
                f'rendering will be very slow. Build it with {switch}{built.get("build_command", BUILD_COMMAND)}'
            )
