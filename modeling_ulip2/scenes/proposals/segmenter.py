"""What proposes objects in a scan, and the segmenter that needs no training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from modeling_ulip2.scenes.schema import ObjectMasks, Scene
from modeling_ulip2.utils.cpus import available_cores

from .choosing import Branches
from .grid import Voxels, voxelize
from .merging import merge_segments
from .segments import make_edges, over_segment, part_from_structure
from .structure import find_structure
from .surface import find_surface, thickness

logger = logging.getLogger(__name__)

FEWEST_POINTS = 10  # of a scan in which anything may be found
# The grid is as coarse as this many times the noise of a scan, but no coarser than so many meters for that.
NOISE = 5.0
LARGEST_VOXEL = 0.05


@runtime_checkable
class SceneSegmenter(Protocol):
    """Whatever proposes objects: the geometric one below, a learned model, or masks made elsewhere (`GivenMasks`)."""

    def segment(self, scene: Scene) -> ObjectMasks:
        """Objects of a scene without names. Masks may overlap and be nested; `scores` tell how sure each is."""


@dataclass
class GivenMasks:
    """Masks made elsewhere, in place of a segmenter."""

    masks: ObjectMasks

    def segment(self, scene: Scene) -> ObjectMasks:
        """The masks.

        Raises:
            ValueError: they are of a scan with more points.
        """
        last = max((int(points[-1]) for points in self.masks.points if len(points)), default=-1)
        if last >= len(scene.xyz):
            raise ValueError(
                f"the masks reach point {last}, but scene {scene.id!r} has {len(scene.xyz)} points: they belong to "
                "another scan"
            )
        return self.masks


@dataclass
class GeometricSegmenter:
    """Objects by shape and color alone, without training.

    Floors, ceilings and walls are planes; everything else is over-segmented by normals and color as ScanNet's segments
    are (Felzenszwalb and Huttenlocher, 2004), and the segments are merged bottom-up. Of that tree every region is
    proposed that stands out from what it is merged into, so that a chair and its cushion are both there.

    Memory is bounded by `max_voxels`: 0.3 GB for 0.9 million of them, beside the scan itself of 5 million points, in
    15 seconds of one processor (`tests/benchmarks/bench_scenes.py`).

    Args:
        voxel_size: meters; the scan is put on a grid of such cubes. Larger where the scan is noisy, and where that
            leaves more than `max_voxels`.
        max_voxels: most occupied cells.
        neighbors: of each point, from which normals are computed and the graph is made.
        scale: of the over-segmentation: larger gives larger segments.
        smallest_segment: points on the grid.
        smallest_object: meters, the least longest side of a proposal.
        max_proposals: the best ones are kept, beside floors, ceilings and walls.
        seed: of what is drawn at random; the same seed gives the same proposals.
    """

    voxel_size: float = 0.02
    max_voxels: int = 1_000_000
    neighbors: int = 16
    scale: float = 0.3
    smallest_segment: int = 10
    smallest_object: float = 0.08
    max_proposals: int = 400
    seed: int = 0

    def segment(self, scene: Scene) -> ObjectMasks:
        """Objects of a scene, walls, floors and ceilings first; the best others first among them.

        `scores` of objects, in [0, 1], tell how much they stand out from what they would be merged with next; of parts
        of the room they are 1. `parents` are those of the tree. The same scene gives the same masks.

        Raises:
            ValueError: hardly any points, or points too far apart to be of a room in meters.
        """
        if len(scene.xyz) < FEWEST_POINTS:
            raise ValueError(f"scene {scene.id!r} has {len(scene.xyz)} points: too few to look for objects in")
        voxels = self._voxelize(scene)
        surface = find_surface(voxels.xyz, voxels.normals, voxels.size, self.neighbors, available_cores())
        planes = find_structure(voxels.xyz, surface.normals, surface.area, 1.5 * voxels.size, self.seed)
        edges = make_edges(voxels, surface)
        segments = over_segment(edges, len(voxels), self.scale, self.smallest_segment)
        segments, planes = part_from_structure(segments, planes, voxels, surface)
        tree = merge_segments(segments, edges, voxels, surface)
        logger.info(
            "%s: %d points, %d cells of %.3f m, %d planes, %d segments",
            scene.id,
            len(scene.xyz),
            len(voxels),
            voxels.size,
            len(planes),
            int(segments.max(initial=-1)) + 1,
        )
        branches = Branches(tree, segments, voxels.xyz)
        nodes, scores, parents = branches.choose(self.smallest_object, self.max_proposals)
        cells = [plane.points for plane in planes] + [branches.cells(node) for node in nodes]
        room = len(planes)
        return ObjectMasks(
            voxels.points_of(cells),
            scores=np.concatenate([np.ones(room, np.float32), scores]),
            parents=np.concatenate([np.full(room, -1, np.int32), np.where(parents < 0, -1, parents + room)]).astype(
                np.int32
            ),
            kinds=[plane.kind for plane in planes] + [""] * len(nodes),
        )

    def _voxelize(self, scene: Scene) -> Voxels:
        voxels = voxelize(scene, self.voxel_size, self.max_voxels)
        size = min(NOISE * thickness(voxels.xyz, voxels.size), LARGEST_VOXEL)
        return voxelize(scene, size, self.max_voxels) if size > voxels.size else voxels
