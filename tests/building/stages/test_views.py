"""Rings, presets, depth and the columns of the cameras."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from modeling_ulip2.building.meshes import parse_arguments
from modeling_ulip2.building.stage_options import build_settings
from modeling_ulip2.building.stages.base import to_batch, to_rows
from modeling_ulip2.building.stages.read import ReadMesh, SamplePoints
from modeling_ulip2.building.stages.render import RenderViews
from modeling_ulip2.data.images import read_depth
from modeling_ulip2.data.schema import triplet_features
from modeling_ulip2.geometry import camera_rings
from modeling_ulip2.utils.parquet import read_parquet, write_parquet
from tests.dataset_scripts.shapes import BOX_CORNERS, BOX_FACES

from .cameras import row_cameras
from .test_stages import make_row

# A shape that no mirroring and no quarter turn maps onto itself: half sizes and middle of each of its boxes.
BOXES = [((1.0, 0.6, 0.3), (0.0, 0.0, 0.0)), ((0.3, 0.1, 0.2), (1.1, 0.6, 0.4))]


def write_boxes(path, scale: float, place: tuple[float, float, float]) -> None:
    lines: list[str] = []
    for number, (half_sizes, middle) in enumerate(BOXES):
        corners = (np.array(BOX_CORNERS) * half_sizes + middle) * scale + place  # (8, 3)
        lines += [f"v {x!r} {y!r} {z!r}" for x, y, z in corners.tolist()]
        lines += ["f " + " ".join(str(int(corner) + 8 * number) for corner in face.split()) for face in BOX_FACES]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("scale", "place"),
    [(1.0, (0.0, 0.0, 0.0)), (1.0, (0.5, -0.25, 2.0)), (1.0, (1000.0, 0.0, -50.0)), (1e6, (0.0, 3e6, 0.0))],
)
def test_depth_leads_back_to_the_surface_that_the_points_lie_on(tmp_path, scale, place):
    num_points = 10_000
    write_boxes(tmp_path / "box.obj", scale, place)
    batch = SamplePoints(num_points, seed=0)(ReadMesh(str(tmp_path))(to_batch([make_row()])))
    (row,) = to_rows(RenderViews(camera_rings(6, [0.0, 35.0], fov=30.0), 128, depth=True)(batch))
    assert row["error"] is None, row["message"]
    row |= {"captions": [[""]] * 12, "caption_scores": [[0.0]] * 12}
    features = triplet_features(num_points, depth=True)
    write_parquet(tmp_path / "rows.parquet", [row], features)
    (row,) = read_parquet(tmp_path / "rows.parquet", features)
    xyz = np.array(row["xyz"], dtype=np.float64)
    unit = np.ptp(xyz[:, 0]) / 2.4  # the boxes are 2.4 units long
    for view in range(12):
        depth = read_depth(row["depths"][view]) * np.float64(row["depth_scale"])  # (H, W)
        points = row_cameras(row)[view].unproject(depth)[depth > 0] + np.asarray(row["target"])  # (P, 3)
        assert len(points) > 1000
        off, _ = KDTree(xyz / unit).query(points / unit)
        # points lie 0.03 units apart, pixels 0.03; a pixel holds the depth of its nearest sample, not of its middle
        assert np.median(off) < 0.02 and np.quantile(off, 0.95) < 0.06
    assert [camera.elevation for camera in row_cameras(row)] == [0.0] * 6 + [35.0] * 6


def test_a_row_that_does_not_tell_its_cameras_is_a_sentence():
    old = {"id": "a", "azimuths": [0.0], "elevations": [15.0], "depths": None}
    with pytest.raises(ValueError, match="'a' does not tell its cameras"):
        row_cameras(old)
    with pytest.raises(ValueError, match="'a' does not tell its cameras"):
        row_cameras(old | {"elevations": [None], "distances": [1.0], "fov": 40.0})


def parse(*options: str):
    return parse_arguments(["--meshes", "a", "--output", "b", *options])


@pytest.mark.parametrize(("preset", "views", "depth"), [("ulip-objaverse", 12, False), ("ulip-shapenet", 30, True)])
def test_presets_are_the_published_views(preset, views, depth):
    args = parse("--preset", preset)
    assert (args.views, args.size, args.background, args.depth) == (views, 224, [0, 0, 0], depth)
    cameras = camera_rings(args.views, args.elevation, fov=args.fov, fill=args.fill, fit=args.fit)
    assert {(camera.elevation, camera.fill, camera.fit) for camera in cameras} == {(15.0, 0.68, "ring")}
    assert [camera.azimuth for camera in cameras[:2]] == [0.0, 360 / views]
    assert "preset" not in build_settings(args)  # what it stands for is recorded instead


def test_without_a_preset_every_view_fills_the_frame():
    args = parse()
    assert (args.fit, args.fill) == ("view", 0.85) and all(20 <= elevation <= 30 for elevation in args.elevation)


def test_options_that_are_given_win_over_the_preset():
    args = parse("--views", "8", "--preset=ulip-shapenet", "--no-depth", "--background", "255", "255", "255")
    assert (args.views, args.depth, args.background, args.size) == (8, False, [255, 255, 255], 224)


@pytest.mark.parametrize(
    "options", [["--elevation", "91"], ["--elevation", "15", "15"], ["--elevation"], ["--preset", "ulip"]]
)
def test_impossible_views_are_refused(options, capsys):
    with pytest.raises(SystemExit) as error:
        parse(*options)
    assert error.value.code == 2 and options[0] in capsys.readouterr().err
