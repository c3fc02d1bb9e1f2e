"""What two gloo processes do for the test of a killed worker: ``killed`` or ``resumed`` in the folder of the configs."""

import os
import signal
import sys
from pathlib import Path

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from toy_occupancy import one_process_group, train


@HOOKS.register_module()
class ToyKillHook(Hook):
    """Writes the process id of every rank; kills rank 1 in front of an iteration, as the system does when memory is short."""

    def __init__(self, folder: str, iteration: int) -> None:
        self.folder, self.iteration = folder, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        (Path(self.folder) / f'pid.{runner.rank}').write_text(str(os.getpid()))
        if runner.rank == 1 and runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, step: str) -> None:
    if step == 'killed':
        train(folder / 'broken.py', '--launcher', 'pytorch', '--cfg-options', 'custom_hooks.0.iteration=3')
    else:
        assert train(folder / 'broken.py', '--launcher', 'pytorch', '--resume') == 0
        assert train(folder / 'straight.py', '--launcher', 'pytorch') == 0


if __name__ == '__main__':
    with one_process_group():
        main(Path(sys.argv[1]), sys.argv[2])
