"""SurroundOcc without semantics: free or occupied, as in the SurroundOcc authors' surroundocc_nosemantic.py.

Voxels are predicted occupied from a probability of 0.25. They carry the id of the first occupied class, so of the metrics only
IoU, precision and recall mean something.
Departures: those of the semantic variant; voxels without a class (255) count nowhere, while the authors count them as empty.
"""

_base_ = ['./surroundocc_r101-dcn_authors_8xb1-24e_surroundocc-nus.py']

model = dict(
    occ_head=dict(use_semantic=False, threshold=0.25, loss_occ=dict(binary=True, sem_scal_weight=0.0)),
)
default_hooks = dict(checkpoint=dict(save_best='occ/IoU'))
