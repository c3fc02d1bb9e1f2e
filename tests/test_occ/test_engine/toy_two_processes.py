"""What two gloo processes do for test_distributed.py: started by torchrun with a folder that holds the configs."""

import sys
from pathlib import Path

from toy_occupancy import evaluate, one_process_group, train


def main(folder: Path) -> None:
    straight, broken = folder / 'straight.py', folder / 'broken.py'
    assert train(straight, '--launcher', 'pytorch') == 0
    times = ['param_scheduler.1.end=2', 'param_scheduler.1.T_max=2']
    assert train(broken, '--launcher', 'pytorch', '--cfg-options', 'train_cfg.max_epochs=1', *times) == 0
    assert train(broken, '--launcher', 'pytorch', '--resume') == 0
    outputs = ('--metrics-json', folder / 'two.json', '--out', folder / 'two')
    assert evaluate(straight, folder / 'work_straight' / 'epoch_2.pth', '--launcher', 'pytorch', *outputs) == 0


if __name__ == '__main__':
    with one_process_group():
        main(Path(sys.argv[1]))
