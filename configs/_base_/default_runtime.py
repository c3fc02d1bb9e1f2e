# What every experiment shares: imports, hooks, environment, logging. See docs/configs.md for each key.
default_scope = 'mmdet3d'
custom_imports = dict(
    imports=[
        'projects.occ.datasets',
        'projects.occ.models',
        'projects.occ.evaluation.depth_metric',
        'projects.occ.evaluation.occupancy_metric',
        'projects.occ.evaluation.pose_metric',
        'projects.occ.evaluation.ray_iou_metric',
        'projects.occ.evaluation.ray_profile_metric',
        'projects.occ.evaluation.rendered_depth_metric',
        'projects.occ.visualization',
        'projects.occ.engine',
        'projects.rendering.registered_parts',
        'projects.gaussrender.aggregator',
        'projects.gaussrender.image_metric',
        'projects.bevdet',
        'projects.gaussianocc',
        'projects.surroundocc',
        'projects.symphonies',
        'projects.tpvformer',
    ],
    allow_failed_imports=False,
)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    checkpoint=dict(
        type='AtomicCheckpointHook',
        interval=1,
        by_epoch=True,
        max_keep_ckpts=2,
        save_last=True,
        save_best='occ/mIoU',
        rule='greater',
    ),
    # pictures while validating and testing; tools/test.py --show-dir turns it on
    visualization=dict(
        type='OccVisualizationHook',
        draw=False,
        interval=50,
        draw_gt=True,
        draw_pred=True,
        out_dir=None,
        original_images=True,
        maps='rays',
        video=None,
        path=None,
        fps=2.0,
    ),
    # too little shared memory for loader workers is told before they start; nobody waits longer for a batch (seconds)
    loader_workers=dict(type='LoaderWorkersHook', timeout=900),
    # an interrupted and resumed training gives the losses of an uninterrupted one
    random_state=dict(type='RandomStateHook'),
    # several processes: one batch normalisation, before it is judged or saved
    norm_statistics=dict(type='NormStatisticsHook'),
    # the first NaN ends the run before it reaches a checkpoint
    loss_guard=dict(type='LossGuardHook'),
    # checkpoints are plain data, loadable with weights_only=True
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    # a checkpoint of another model does not pass unnoticed
    checkpoint_keys=dict(type='CheckpointKeyHook', strict=False),
    # resuming with another learning rate, weight decay or schedule applies them and says so
    resume_settings=dict(type='ResumeSettingsHook'),
)

env_cfg = dict(
    cudnn_benchmark=False,
    # OpenCV threads inside loader workers would fight each other
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl', timeout=1800),
)
find_unused_parameters = False

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='OccVisualizer',
    vis_backends=vis_backends,
    name='visualizer',
    palette=None,  # list of [r, g, b] per class; None: the benchmark's
    mask=None,  # voxels whose errors are drawn: 'none' (all), 'camera', 'lidar', 'both'; None: 'camera' where labels have it
    hide_ignored=True,  # False: draw ignored voxels grey
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'

randomness = dict(seed=42, diff_rank_seed=False, deterministic=False)
load_from = None
resume = False
work_dir = None
