"""S3DIS (Armeni et al., CVPR 2016), a folder for each room, `Stanford3dDataset_v1.2` and its aligned version:

Area_1/office_1/Annotations/chair_1.txt    x y z r g b of each point of one object
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modeling_ulip2.geometry.cloud import PointCloud
from modeling_ulip2.geometry.points import MAX_POINTS, read_cloud
from modeling_ulip2.scenes.schema import Scene

from .layouts import LayoutError, z_up_scene

_FOLDER = "Annotations"


def is_s3dis(folder: Path) -> bool:
    return next((folder / _FOLDER).glob("*.txt"), None) is not None


def read_s3dis(folder: Path) -> Scene:
    """A room of S3DIS, turned y up, called AREA/ROOM: the points of all its objects, in the order of their files.

    Raises:
        LayoutError: there are no annotations, or too many points.
        MeshError: a file cannot be read; the message names it and its line.
    """
    paths = sorted(path for path in (folder / _FOLDER).glob("*.txt") if not path.name.startswith("."))
    if not paths:
        raise LayoutError(f"{folder} holds no {_FOLDER}/*.txt")
    xyz, rgb, instance, categories, names = [], [], [], [], []
    left = MAX_POINTS
    for number, path in enumerate(paths):
        cloud = read_cloud(path, max_points=left)
        left -= len(cloud.xyz)
        xyz.append(cloud.xyz)
        rgb.append(np.zeros((len(cloud.xyz), 3), np.uint8) if cloud.rgb is None else cloud.rgb)
        instance.append(np.full(len(cloud.xyz), number, dtype=np.int32))
        categories.append(path.stem.rpartition("_")[0] or path.stem)
        names.append(path.stem)
    resolved = folder.resolve()
    area = resolved.parent.name
    name = f"{area}/{resolved.name}" if area.lower().startswith("area") else resolved.name
    cloud = PointCloud(np.concatenate(xyz), np.concatenate(rgb))
    return z_up_scene(name, cloud, np.concatenate(instance), categories, names, "S3DIS")
