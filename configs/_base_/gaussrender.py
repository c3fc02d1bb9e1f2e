"""GaussRender: rendered 2D losses on top of any occupancy network (docs/gaussrender.md).

A base file must not define ``model`` twice, so this one defines the block and the experiment hangs it into its model:

    _base_ = ['./<baseline>.py', '../_base_/gaussrender.py']
    aggregator = _base_.aggregator_occ3d                # or aggregator_surroundocc, aggregator (SSCBench-KITTI-360 and others)
    aggregator.gaussians.feat_channels = 256            # channels of the network's voxel features; None: opacity from logits
    model = dict(aggregator=aggregator)

The runtime base config imports the aggregator. On the command line the fields are model.aggregator.<block>.<field>.
"""

# Sensor views, Gaussians half a voxel wide: the published setting of SSCBench-KITTI-360 and the start for other data.
aggregator = dict(
    type='GaussRenderAggregator',
    gaussians=dict(
        feat_channels=None,  # channels of the voxel features that the opacity is learned from; None: opacity from the logits
        num_layer=2,  # hidden layers of the MLP that reads the features
        gaussian_scale=None,  # standard deviation of a Gaussian, metres; None: half the shortest voxel edge
        mask_elements=False,  # drop voxels that are predicted free
        transfer_colors=True,  # colours are the logits of the network, not a second set from the MLP
        transfer_opacity=False,  # opacity from the probability of free space even if there are features
        overwrite_scales=True,  # constant isotropic scales, not the MLP's
        overwrite_rotations=False,  # identity rotations, not the MLP's (no difference with constant scales)
        overwrite_opacity=False,  # opacity 0 or 1 by arg-max, no gradient: for image metrics only
        opacity_curve='compatible',  # or 'continuous': how the probability of free space becomes opacity
        with_cp=False,  # recompute the MLP in the backward pass: less memory, more time
    ),
    cameras=dict(
        type='SensorCameras',  # or Elevated-, Random-, Stereo-, Trajectory-, ElevatedAround-, ListCameras
        num_cameras=None,  # real cameras drawn per step, with replacement; None: 1
        indices=None,  # fixed cameras instead: list of indices or 'all'
        weights=None,  # relative probability of each camera, in the order of the data; None: uniform
        reduction=1,  # rendered images are smaller by this factor
        seed=0,  # of the draws; each rank and step draws its own numbers
    ),
    bev=dict(
        size=400,  # width of the bird's-eye image, pixels
        height=None,  # height of its camera over z = 0, metres; None: x extent of the grid
    ),
    loss=dict(
        weight=10.0,  # of all terms
        cam_sem=1.0,  # relative weight of the class images of the cameras; 0 switches a term off
        cam_depth=1.0,  # of the depth images of the cameras
        bev_sem=1.0,  # of the class image from above
        bev_depth=1.0,  # of the depth image from above
        cam_depth_range=50.0,  # depth errors of the cameras are divided by this, metres
        bev_depth_range=100.0,  # depth errors from above are divided by this, metres
        min_depth=0.1,  # label depth from which a pixel takes part in the depth terms, metres
        mask_elems=False,  # compare only pixels whose label is not free
        kl_loss=False,  # Kullback-Leibler divergence instead of L1 for the class images
        kl_input='log_softmax',  # or 'log': how rendered probabilities enter the divergence
        batch_reduction='mean',  # or 'sum' over the samples of a batch
        invalid_views='skip',  # or 'zero_term': a view without valid pixels voids its whole term
    ),
    renderer=dict(
        backend=None,  # 'cpu', 'cuda' or 'reference' (slow); None: the compiled one of the device
        fused=True,  # losses tile by tile, without images, where the terms fit; False: always images
        settings=dict(  # gaussian_rasterization.RasterSettings explains them
            near=0.2,  # Gaussians that are not deeper are dropped, metres
            dilation=0.3,  # added to the variances on the image, square pixels
            alpha_min=1 / 255,  # fainter contributions to a pixel are left out
            alpha_max=0.99,  # cap of alpha
            transmittance_min=1e-4,  # a pixel is finished before its transmittance falls below this
            jacobian_clamp='symmetric',  # or 'offcentre': right for any principal point
            cap_gradient='straight',  # or 'exact': no gradient where alpha is capped
            tile_compat=None,  # or 'rect12': the tiles of the original extension, which cut off faint tails
            scale_modifier=1.0,  # factor on all scales
            debug=False,  # True: name non-finite inputs instead of dropping their Gaussians
        ),
    ),
)

# The published nuScenes runs draw front and back cameras twice as often as the four side cameras.
aggregator_occ3d = dict(
    aggregator,
    gaussians=dict(aggregator['gaussians'], gaussian_scale=0.27),
    cameras=dict(aggregator['cameras'], weights=[2, 1, 1, 2, 1, 1]),
)
aggregator_surroundocc = dict(
    aggregator,
    gaussians=dict(aggregator['gaussians'], gaussian_scale=0.25),
    cameras=dict(aggregator['cameras'], type='TrajectoryCameras', weights=[2, 1, 1, 2, 1, 1]),
)
