import json

import numpy as np
import torch

from projects.occ.engine.metrics_file import write_metrics


def test_metrics_are_valid_json_with_short_names(tmp_path):
    path = tmp_path / 'sub' / 'metrics.json'
    write_metrics(
        path,
        {
            'occ/mIoU': np.float64(0.25),
            'occ/IoU': torch.tensor(0.5),
            'occ/per_class': dict(car=float('nan'), bus=1.0),
            'ray/RayIoU@1': 0.1,
            'a/frames': 3,
            'b/frames': np.arange(2),
        },
        source=dict(config='c.py', checkpoint='c.pth'),
    )
    assert json.loads(path.read_text()) == {
        'mIoU': 0.25,
        'IoU': 0.5,
        'per_class': {'car': None, 'bus': 1.0},
        'RayIoU@1': 0.1,
        'a/frames': 3,
        'b/frames': [0, 1],
        'source': {'config': 'c.py', 'checkpoint': 'c.pth'},
    }
