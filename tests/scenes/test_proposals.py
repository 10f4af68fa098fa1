"""Objects proposed without training: in rooms of boxes, where it is known what is there."""

from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.scenes import ObjectMasks, Scene
from modeling_ulip2.scenes.proposals import GeometricSegmenter, GivenMasks, SceneSegmenter
from modeling_ulip2.scenes.proposals.grid import voxelize
from modeling_ulip2.scenes.proposals.loops import graph_segments, plane_normals

from .rooms import RoomBuilder, best_iou, furnished

OBJECTS = ["chair", "cushion", "table", "box", "cupboard"]


@pytest.mark.parametrize(
    ("shell", "scan"),
    [
        ({}, {}),
        ({}, {"turn": 0.5}),
        ({"ceiling": False}, {}),
        ({}, {"normals": True}),
        ({}, {"noise": 0.004}),
        ({"floor": False}, {}),
    ],
    ids=["plain", "turned", "no ceiling", "normals", "noise", "no floor"],
)
def test_finds_every_object_and_the_part_that_lies_on_another(shell, scan):
    scene = furnished(**shell).scene(**scan)

    masks = GeometricSegmenter().segment(scene)

    found = {category: best_iou(scene, masks.points, category) for category in OBJECTS}
    assert min(found.values()) > 0.5, found
    kinds = set(masks.kinds) - {""}
    assert kinds == {"floor", "ceiling", "wall"} - {kind for kind, there in shell.items() if not there}
    for kind in kinds:
        of_kind = [points for points, other in zip(masks.points, masks.kinds, strict=True) if other == kind]
        assert best_iou(scene, of_kind, kind) > 0.8
    assert masks.kinds.count("wall") == 4


def test_finds_objects_by_shape_where_there_is_no_color():
    scene = furnished().scene(color=False)

    masks = GeometricSegmenter().segment(scene)

    assert min(best_iou(scene, masks.points, category) for category in ("chair", "table", "cupboard")) > 0.5


def test_masks_are_ascending_nested_under_their_parents_and_the_same_every_time():
    scene = furnished().scene()

    masks, again = GeometricSegmenter().segment(scene), GeometricSegmenter().segment(scene)

    for points, other in zip(masks.points, again.points, strict=True):
        assert points.dtype == np.int32 and (np.diff(points) > 0).all()
        assert np.array_equal(points, other)
    assert ((masks.scores >= 0) & (masks.scores <= 1)).all()
    nested = np.flatnonzero(masks.parents >= 0)
    assert len(nested)
    for child in nested:
        assert np.isin(masks.points[child], masks.points[masks.parents[child]]).all()
        assert len(masks.points[child]) < len(masks.points[masks.parents[child]])


def test_floors_and_ceilings_of_two_levels_are_told_from_tables_and_beds():
    house = RoomBuilder(density=1500)
    house.shell((0, 0, 0), (5, 2.5, 4))
    house.shell((0, 2.8, 0), (5, 2.5, 4))
    house.object("bed")
    house.box((1, 0, 1), (2.0, 0.5, 2.0), (240, 240, 250))
    house.table(1.5, 1.5, y=2.8)
    scene = house.scene()

    masks = GeometricSegmenter().segment(scene)

    heights = {kind: [] for kind in ("floor", "ceiling")}
    for points, kind in zip(masks.points, masks.kinds, strict=True):
        if kind in heights:
            heights[kind].append(float(scene.xyz[points, 1].mean()))
    assert sorted(heights["floor"]) == pytest.approx([0, 2.8], abs=0.03)
    assert sorted(heights["ceiling"]) == pytest.approx([2.5, 5.3], abs=0.03)
    assert masks.kinds.count("wall") == 8
    assert best_iou(scene, masks.points, "bed") > 0.8


