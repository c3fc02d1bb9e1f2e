"""Made-up key frames, as raw calibration records, and the same frames in every annotation format."""

import pickle
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')
YAWS = dict(zip(CAMERAS, (0.0, -55.0, 55.0, 180.0, 110.0, -110.0)))
OCC3D_CLASSES = [f'class{i}' for i in range(17)] + ['free']
SURROUNDOCC_CLASSES = ['empty'] + [f'class{i}' for i in range(1, 17)]


def se3(pose):
    """4x4 of a dict with a w, x, y, z quaternion and a translation, by another library than the code under test."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(np.roll(pose['rotation'], -1)).as_matrix()
    matrix[:3, 3] = pose['translation']
    return matrix


def wxyz(rotation):
    return np.roll(rotation.as_quat(), 1).tolist()


class RawFrame:
    """Calibration and pose records of one key frame as nuScenes stores them."""

    def __init__(self, index, cameras=CAMERAS, width=32, height=18):
        rng = np.random.default_rng(index)
        self.token, self.index = f'token{index:02d}', index
        self.scene_token, self.scene_name = f'scenetoken{index // 2}', f'scene-{index // 2 + 1:04d}'
        self.timestamp = 1_600_000_000_000_000 + index * 500_000
        self.sensors = {}
        self._add('LIDAR_TOP', Rotation.from_euler('ZYX', [-90, 0.5, -0.7], degrees=True), [0.94, 0.0, 1.84], 0.0, rng)
        optical = Rotation.from_matrix(np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]))  # z forward -> x forward
        for name in cameras:
            mount = Rotation.from_euler('Z', YAWS.get(name, 20.0), degrees=True) * optical
            mount = mount * Rotation.from_rotvec(rng.normal(0, 0.01, 3))
            place = np.array([1.0, 0.0, 1.5]) + rng.normal(0, 0.1, 3)
            self._add(name, mount, place.tolist(), rng.uniform(-0.05, 0.0), rng)
            focal, cx, cy = 0.8 * width + rng.normal(), width / 2 + rng.normal(), height / 2 + rng.normal()
            self.sensors[name]['K'] = [[focal, 0.0, cx], [0.0, focal * 1.01, cy], [0.0, 0.0, 1.0]]

    def _add(self, name, rotation, translation, delay, rng):
        # 8 m/s and a slow turn, so that the ego pose of each sensor is another one
        yaw = Rotation.from_euler('ZYX', [30 + 20 * delay, 0.4, -0.3], degrees=True)
        suffix = 'pcd.bin' if name == 'LIDAR_TOP' else 'jpg'
        self.sensors[name] = dict(
            filename=f'samples/{name}/log__{name}__{self.timestamp}.{suffix}',
            timestamp=self.timestamp + int(delay * 1e6),
            calib=dict(rotation=wxyz(rotation), translation=translation),
            pose=dict(rotation=wxyz(yaw), translation=[600.0 + 8 * delay + self.index, 1600.0 + 3 * delay, 0.0]),
        )

    @property
    def cameras(self):
        return {name: sensor for name, sensor in self.sensors.items() if name != 'LIDAR_TOP'}

    @property
    def lidar(self):
        return self.sensors['LIDAR_TOP']

    def lidar2cam(self, name):
        camera = self.sensors[name]
        to_global = se3(self.lidar['pose']) @ se3(self.lidar['calib'])
        return np.linalg.inv(se3(camera['pose']) @ se3(camera['calib'])) @ to_global

    def lidar2img(self, name):
        matrix = np.eye(4)
        matrix[:3, :3] = self.sensors[name]['K']
        return matrix @ self.lidar2cam(name)


def bevdet_infos(frames, with_scene=True):
    infos = []
    for frame in frames:
        lidar = frame.lidar
        info = dict(
            token=frame.token,
            timestamp=frame.timestamp,
            lidar_path='./data/nuscenes/' + lidar['filename'],
            sweeps=[],
            lidar2ego_rotation=lidar['calib']['rotation'],
            lidar2ego_translation=lidar['calib']['translation'],
            ego2global_rotation=lidar['pose']['rotation'],
            ego2global_translation=lidar['pose']['translation'],
            cams={},
        )
        if with_scene:
            info.update(
                scene_name=frame.scene_name,
                scene_token=frame.scene_token,
                frame_idx=frame.index % 2,
                occ_path=f'./data/nuscenes/gts/{frame.scene_name}/{frame.token}',
            )
        for name, camera in frame.cameras.items():
            cam2lidar = np.linalg.inv(frame.lidar2cam(name))
            info['cams'][name] = dict(
                data_path='./data/nuscenes/' + camera['filename'],
                type=name,
                timestamp=camera['timestamp'],
                sample_data_token=f'sd_{name}',
                sensor2ego_rotation=camera['calib']['rotation'],
                sensor2ego_translation=camera['calib']['translation'],
                ego2global_rotation=camera['pose']['rotation'],
                ego2global_translation=camera['pose']['translation'],
                sensor2lidar_rotation=cam2lidar[:3, :3],
                sensor2lidar_translation=cam2lidar[:3, 3],
                cam_intrinsic=np.array(camera['K']),
            )
        infos.append(info)
    return {'infos': infos, 'metadata': {'version': 'v1.0-mini'}}


def sparseocc_infos(frames):
    content = bevdet_infos(frames)
    for frame, info in zip(frames, content['infos']):
        for name, camera in info['cams'].items():
            for key in ('sensor2ego_rotation', 'sensor2ego_translation', 'ego2global_rotation', 'ego2global_translation'):
                del camera[key]
            sensor2global = se3(frame.sensors[name]['pose']) @ se3(frame.sensors[name]['calib'])
            camera['sensor2global_rotation'] = sensor2global[:3, :3]
            camera['sensor2global_translation'] = sensor2global[:3, 3]
        info['sweeps'] = [{'CAM_FRONT': dict(data_path='./data/nuscenes/sweeps/CAM_FRONT/old.jpg')}]
    return content


def gaussrender_infos(frames):
    """Every key frame is followed by a frame without a token, as files with sweeps have them."""
    infos, metadata = {}, []
    for frame in frames:
        scene = infos.setdefault(frame.scene_token, [])
        metadata.append((frame.scene_token, len(scene)))
        data = {}
        for name, sensor in frame.sensors.items():
            calib = dict(sensor['calib'], camera_intrinsic=sensor.get('K', []))
            data[name] = dict(filename=sensor['filename'], calib=calib, pose=sensor['pose'])
        scene.append(dict(token=frame.token, scene_token=frame.scene_token, timestamp=frame.timestamp, occ_path='x', data=data))
        scene.append(dict(timestamp=frame.timestamp + 50_000, data=data))
    return {'infos': infos, 'metadata': metadata}


def v2_infos(frames, ours=False):
    def rows(matrix):
        return matrix.tolist() if ours else matrix.astype(np.float32).tolist()

    data_list = []
    for index, frame in enumerate(frames):
        images = {}
        for name, camera in frame.cameras.items():
            images[name] = dict(
                img_path=camera['filename'].rsplit('/', 1)[-1],
                cam2img=camera['K'],
                cam2ego=rows(se3(camera['calib'])),
                lidar2cam=rows(frame.lidar2cam(name)),
                sample_data_token=f'sd_{name}',
                timestamp=camera['timestamp'] / 1e6,
            )
            if ours:
                images[name]['ego2global'] = rows(se3(camera['pose']))
        lidar_name = frame.lidar['filename'].rsplit('/', 1)[-1]
        info = dict(
            sample_idx=index,
            token=frame.token,
            timestamp=frame.timestamp / 1e6,
            ego2global=rows(se3(frame.lidar['pose'])),
            images=images,
            lidar_points=dict(lidar_path=lidar_name, num_pts_feats=5, lidar2ego=rows(se3(frame.lidar['calib']))),
            instances=[],
        )
        if ours:
            info.update(
                scene_name=frame.scene_name,
                scene_token=frame.scene_token,
                frame_idx=frame.index % 2,
                prev='',
                next='',
                occ3d_path=f'{frame.scene_name}/{frame.token}/labels.npz',
                surroundocc_path=f'{lidar_name}.npy',
            )
        data_list.append(info)
    metainfo = dict(categories={'car': 0}, dataset='nuscenes', version='v1.0-mini', info_version='occ-1.0' if ours else '1.1')
    return {'metainfo': metainfo, 'data_list': data_list}


STYLES = {
    'bevdet': bevdet_infos,
    'sparseocc': sparseocc_infos,
    'gaussrender': gaussrender_infos,
    'mmdet3d-v2': v2_infos,
    'occ-1.0': lambda frames: v2_infos(frames, ours=True),
}


def tiny_grid(benchmark):
    """8 x 8 x 2 voxels of 2 m as config dict."""
    if benchmark == 'occ3d':
        return dict(
            point_cloud_range=[-8.0, -8.0, -1.0, 8.0, 8.0, 3.0],
            voxel_size=2.0,
            shape=[8, 8, 2],
            frame='ego',
            free_index=17,
            ignore_index=255,
            class_names=OCC3D_CLASSES,
        )
    return dict(
        point_cloud_range=[-8.0, -8.0, -3.0, 8.0, 8.0, 1.0],
        voxel_size=2.0,
        shape=[8, 8, 2],
        frame='lidar',
        free_index=0,
        ignore_index=255,
        class_names=SURROUNDOCC_CLASSES,
    )


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return str(path)


@pytest.fixture
def formats():
    """Tools to write annotation files: ``RawFrame``, ``styles`` by name, ``tiny_grid``, ``write_pickle``, ``se3``."""
    return SimpleNamespace(
        RawFrame=RawFrame,
        styles=STYLES,
        bevdet_infos=bevdet_infos,
        v2_infos=v2_infos,
        gaussrender_infos=gaussrender_infos,
        tiny_grid=tiny_grid,
        write_pickle=write_pickle,
        se3=se3,
    )


@pytest.fixture
def tiny_root(tmp_path):
    """A data root with four frames: images, labels of both benchmarks and an annotation file of our format."""
    frames = [RawFrame(index) for index in range(4)]
    rng = np.random.default_rng(0)
    for frame in frames:
        for camera in frame.cameras.values():
            path = tmp_path / 'nuscenes' / camera['filename']
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 256, (18, 32, 3), dtype=np.uint8))
        folder = tmp_path / 'gts' / frame.scene_name / frame.token
        folder.mkdir(parents=True)
        semantics = rng.integers(0, 18, (8, 8, 2)).astype(np.uint8)
        mask = rng.integers(0, 2, (8, 8, 2)).astype(np.uint8)
        np.savez_compressed(folder / 'labels.npz', semantics=semantics, mask_lidar=mask, mask_camera=mask * (semantics < 9))
        voxels = np.argwhere(rng.uniform(size=(8, 8, 2)) < 0.3)
        rows = np.column_stack([voxels, rng.integers(0, 17, len(voxels))]).astype(np.int64)
        path = tmp_path / 'occ' / (frame.lidar['filename'].rsplit('/', 1)[-1] + '.npy')
        path.parent.mkdir(exist_ok=True)
        np.save(path, rows)
    write_pickle(tmp_path / 'infos.pkl', v2_infos(frames, ours=True))
    return SimpleNamespace(path=tmp_path, frames=frames)
