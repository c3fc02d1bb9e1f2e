"""BEVDet for occupancy from a single frame: ResNet-50 at 256 x 704, depth and context from one convolution.

The model of FlashOCC's ``bevdet-occ-r50``, without depth supervision. The rest is as in bevdet.py.
"""

_base_ = ['./bevdet.py']

model = dict(
    img_backbone=dict(out_indices=(2, 3)),
    view_encoder=dict(
        num_frames=1,
        depth_net=dict(_delete_=True, type='LSSDepthNet', in_channels=256),
        frame_net=None,
    ),
    occ_head=dict(loss_depth=None),
)
