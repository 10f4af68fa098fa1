import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import Camera, Material, Mesh, Renderer, camera_ring, sample_points
from modeling_ulip2.geometry.colors import linear_to_srgb, srgb_to_linear, to_uint8
from modeling_ulip2.geometry.islands import UNLIMITED, blur_limits
from modeling_ulip2.geometry.light import CEILING, CLEAR_GLASS, KEY_DIRECTION, OUTLINE_CONTRAST, pane_color
from modeling_ulip2.geometry.light import lit as seen_of
from modeling_ulip2.geometry.raster_egl import EglUnavailableError

from .builders import CUBE_FACES, CUBE_VERTICES, cube, quad, sphere

SIZE = 64
FRONT = Camera(0, elevation=0)


def render(mesh: Mesh, *cameras: Camera, **settings):
    return Renderer(size=SIZE, **settings).render(mesh, cameras or (FRONT,))


def colored(red: float, green: float, blue: float, alpha: float = 1.0, **settings) -> Material:
    return Material(base_color=np.array([red, green, blue, alpha], np.float32), **settings)


def linear_light(color: tuple[float, ...], normal=(0.0, 0.0, 1.0)) -> np.ndarray:
    """What `FRONT` sees of a linear color in the middle of the picture, linear."""
    return seen_of(np.array(color), np.array(normal), np.array([0.0, 0.0, 1.0]), FRONT.rotation)


def pane(color: tuple[float, ...], opacity: float = 0.5) -> np.ndarray:
    """Linear light of a pane of this color and opacity, before it is blended with what is behind."""
    return linear_light(tuple(pane_color(np.array(color), opacity)))


def lit(color: tuple[float, ...], normal=(0.0, 0.0, 1.0)) -> np.ndarray:
    """The same in bytes as floats."""
    return 255 * linear_to_srgb(linear_light(color, normal))


def test_shapes_types_and_background():
    output = render(cube(), *camera_ring(3), background=(255, 128, 0))
    assert output.rgb.shape == (3, SIZE, SIZE, 3) and output.rgb.dtype == np.uint8
    assert output.alpha.shape == output.depth.shape == (3, SIZE, SIZE)
    assert output.alpha.dtype == np.uint8 and output.depth.dtype == np.float32
    assert (output.rgb[output.alpha == 0] == [255, 128, 0]).all()
    assert (output.alpha[:, 0, 0] == 0).all() and (output.depth[output.alpha == 0] == 0).all()
    assert all(camera.distance is not None for camera in output.cameras)


def test_a_facing_square_covers_exactly_its_pixels_at_its_depth():
    distance = 5.0
    output = render(quad(), Camera(0, 0, fov=2 * np.degrees(np.arctan(0.4)), distance=distance))
    inside = np.zeros((SIZE, SIZE), bool)
    inside[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] = True  # 1 of 5 * 0.4 = 2 units
    np.testing.assert_array_equal(output.alpha[0] == 255, inside)
    np.testing.assert_allclose(output.depth[0][inside], distance, rtol=1e-6)


