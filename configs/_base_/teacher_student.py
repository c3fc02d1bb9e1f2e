"""Training with unlabelled samples by an averaged teacher (UniOcc).

A child joins the labelled and the unlabelled data set and adds ``teacher`` to its aggregators:

    train_dataloader = dict(
        batch_size=4,  # even: one half is unlabelled
        sampler=dict(_delete_=True, type='LabelledUnlabelledSampler'),
        dataset=dict(_delete_=True, type='ConcatDataset', datasets=[labelled, dict(labelled, pipeline=unlabelled_pipeline)]),
    )
    model = dict(aggregator=dict(type='SupervisionGroup', rays=_base_.uniocc, teacher=_base_.teacher))

The pipeline of the unlabelled one has HideLabels where the other one has LoadOccLabels. Start from trained weights (load_from)
and fine-tune for two epochs. The report leaves momentum, confidence and weights open; these are our choices.
"""

teacher = dict(type='TeacherConsistency', pseudo_weight=1.0, feature_weight=0.1)
# depth_injection='one_hot' for hosts that lift images by depth, with LoadDepthFromLidar in both pipelines
teacher_hook = dict(type='TeacherStudentHook', confidence=0.5, mask='camera', depth_injection=None, momentum=0.001)
custom_hooks = [teacher_hook]