def test_a_picture_on_the_wall_and_a_rug_on_the_floor_are_objects():
    room = RoomBuilder()
    room.shell((0, 0, 0), (4, 2.5, 3))
    room.object("picture")
    room.box((1, 1.2, 0.0), (0.8, 0.6, 0.02), (30, 60, 160))
    room.object("rug")
    room.box((1, 0, 1), (1.5, 0.01, 1.2), (180, 30, 30))
    scene = room.scene()

    masks = GeometricSegmenter().segment(scene)

    objects = [points for points, kind in zip(masks.points, masks.kinds, strict=True) if kind == ""]
    assert best_iou(scene, objects, "picture") > 0.5
    assert best_iou(scene, objects, "rug") > 0.5


def test_a_room_without_furniture_has_no_objects():
    room = RoomBuilder()
    room.shell((0, 0, 0), (4, 2.5, 3))

    masks = GeometricSegmenter().segment(room.scene())

    assert sorted(masks.kinds) == ["ceiling", "floor"] + ["wall"] * 4


def test_a_bound_on_memory_leaves_every_point_in_its_object():
    scene = furnished().scene()
    few = GeometricSegmenter(max_voxels=40_000)

    assert len(voxelize(scene, few.voxel_size, few.max_voxels)) <= few.max_voxels
    masks = few.segment(scene)

    assert min(best_iou(scene, masks.points, category) for category in ("chair", "table", "cupboard")) > 0.5


def test_one_object_alone_without_a_room_is_found():
    alone = RoomBuilder()
    alone.chair(0, 0, cushion=None)

    masks = GeometricSegmenter().segment(alone.scene())

    assert set(masks.kinds) == {""}
    assert best_iou(alone.scene(), masks.points, "chair") > 0.9


@pytest.mark.parametrize("count", [0, 3])
def test_refuses_a_scan_of_hardly_any_points(count):
    with pytest.raises(ValueError, match=f"has {count} points"):
        GeometricSegmenter().segment(Scene("empty", np.zeros((count, 3), np.float32)))


def test_points_that_are_all_in_one_place_are_no_object():
    masks = GeometricSegmenter().segment(Scene("dot", np.ones((1000, 3), np.float32)))

    assert len(masks) == 0


def test_says_that_a_scan_in_millimeters_is_too_wide():
    scene = furnished(density=300).scene()
    with pytest.raises(ValueError, match="in meters"):
        GeometricSegmenter(voxel_size=0.002).segment(Scene("mm", scene.xyz * 1000))


def test_given_masks_take_the_place_of_a_segmenter():
    scene = furnished(density=300).scene()
    masks = scene.objects()

    assert isinstance(GivenMasks(masks), SceneSegmenter)
    assert isinstance(GeometricSegmenter(), SceneSegmenter)
    assert GivenMasks(masks).segment(scene) is masks
    with pytest.raises(ValueError, match="another scan"):
        GivenMasks(ObjectMasks([np.array([0, len(scene.xyz)], np.int32)])).segment(scene)


def test_normals_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    xyz = rng.standard_normal((400, 3)).astype(np.float32) * [1, 0.3, 2]
    indices = rng.integers(400, size=(50, 12))

    normals = plane_normals(xyz.astype(np.float32), indices)

    for normal, neighborhood in zip(normals, xyz[indices], strict=True):
        expected = np.linalg.eigh(np.cov(neighborhood.T))[1][:, 0]
        assert abs(normal @ expected) == pytest.approx(1, abs=1e-4)


def test_graph_segments_join_what_is_alike_and_then_what_is_small():
    # two chains of light edges, a heavy edge between them, and a node that hangs on by another heavy one
    starts = np.array([0, 1, 3, 4, 2, 5])
    ends = np.array([1, 2, 4, 5, 3, 6])
    weights = np.array([0.01, 0.01, 0.02, 0.02, 0.9, 0.95])

    apart = graph_segments(starts, ends, weights, 7, scale=0.1, smallest=1)
    joined = graph_segments(starts, ends, weights, 7, scale=0.1, smallest=2)
    all_one = graph_segments(starts, ends, weights, 7, scale=10.0, smallest=1)

    assert len(set(apart)) == 3 and apart[0] == apart[2] != apart[3] == apart[5] != apart[6]
    assert len(set(joined)) == 2 and joined[6] == joined[5]
    assert len(set(all_one)) == 1