def test_depth_is_metric_along_the_axis():
    output = render(sphere(48), Camera(0, 0, distance=4.0))
    depth = output.depth[0]
    assert depth[SIZE // 2, SIZE // 2] == pytest.approx(3.0, abs=0.01)
    assert depth.max() < 4.0
    far = render(sphere(48), Camera(0, 0, distance=8.0)).depth[0]
    assert far[SIZE // 2, SIZE // 2] == pytest.approx(7.0, abs=0.01)


def test_anti_aliased_edges_weigh_coverage():
    triangle = Mesh(np.array([[-1.0, -1, 0], [1, -1, 0], [-1, 1, 0]]), np.array([[0, 1, 2]]))
    camera = Camera(0, 0, distance=5.0)
    fine = render(triangle, camera, supersampling=8).alpha[0] / 255.0
    rough = render(triangle, camera, supersampling=1).alpha[0] / 255.0
    assert set(np.unique(rough)) == {0.0, 1.0}
    area = 2.0 / (2 * 5.0 * np.tan(np.radians(20))) ** 2 * SIZE**2
    assert fine.sum() == pytest.approx(area, rel=2e-3)
    assert ((fine > 0) & (fine < 1)).sum() > 10


def test_nearer_surfaces_hide_farther_ones_in_any_order():
    vertices = np.concatenate([quad(z=0.0).vertices, quad(z=0.5).vertices])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    materials = [colored(1, 0, 0), colored(0, 0, 1)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        mesh = Mesh(vertices, faces[order], materials, np.array([0, 0, 1, 1])[order])
        front, back = render(mesh, FRONT, Camera(180, 0)).rgb[:, SIZE // 2, SIZE // 2]
        assert front.argmax() == 2 and back.argmax() == 0


def test_shared_edges_have_no_cracks_and_no_seams():
    """A square of many thin triangles, turned: every inner pixel is covered, and glass is blended exactly once."""
    steps = np.linspace(-1, 1, 14)
    x, y = np.meshgrid(steps, steps)
    vertices = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    corner = (np.arange(13)[:, None] * 14 + np.arange(13)).reshape(-1)
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + 15], 1), np.stack([corner, corner + 15, corner + 14], 1)]
    )
    turn = 0.3
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    for material, alpha in ((colored(1, 1, 1), 255), (colored(1, 1, 1, 0.5, alpha_mode="BLEND"), 128)):
        output = render(Mesh(vertices @ rotation.T, faces, [material]), Camera(20, 10))
        middle = output.alpha[0, SIZE // 2 - 10 : SIZE // 2 + 10, SIZE // 2 - 10 : SIZE // 2 + 10]
        assert (middle == alpha).all()


@pytest.mark.parametrize("color", [(1, 1, 1), (0.5, 0.1, 0.0), (0, 0, 0)])
def test_flat_light_on_a_facing_square(color):
    rgb = render(quad(colored(*color))).rgb[0, SIZE // 2, SIZE // 2]
    np.testing.assert_allclose(rgb, lit(color), atol=1)


PATCHES = {
    "white": (255, 255, 255), "mid-gray": (128, 128, 128), "gold": (212, 175, 55), "red": (200, 30, 30),
    "blue": (30, 60, 200), "near-black": (20, 20, 20), "pure red": (255, 0, 0), "pale green": (200, 240, 200),
}  # fmt: skip


def painted_sphere(color: tuple[int, int, int]) -> Mesh:
    ball = sphere(24)
    return Mesh(ball.vertices, ball.faces, [colored(*srgb_to_linear(np.array(color) / 255))], normals=ball.normals)


def median_on_the_lit_side(renderer: Renderer, mesh: Mesh, least: float) -> np.ndarray:
    """(3,) sRGB bytes: of the pixels whose normal makes a cosine above `least` with the key light."""
    camera = Camera(0, elevation=0, fov=10, distance=15.0)
    picture = renderer.render(mesh, [camera])
    across = ((np.arange(renderer.size) + 0.5) * 2 / renderer.size - 1) * np.tan(np.radians(5)) * 15.0
    x, y = np.meshgrid(across, -across)
    z = np.sqrt(np.maximum(0.0, 1.0 - x * x - y * y))
    lit_side = (x * x + y * y < 0.95) & (np.stack([x, y, z], axis=-1) @ KEY_DIRECTION > least)
    return np.median(picture.rgb[0][lit_side], axis=0)


@pytest.fixture(scope="module", params=["numba", "egl"])
def renderer_on(request):
    def make(background):
        try:
            return Renderer(request.param, size=96, background=background)
        except EglUnavailableError as error:
            pytest.skip(f"no EGL here: {error}")

    return make


@pytest.mark.parametrize("name", PATCHES)
def test_a_lit_sphere_has_the_color_of_its_material(renderer_on, name):
    renderer = renderer_on((0, 0, 0))
    for least in (0.0, 0.5, 0.7):
        median = median_on_the_lit_side(renderer, painted_sphere(PATCHES[name]), least)
        np.testing.assert_allclose(median, PATCHES[name], rtol=0.08, atol=1.5 if min(PATCHES[name]) < 16 else 0)


def test_lit_faces_differ_and_white_stays_below_95_percent(renderer_on):
    for mesh in (painted_sphere((255, 255, 255)), cube()):
        picture = renderer_on((0, 0, 0)).render(mesh, camera_ring(4, azimuth=30, elevation=25))
        assert picture.rgb.max() < 0.95 * 255
    corner = picture.rgb[0][picture.alpha[0] == 255][:, 0]  # the cube's top and two sides
    shades, counts = np.unique(corner, return_counts=True)
    faces = np.sort(shades[np.argsort(counts)[-3:]]).astype(int)
    assert counts[np.argsort(counts)[-3:]].min() > 300 and (np.diff(faces) >= 5).all() and np.ptp(faces) > 35


@pytest.mark.parametrize("tone", [(255, 255, 255), (0, 0, 0), (248, 250, 252)])
@pytest.mark.parametrize("shape", ["sphere", "square", "pane"])
def test_an_outline_is_seen_against_a_background_of_the_same_color(renderer_on, tone, shape):
    linear = srgb_to_linear(np.array(tone) / 255)
    mesh = {
        "sphere": painted_sphere(tone),
        "square": quad(colored(*linear)),
        "pane": quad(colored(*linear, 0.15, alpha_mode="BLEND")),
    }[shape]
    picture = renderer_on(tone).render(mesh, [Camera(20, elevation=10)])
    covered = picture.alpha[0] > 0
    inner = covered[1:-1, 1:-1] & covered[:-2, 1:-1] & covered[2:, 1:-1] & covered[1:-1, :-2] & covered[1:-1, 2:]
    silhouette = covered.copy()
    silhouette[1:-1, 1:-1] &= ~inner
    contrast = np.abs(picture.rgb[0][silhouette].astype(int) - tone).max(axis=1)
    assert contrast.min() >= round(255 * OUTLINE_CONTRAST) - 2
    np.testing.assert_array_equal(picture.rgb[0][~covered], np.broadcast_to(tone, picture.rgb[0][~covered].shape))


def test_what_stands_out_has_no_line_drawn_around_it():
    red = quad(colored(0.5, 0.02, 0.02))
    picture = render(red, Camera(0, 0, distance=5.0), background=(255, 255, 255))
    whole = picture.alpha[0] == 255
    assert (np.ptp(picture.rgb[0][whole].astype(int), axis=0) <= 3).all()


def test_a_lamp_shines_and_keeps_its_hue(renderer_on):
    """Emission is added to the lit color; what grows brighter than white is compressed without losing its hue."""
    texture = np.full((4, 4, 4), 255, np.uint8)
    texture[:, :2, :3] = 0
    screen = quad(
        Material(base_color=np.array([0, 0, 0, 1], np.float32), emission=np.array([0.0, 0.5, 0.1], np.float32),
                 emission_texture=texture)
    )  # fmt: skip
    middle = renderer_on((0, 0, 0)).render(screen, [FRONT]).rgb[0][48]
    np.testing.assert_allclose(middle[70], 255 * linear_to_srgb(np.array([0, 0.5, 0.1])), atol=2)
    assert middle[25].max() < 5
    flame = quad(colored(1, 1, 1, emission=np.array([30.0, 10.0, 1.0], np.float32)))
    rgb = srgb_to_linear(renderer_on((0, 0, 0)).render(flame, [FRONT]).rgb[0][48, 48] / 255)
    assert rgb[0] == pytest.approx(CEILING, abs=0.01) and 0.3 < rgb[1] / rgb[0] < 0.4 and rgb[2] / rgb[0] < 0.08


def test_smooth_normals_only_where_the_file_has_them():
    rough, smooth = render(sphere(6, smooth=False)), render(sphere(6, smooth=True))

    def distinct(output) -> int:
        return len(np.unique(output.rgb[0][output.alpha[0] == 255][:, 0]))

    assert distinct(smooth) > 1.5 * distinct(rough)
    # A smooth sphere's brightness follows its exact normals.
    fine = render(sphere(48, smooth=True), Camera(0, 0, fov=10, distance=50.0), supersampling=1)
    scale = np.tan(np.radians(5)) * 50.0
    row, column = 22, 40
    x, y = ((column + 0.5) / SIZE * 2 - 1) * scale, (1 - (row + 0.5) / SIZE * 2) * scale
    if x * x + y * y < 0.9:
        normal = (x, y, np.sqrt(1 - x * x - y * y))
        np.testing.assert_allclose(fine.rgb[0, row, column], lit((1, 1, 1), normal), atol=3)


def test_inside_out_faces_are_lit_like_others():
    outside, inside = render(cube()), render(Mesh(CUBE_VERTICES, CUBE_FACES[:, ::-1]))
    np.testing.assert_array_equal(outside.rgb, inside.rgb)
    normals = CUBE_VERTICES.copy()
    right, wrong = (render(Mesh(CUBE_VERTICES, CUBE_FACES, normals=sign * normals)) for sign in (1, -1))
    np.testing.assert_allclose(right.rgb.astype(int), wrong.rgb, atol=1)


def test_back_faces_are_culled_only_on_request():
    square = quad(colored(1, 1, 1, double_sided=False))
    both = render(square, FRONT, Camera(180, 0))
    assert (both.alpha[:, SIZE // 2, SIZE // 2] == 255).all()
    culled = render(square, FRONT, Camera(180, 0), cull_back_faces=True)
    assert culled.alpha[:, SIZE // 2, SIZE // 2].tolist() == [255, 0]


def checker(alpha_left: int = 255) -> np.ndarray:
    texture = np.zeros((64, 64, 4), np.uint8)
    texture[:32, :, 0] = 255
    texture[32:, :, 2] = 255
    texture[..., 3] = 255
    texture[:, :32, 3] = alpha_left
    return texture


def test_textures_stand_upright():
    rgb = render(quad(Material(texture=checker()))).rgb[0]
    upper, lower = rgb[SIZE // 2 - 12, SIZE // 2], rgb[SIZE // 2 + 12, SIZE // 2]
    np.testing.assert_allclose(upper, lit((1, 0, 0)), atol=1)
    np.testing.assert_allclose(lower, lit((0, 0, 1)), atol=1)


@pytest.mark.parametrize("wrap", ["repeat", "mirror", "clamp"])
def test_renderer_and_sampler_read_textures_alike(wrap):
    """Points of a textured surface, projected into its picture, have the picture's colors but for the light."""
    rng = np.random.default_rng(0)
    texture = np.full((8, 8, 4), 255, np.uint8)
    texture[..., :3] = rng.integers(0, 256, (8, 8, 3))
    material = Material(texture=texture, wrap=(wrap, wrap))
    mesh = quad(material)
    mesh.uv = (mesh.uv * 2.6 - 0.7).astype(np.float32)
    camera = Camera(0, 0, fov=30, distance=5.0)
    picture = Renderer(size=512, supersampling=1).render(mesh, [camera]).rgb[0]
    xyz, rgb = sample_points(mesh, 500, 0)
    focal = 256 / np.tan(np.radians(15))
    column = np.floor(256 + focal * xyz[:, 0] / 5.0).astype(int)
    row = np.floor(256 - focal * xyz[:, 1] / 5.0).astype(int)
    linear = np.where(rgb / 255.0 <= 0.04045, rgb / 255.0 / 12.92, ((rgb / 255.0 + 0.055) / 1.055) ** 2.4)
    expected = np.stack([lit(tuple(color)) for color in linear])
    error = np.abs(picture[row, column] - expected)
    assert np.median(error) < 2 and np.quantile(error, 0.95) < 14


def test_dark_bottles_stay_dark_and_clear_panes_get_pale(renderer_on):
    """Green glass of 0.8 is green, gray glass of 0.2 no gray; points and pictures alike."""
    for color, opacity, expected in (((0, 0.02, 0), 0.8, (0, 0.02, 0)), ((0.2, 0.2, 0.2), 0.2, CLEAR_GLASS)):
        mesh = quad(colored(*color, opacity, alpha_mode="BLEND"))
        points = srgb_to_linear(sample_points(mesh, 10)[1].mean(axis=0) / 255)
        np.testing.assert_allclose(points, expected, atol=0.2 if opacity < 0.5 else 0.002)
        assert opacity > 0.5 or points.min() > 0.4
        picture = renderer_on((0, 0, 0)).render(mesh, [FRONT])
        middle = srgb_to_linear(picture.rgb[0, 48, 48] / 255)
        np.testing.assert_allclose(middle, picture.alpha[0, 48, 48] / 255 * pane(color, opacity), atol=0.01)


def leaves(count: int) -> Mesh:
    """Green cards in a row, each the same piece of an image whose other pieces are white."""
    texture = np.full((256, 256, 4), 255, np.uint8)
    texture[94:114, 94:114, :3] = [0, 160, 0]
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]) * 0.6
    vertices = (corners + np.arange(count)[:, None, None] * [1, 0, 0]).reshape(-1, 3)
    faces = (np.array([[0, 1, 2], [0, 2, 3]]) + 4 * np.arange(count)[:, None, None]).reshape(-1, 3)
    uv = np.tile(np.float32([[96, 112], [112, 112], [112, 96], [96, 96]]) / 256, (count, 1))
    return Mesh(vertices, faces, [Material(texture=texture)], uv=uv)


def test_small_leaves_keep_their_color_beside_the_paper_of_their_image(renderer_on):
    """Each card is two or three samples large: its texture is read where it is small, but not beyond the card."""
    picture = renderer_on((0, 0, 0)).render(leaves(40), [Camera(0, 0)])
    covered = picture.alpha[0].astype(float).sum() / 255
    light = srgb_to_linear(picture.rgb[0] / 255).reshape(-1, 3).sum(axis=0) / covered
    np.testing.assert_allclose(light, linear_light(tuple(srgb_to_linear(np.array([0, 160, 0]) / 255))), atol=0.02)


def test_a_tile_may_be_blurred_to_its_mean_and_an_island_may_not():
    texture = np.zeros((256, 256, 4), np.uint8)
    tile = quad(Material(texture=texture))
    assert (blur_limits(tile) == UNLIMITED).all()
    tile.uv = tile.uv * 10 - 3
    assert (blur_limits(tile) == UNLIMITED).all()
    tile.uv = np.float32([0.5, 0.26]) * quad().uv + np.float32(0.1)
    assert (blur_limits(tile) == 3).all()  # 66 texels high, and 8 are left
    assert (blur_limits(leaves(3)) == 1).all()
    assert (blur_limits(quad()) == UNLIMITED).all()


def test_perspective_correct_texture():
    """A square seen at a slant: the texture's middle row must appear where the surface's middle is."""
    mesh = quad(Material(texture=checker()))
    tilted = mesh.vertices @ np.array([[1, 0, 0], [0, 0.3, 0.95], [0, -0.95, 0.3]])
    mesh = Mesh(tilted, mesh.faces, mesh.materials, uv=mesh.uv)
    rgb = Renderer(size=256).render(mesh, [Camera(0, 0, fov=80)]).rgb[0]
    column = rgb[:, 128].astype(int)
    covered = np.flatnonzero(column.sum(axis=1) > 60)
    red = covered[column[covered, 0] > column[covered, 2]]
    share = min(len(red), len(covered) - len(red)) / len(covered)
    assert share < 0.35  # an affine map would give half


def test_alpha_mask_and_blend():
    camera = Camera(0, 0)
    left, right = (slice(None), SIZE // 2, SIZE // 2 - 12), (slice(None), SIZE // 2, SIZE // 2 + 12)
    masked = render(quad(Material(texture=checker(100), alpha_mode="MASK", alpha_cutoff=0.5)), camera)
    assert masked.alpha[left] == 0 and masked.alpha[right] == 255 and masked.depth[left] == 0
    opaque = render(quad(Material(texture=checker(0))), camera)
    assert opaque.alpha[left] == 255
    blended = render(quad(Material(texture=checker(128), alpha_mode="BLEND")), camera)
    assert blended.alpha[left] == pytest.approx(128, abs=1) and blended.alpha[right] == 255
    assert blended.depth[left] == blended.depth[right] > 0


def test_glass_shows_what_is_behind_it_from_both_sides():
    vertices = np.concatenate([quad(z=0.0).vertices, quad(z=0.5).vertices, quad(z=-0.5).vertices])
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * i for i in range(3)])
    glass = [colored(1, 0, 0, 0.5, alpha_mode="BLEND"), colored(0, 0, 1, 0.5, alpha_mode="BLEND")]
    mesh = Mesh(vertices, faces, [colored(0, 1, 0), *glass], np.array([0, 0, 1, 1, 2, 2]))
    front, back = render(mesh, FRONT, Camera(180, 0)).rgb[:, SIZE // 2, SIZE // 2].astype(float)
    halves = [linear_light((0, 1, 0)) / 2, pane((1, 0, 0)) / 2, pane((0, 0, 1)) / 2]
    np.testing.assert_allclose(front, 255 * linear_to_srgb(halves[0] + halves[1]), atol=2)
    np.testing.assert_allclose(back, 255 * linear_to_srgb(halves[0] + halves[2]), atol=2)


def test_panes_of_glass_are_blended_from_back_to_front():
    near, far = colored(1, 0, 0, 0.5, alpha_mode="BLEND"), colored(0, 0, 1, 0.5, alpha_mode="BLEND")
    vertices = np.concatenate([quad(z=0.5).vertices, quad(z=0.0).vertices])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    output = render(Mesh(vertices, faces, [near, far], np.array([0, 0, 1, 1])), background=(0, 0, 0))
    expected = 255 * linear_to_srgb(0.5 * pane((1, 0, 0)) + 0.25 * pane((0, 0, 1)))
    np.testing.assert_allclose(output.rgb[0, SIZE // 2, SIZE // 2], expected, atol=2)
    assert output.alpha[0, SIZE // 2, SIZE // 2] == pytest.approx(191, abs=1)


def test_views_do_not_depend_on_each_other():
    ring = camera_ring(4)
    renderer = Renderer(size=SIZE)
    together = renderer.render(cube(), ring)
    for index, camera in enumerate(ring):
        np.testing.assert_array_equal(renderer.render(cube(), [camera]).rgb[0], together.rgb[index])


def test_scale_and_place_do_not_matter():
    small = render(Mesh(CUBE_VERTICES * 1e-6, CUBE_FACES), *camera_ring(3))
    large = render(Mesh(CUBE_VERTICES * 1e6 + [1e7, 0, -1e7], CUBE_FACES), *camera_ring(3))
    assert np.abs(small.rgb.astype(int) - large.rgb).mean() < 0.1


def test_a_renderer_travels_to_other_processes_by_its_settings():
    import pickle

    renderer = Renderer(size=SIZE, supersampling=3, background=(1, 2, 3), cull_back_faces=True)
    copy = pickle.loads(pickle.dumps(renderer))
    np.testing.assert_array_equal(copy.render(cube(), [FRONT]).rgb, renderer.render(cube(), [FRONT]).rgb)
    assert (copy.supersampling, copy.cull_back_faces, copy.engine) == (3, True, "numba")


def test_impossible_settings_are_refused():
    for wrong in (
        {"size": 0},
        {"supersampling": 0},
        {"size": 9000},
        {"background": (0, 0, 300)},
        {"engine": "vulkan"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Renderer(**wrong)


def test_colors_are_bytes_of_the_srgb_curve():
    assert to_uint8(linear_to_srgb(np.array([0.5]))) == 188


def test_machine_code_is_kept_or_made_anew_where_nothing_can_be_written(tmp_path):
    """In a fresh process that can write neither beside the package nor into the user's cache, drawing still works."""
    code = (
        "import numba.core.caching as caching\n"
        "for kind in vars(caching).values():\n"  # as numba finds it where no folder can be written
        "    if hasattr(kind, '_locator_classes'): kind._locator_classes = []\n"
        "from modeling_ulip2.geometry import raster_numba\n"
        "import numpy as np\n"
        "screen, inverse_depth = np.zeros((1, 2), int), np.zeros(1)\n"
        "raster_numba._project(np.zeros((1, 3)), np.eye(3), 4.0, np.zeros(2), 1.0, 8, screen, inverse_depth)\n"
        "print(screen.tolist(), inverse_depth.tolist(), type(raster_numba._project._cache).__name__)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=300
    )
    assert result.stdout.strip() == "[[1024, 1024]] [0.25] NullCache", result.stdout + result.stderr
