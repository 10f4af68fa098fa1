import json
import struct

import numpy as np
import pytest

from modeling_ulip2.geometry import Camera, MeshError, Renderer, read_mesh, sample_points
from modeling_ulip2.geometry.colors import linear_to_srgb, to_uint8

from .builders import TRIANGLE, TRIANGLE_UV, Gltf, png, triangle_gltf

QUARTER_TURN_ABOUT_Z = [0.0, 0.0, np.sin(np.pi / 4), np.cos(np.pi / 4)]


def only_color(path, **kwargs) -> list[int]:
    """The color of a mesh that has one."""
    rgb = sample_points(read_mesh(path, **kwargs), 50, 0)[1]
    assert (rgb == rgb[0]).all()
    return rgb[0].tolist()


def error_of(gltf, tmp_path, name="a.glb") -> MeshError:
    with pytest.raises(MeshError) as error:
        read_mesh(gltf.write(tmp_path / name))
    return error.value


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_triangle_without_a_material_is_white(tmp_path, suffix):
    mesh = read_mesh(triangle_gltf(indices=np.array([0, 1, 2], np.uint16)).write(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(mesh.vertices, TRIANGLE)
    assert mesh.faces.tolist() == [[0, 1, 2]] and mesh.normals is None
    assert (sample_points(mesh, 9, 0)[1] == 255).all()


def test_base_color_factor_is_linear(tmp_path):
    gltf = Gltf()
    material = gltf.material(pbrMetallicRoughness={"baseColorFactor": [0.5, 0.002, 0.0, 1.0]})
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}, material=material))
    # 0.002 needs more than 8 linear bits: with them it would come out as 0 or 13.
    assert only_color(gltf.write(tmp_path / "a.glb")) == [188, 7, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_color_0_is_linear_in_each_of_its_types(tmp_path, dtype):
    scale = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    colors = np.tile(np.array([0.5, 0.25, 1.0, 1.0]) * scale, (3, 1)).astype(dtype)
    gltf = Gltf()
    accessor = gltf.accessor(colors, normalized=dtype != np.float32)
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE, "COLOR_0": accessor}))
    np.testing.assert_allclose(only_color(gltf.write(tmp_path / "a.glb")), [188, 137, 255], atol=1)


def test_factor_texture_and_vertex_color_multiply_in_linear_light(tmp_path):
    gltf = Gltf()
    texture = gltf.texture(png([[[188, 255, 255]]]))
    pbr = {"baseColorTexture": {"index": texture}, "baseColorFactor": [0.5, 1.0, 0.5, 1.0]}
    colors = np.tile(np.array([1.0, 0.5, 0.5], np.float32), (3, 1))
    attributes = {"POSITION": TRIANGLE, "TEXCOORD_0": TRIANGLE_UV, "COLOR_0": colors}
    gltf.node(mesh=gltf.mesh(attributes, material=gltf.material(pbrMetallicRoughness=pbr)))
    expected = to_uint8(linear_to_srgb(np.array([0.5029 * 0.5, 0.5, 0.25])))
    np.testing.assert_allclose(only_color(gltf.write(tmp_path / "a.glb")), expected, atol=1)


def two_texel_quad(gltf: Gltf, uv: np.ndarray, texture: dict, **info) -> None:
    quad = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    material = gltf.material(pbrMetallicRoughness={"baseColorTexture": {"index": gltf.texture(**texture), **info}})
    attributes = {"POSITION": quad, "TEXCOORD_0": uv.astype(np.float32), "TEXCOORD_1": np.zeros((4, 2), np.float32)}
    gltf.node(mesh=gltf.mesh(attributes, np.array([0, 1, 2, 0, 2, 3], np.uint8), material=material))


RED_OVER_BLUE = png([[[255, 0, 0]], [[0, 0, 255]]])
UPRIGHT = np.array([[0, 1], [1, 1], [1, 0], [0, 0]])


def colors_by_height(path) -> tuple[np.ndarray, np.ndarray]:
    """Mean colors of a unit square's lower and upper quarter."""
    xyz, rgb = sample_points(read_mesh(path), 2000, 0)
    return rgb[xyz[:, 1] < 0.2].mean(axis=0), rgb[xyz[:, 1] > 0.8].mean(axis=0)


def test_v_runs_down_from_the_first_row(tmp_path):
    gltf = Gltf()
    two_texel_quad(gltf, UPRIGHT, {"image": RED_OVER_BLUE, "sampler": 0})
    gltf.header["samplers"] = [{"wrapS": 33071, "wrapT": 33071}]
    lower, upper = colors_by_height(gltf.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(upper, [255, 0, 0], atol=2)
    np.testing.assert_allclose(lower, [0, 0, 255], atol=2)


@pytest.mark.parametrize(
    ("wrap", "upper_is_red"), [(10497, True), (33648, False), (33071, True)], ids=["repeat", "mirror", "clamp"]
)
def test_wrap_modes(tmp_path, wrap, upper_is_red):
    gltf = Gltf()
    # v = -2 .. -1: repeat shows the image upright, mirror upside down (-1 .. 0 mirrored, -2 .. -1 upright again).
    shift = {10497: -1, 33648: -1, 33071: -5}[wrap]
    two_texel_quad(gltf, UPRIGHT + [0, shift], {"image": RED_OVER_BLUE, "sampler": 0})
    gltf.header["samplers"] = [{"wrapS": wrap, "wrapT": wrap}]
    _, upper = colors_by_height(gltf.write(tmp_path / "a.glb"))
    assert (upper[0] > upper[2]) == upper_is_red


def test_texture_transform_and_second_coordinate_set(tmp_path):
    gltf = Gltf()
    transform = {"KHR_texture_transform": {"offset": [0, 1], "scale": [1, -1]}}
    two_texel_quad(gltf, UPRIGHT, {"image": RED_OVER_BLUE}, extensions=transform)
    lower, upper = colors_by_height(gltf.write(tmp_path / "flipped.glb"))
    assert lower[0] > 200 and upper[2] > 200

    gltf = Gltf()
    two_texel_quad(gltf, UPRIGHT, {"image": RED_OVER_BLUE, "sampler": 0}, texCoord=1)
    gltf.header["samplers"] = [{"wrapS": 33071, "wrapT": 33071}]
    assert only_color(gltf.write(tmp_path / "second.glb")) == [255, 0, 0]


def test_texture_rotation_runs_the_way_of_the_extension(tmp_path):
    # KHR_texture_transform: a quarter turn takes uv (1, 0) to (0, -1).
    gltf = triangle_gltf()
    from modeling_ulip2.geometry.gltf_materials import TextureUse

    turned = TextureUse(rotation=np.pi / 2).apply(np.array([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(turned, [[0, -1], [1, 0]], atol=1e-7)
    assert read_mesh(gltf.write(tmp_path / "a.glb")).uv is None


def test_specular_glossiness_and_alpha_modes(tmp_path):
    gltf = Gltf()
    glossy = {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0.0, 1.0, 0.0, 0.5]}}
    material = gltf.material(extensions=glossy, alphaMode="MASK", alphaCutoff=0.3, doubleSided=True)
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}, material=material))
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    assert only_color(tmp_path / "a.glb") == [0, 255, 0]
    material = mesh.materials[mesh.face_material[0]]
    assert (material.alpha_mode, material.alpha_cutoff, material.double_sided) == ("MASK", 0.3, True)


def test_a_black_surface_that_shines_has_the_color_of_its_light(tmp_path):
    for emitted, expected in (([0.0, 0.5, 1.0], [0, 188, 255]), ([0.0, 0.0, 0.0], [0, 0, 0])):
        gltf = Gltf()
        material = gltf.material(
            pbrMetallicRoughness={"baseColorFactor": [0, 0, 0, 1]}, emissiveFactor=emitted, doubleSided=True
        )
        gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}, material=material))
        assert only_color(gltf.write(tmp_path / "a.glb")) == expected
    gltf.header["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [1, 0, 0, 1]
    gltf.header["materials"][0]["emissiveFactor"] = [0, 1, 0]
    assert only_color(gltf.write(tmp_path / "a.glb")) == [255, 255, 0]


def colored_triangle(tmp_path, **material) -> list[int]:
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}, material=gltf.material(**material)))
    return only_color(gltf.write(tmp_path / "a.glb"))


@pytest.mark.parametrize(
    ("glossy", "expected"),
    [
        ({"diffuseFactor": [0, 0, 0, 1], "specularFactor": [1.0, 0.6, 0.033105]}, [255, 203, 51]),  # gold
        ({"diffuseFactor": [0, 0, 0, 1]}, [255, 255, 255]),  # the default: a mirror
        ({"diffuseFactor": [0, 0, 0, 1], "specularFactor": [0.04, 0.04, 0.04]}, [0, 0, 0]),  # black plastic
        ({"diffuseFactor": [1, 0, 0, 1], "specularFactor": [0.04, 0.04, 0.04]}, [255, 0, 0]),
        ({"diffuseFactor": [0, 1, 0, 1]}, [0, 255, 0]),
    ],
)
def test_metals_of_specular_glossiness_take_their_specular_color(tmp_path, glossy, expected):
    assert colored_triangle(tmp_path, extensions={"KHR_materials_pbrSpecularGlossiness": glossy}) == expected


def test_metal_parts_of_a_specular_texture(tmp_path):
    """Left: no diffuse color, golden. Right: red paint, whose specular color counts for nothing."""
    gltf = Gltf()
    diffuse = gltf.texture(png([[[0, 0, 0], [200, 0, 0]]] * 2))
    specular = gltf.texture(png([[[255, 204, 51], [56, 56, 56]]] * 2))
    glossy = {"diffuseTexture": {"index": diffuse}, "specularGlossinessTexture": {"index": specular}}
    material = gltf.material(extensions={"KHR_materials_pbrSpecularGlossiness": glossy})
    uv = np.array([[0.25, 0.5], [0.25, 0.4], [0.25, 0.6]], np.float32)
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE, "TEXCOORD_0": uv}, material=material))
    assert only_color(gltf.write(tmp_path / "a.glb")) == [255, 204, 51]
    gltf.header["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"] = gltf.accessor(uv + np.float32([0.5, 0]))
    assert only_color(gltf.write(tmp_path / "b.glb")) == [200, 0, 0]


def test_metals_keep_their_base_color(tmp_path):
    pbr = {"baseColorFactor": [1.0, 0.5, 0.0, 1.0], "metallicFactor": 1.0, "roughnessFactor": 0.0}
    assert colored_triangle(tmp_path, pbrMetallicRoughness=pbr) == [255, 188, 0]


@pytest.mark.parametrize(
    "material",
    [
        {"extensions": {"KHR_materials_transmission": {"transmissionFactor": 1.0}}},
        {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.3]}},
        {
            "alphaMode": "BLEND",
            "extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0, 0, 0, 0.2]}},
        },
    ],
)
def test_glass_is_seen_through_and_pale_in_points(tmp_path, material):
    assert min(colored_triangle(tmp_path, **material)) > 200
    mesh = read_mesh(tmp_path / "a.glb")
    alpha = Renderer(size=32).render(mesh, [Camera(0, 0)]).alpha
    assert 40 < alpha.max() < 130
    if "KHR_materials_transmission" in material.get("extensions", {}):
        blue = {"baseColorFactor": [0.0, 0.1, 0.8, 1.0]}
        (red, _, blue) = colored_triangle(tmp_path, **material, pbrMetallicRoughness=blue)
        assert blue > red + 10


GLASS = {"transmissionFactor": 1.0}


def half_clear(tmp_path, texture=None, transmission_use=None, **material):
    """A square whose left half lets light through and whose right half does not; the opacity of both in a picture."""
    gltf = Gltf()
    clear = {**GLASS, "transmissionTexture": {"index": gltf.texture(png([[[255, 0, 0]] * 4 + [[0, 255, 255]] * 4]))}}
    clear["transmissionTexture"].update(transmission_use or {})
    if texture is not None:
        material["pbrMetallicRoughness"] = {"baseColorTexture": {"index": gltf.texture(png(texture))}}
    material = gltf.material(extensions={"KHR_materials_transmission": clear}, doubleSided=True, **material)
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    faces = np.array([0, 1, 2, 0, 2, 3], np.uint16)
    attributes = {"POSITION": square, "TEXCOORD_0": square[:, :2], "TEXCOORD_1": square[:, :2] * 0 + [0.25, 0.5]}
    attributes["TEXCOORD_1"] = attributes["TEXCOORD_1"].astype(np.float32)
    gltf.node(mesh=gltf.mesh(attributes, indices=faces, material=material))
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    alpha = Renderer(size=32).render(mesh, [Camera(0, 0)]).alpha[0, 16]
    return mesh, (int(alpha[9]), int(alpha[-9]))


def test_a_transmission_texture_says_where_the_glass_is(tmp_path):
    factor = {"pbrMetallicRoughness": {"baseColorFactor": [1.0, 0.0, 0.0, 1.0]}}
    no_alpha = {"texture": [[[255, 0, 0, 0]] * 4]}  # in a material that is OPAQUE
    for material in (factor, {"texture": [[[255, 0, 0, 255]] * 4]}, no_alpha):
        mesh, alpha = half_clear(tmp_path, **material)
        assert 60 < alpha[0] < 110 and alpha[1] == 255
        xyz, rgb = sample_points(mesh, 2000, 0)
        left, right = (rgb[np.abs(xyz[:, 0] - middle) < 0.1].mean(axis=0) for middle in (0.25, 0.75))
        assert left[1] > 150 and right[0] > 250 and right[1:].max() < 5  # pale, and the color that it has
        assert mesh.warnings == []


def test_glass_with_a_stencil_keeps_its_holes(tmp_path):
    stencil = [[[255, 255, 255, 255]] * 4 + [[255, 255, 255, 60]] * 4]
    _, alpha = half_clear(tmp_path, stencil, alphaMode="MASK")
    assert alpha[0] > 60 and alpha[1] == 0


def test_a_transmission_texture_that_lies_otherwise_counts_by_its_mean(tmp_path):
    mesh, alpha = half_clear(tmp_path, [[[255, 0, 0, 255]] * 2], transmission_use={"texCoord": 1})
    assert alpha[0] == alpha[1] and 140 < alpha[0] < 180  # half of what is clear: 1 - 0.35
    assert any("its mean is used" in warning for warning in mesh.warnings)


def test_the_alpha_of_an_opaque_material_does_not_count_in_its_glass(tmp_path):
    glass = {"extensions": {"KHR_materials_transmission": GLASS}}
    colored_triangle(tmp_path, **glass, pbrMetallicRoughness={"baseColorFactor": [1, 1, 1, 0.1]})
    assert read_mesh(tmp_path / "a.glb").materials[0].base_color[3] == pytest.approx(0.3)
    with pytest.raises(MeshError, match="transmission"):
        colored_triangle(tmp_path, extensions={"KHR_materials_transmission": {"transmissionFactor": float("nan")}})


def test_emission_has_a_strength_and_a_texture_of_its_own(tmp_path):
    strong = {"KHR_materials_emissive_strength": {"emissiveStrength": 4.0}}
    black = {"baseColorFactor": [0, 0, 0, 1]}
    lamp = {"pbrMetallicRoughness": black, "emissiveFactor": [0.1, 0.05, 0.0], "extensions": strong}
    assert colored_triangle(tmp_path, **lamp) == [170, 124, 0]  # 0.4 and 0.2, linear
    strong["KHR_materials_emissive_strength"]["emissiveStrength"] = 1000.0
    assert colored_triangle(tmp_path, **lamp) == [255, 188, 0]  # as bright as a byte holds, the same hue
    strong["KHR_materials_emissive_strength"]["emissiveStrength"] = float("inf")
    with pytest.raises(MeshError, match="emissive strength"):
        colored_triangle(tmp_path, **lamp)

    gltf = Gltf()
    screen = gltf.texture(png([[[10, 200, 30]]]))
    material = gltf.material(
        pbrMetallicRoughness=black, emissiveFactor=[1, 1, 1], emissiveTexture={"index": screen, "texCoord": 1}
    )
    attributes = {"POSITION": TRIANGLE, "TEXCOORD_1": TRIANGLE_UV}
    gltf.node(mesh=gltf.mesh(attributes, material=material))
    assert only_color(gltf.write(tmp_path / "c.glb")) == [10, 200, 30]
    # with coordinates other than the color's: its mean, and a warning
    dark = gltf.texture(png([[[0, 0, 0]]]))
    pbr = {"baseColorTexture": {"index": dark}}
    gltf.header["materials"][0]["pbrMetallicRoughness"] = pbr
    gltf.header["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"] = gltf.accessor(TRIANGLE_UV)
    assert only_color(gltf.write(tmp_path / "d.glb")) == [10, 200, 30]
    assert any("texture coordinates of its own" in warning for warning in read_mesh(tmp_path / "d.glb").warnings)


def test_transforms_multiply_down_the_tree(tmp_path):
    gltf = Gltf()
    child = gltf.node(root=False, mesh=gltf.mesh({"POSITION": TRIANGLE}), translation=[1, 0, 0], scale=[2, 2, 2])
    gltf.node(children=[child], rotation=QUARTER_TURN_ABOUT_Z, translation=[0, 0, 5])
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertices, [[0, 1, 5], [0, 3, 5], [-2, 1, 5]], atol=1e-12)


def test_a_matrix_is_stored_column_by_column(tmp_path):
    gltf = Gltf()
    matrix = np.array([[0, 0, 1, 7], [1, 0, 0, 8], [0, 1, 0, 9], [0, 0, 0, 1]], float)
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}), matrix=matrix.T.reshape(-1).tolist())
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertices, TRIANGLE @ matrix[:3, :3].T + [7, 8, 9])


def test_a_mirror_keeps_faces_and_normals_outside(tmp_path):
    normals = np.tile(np.array([0, 0, 1], np.float32), (3, 1))
    for scale in ([-1, 1, 1], [1, 1, -1], [-2, -2, -2]):
        gltf = Gltf()
        gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE, "NORMAL": normals}), scale=scale)
        mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
        outside = [0, 0, np.sign(scale[2])]
        np.testing.assert_allclose(mesh.face_normals()[0] / np.linalg.norm(mesh.face_normals()[0]), outside)
        np.testing.assert_allclose(mesh.normals, np.tile(outside, (3, 1)), atol=1e-7)


def test_normals_turn_with_uneven_scales(tmp_path):
    slope = np.array([[0, 0, 0], [1, -1, 0], [0, 0, 1]], np.float32)  # in the plane x + y = 0
    normal = np.tile(np.array([1, 1, 0], np.float32), (3, 1))
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh({"POSITION": slope, "NORMAL": normal}), scale=[2, 1, 1])
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    flat = mesh.face_normals()[0]
    np.testing.assert_allclose(np.abs(mesh.normals @ flat / np.linalg.norm(flat)), 1.0, atol=1e-6)


def test_instances_share_a_mesh_and_only_the_scene_is_drawn(tmp_path):
    gltf = Gltf()
    shared = gltf.mesh({"POSITION": TRIANGLE})
    gltf.node(mesh=shared)
    gltf.node(mesh=shared, translation=[5, 0, 0])
    gltf.node(root=False, mesh=shared, translation=[50, 0, 0])
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    assert mesh.num_faces == 2 and mesh.bounds[1, 0] == 6


def test_strips_fans_and_missing_indices(tmp_path):
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    around = square[[0, 1, 3, 2]]
    for mode, points in ((5, square), (6, around)):
        gltf = Gltf()
        gltf.node(mesh=gltf.mesh({"POSITION": points}, mode=mode))
        mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
        np.testing.assert_allclose(mesh.face_normals(), [[0, 0, 1], [0, 0, 1]])
        assert mesh.face_areas().sum() == pytest.approx(1.0)


def test_points_and_lines_alone_are_no_mesh(tmp_path):
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}, mode=1))
    assert error_of(gltf, tmp_path).reason == "empty"


def test_sparse_quantized_and_strided_accessors(tmp_path):
    # Positions as normalized 16-bit integers, item 2 replaced by a sparse value.
    stored = np.array([[0, 0, 0], [32767, 0, 0], [0, 0, 32767]], np.int16)
    gltf = Gltf()
    accessor = gltf.accessor(stored, normalized=True)
    rows, values = (
        gltf.view(np.array([2], np.uint8).tobytes()),
        gltf.view(np.array([[0, 32767, 0]], np.int16).tobytes()),
    )
    gltf.header["accessors"][accessor]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": rows, "componentType": 5121},
        "values": {"bufferView": values},
    }
    gltf.header["extensionsRequired"] = ["KHR_mesh_quantization"]
    gltf.node(mesh=gltf.mesh({"POSITION": accessor}))
    np.testing.assert_allclose(read_mesh(gltf.write(tmp_path / "a.glb")).vertices, TRIANGLE)

    gltf = Gltf()
    interleaved = np.concatenate([TRIANGLE, np.full((3, 1), 9, np.float32)], axis=1)
    view = gltf.view(interleaved.tobytes())
    gltf.header["bufferViews"][view]["byteStride"] = 16
    gltf.header["accessors"].append({"bufferView": view, "componentType": 5126, "count": 3, "type": "VEC3"})
    gltf.node(mesh=gltf.mesh({"POSITION": 0}))
    np.testing.assert_allclose(read_mesh(gltf.write(tmp_path / "b.glb")).vertices, TRIANGLE)


def skinned(weights: np.ndarray) -> Gltf:
    """A triangle bound to a joint 10 to the right of where it was bound; the node's own place must not count."""
    gltf = Gltf()
    inverse = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    inverse[:, 0, 3] = [-1.0, 0.0]
    matrices = gltf.accessor(inverse.transpose(0, 2, 1).reshape(2, 16))
    attributes = {"POSITION": TRIANGLE, "JOINTS_0": np.zeros((3, 4), np.uint8), "WEIGHTS_0": weights}
    joints = [gltf.node(translation=[11, 0, 0]), gltf.node(translation=[0, 100, 0])]
    gltf.header["skins"] = [{"joints": joints, "inverseBindMatrices": matrices}]
    gltf.node(mesh=gltf.mesh(attributes), skin=0, translation=[-1000, 0, 0])
    return gltf


def test_a_skin_is_baked_in_its_rest_pose(tmp_path):
    weights = np.tile(np.array([1, 0, 0, 0], np.float32), (3, 1))
    mesh = read_mesh(skinned(weights).write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertices, TRIANGLE + [10, 0, 0], atol=1e-6)


def test_weights_that_are_not_numbers_follow_the_first_joint(tmp_path):
    mesh = read_mesh(skinned(np.full((3, 4), np.nan, np.float32)).write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertices, TRIANGLE + [10, 0, 0], atol=1e-6)


def test_default_morph_weights_are_applied(tmp_path):
    gltf = Gltf()
    moved = gltf.accessor(np.tile(np.array([0, 0, 4], np.float32), (3, 1)))
    mesh = gltf.mesh({"POSITION": TRIANGLE}, targets=[{"POSITION": moved}])
    gltf.header["meshes"][mesh]["weights"] = [0.5]
    gltf.node(mesh=mesh)
    np.testing.assert_allclose(read_mesh(gltf.write(tmp_path / "a.glb")).vertices, TRIANGLE + [0, 0, 2])


def test_draco(tmp_path, monkeypatch):
    draco = pytest.importorskip("DracoPy")
    blob = draco.encode(TRIANGLE, faces=np.array([[0, 1, 2]], np.uint32), quantization_bits=14)
    gltf = Gltf()
    view = gltf.view(blob)
    gltf.header["accessors"] += [
        {"componentType": 5126, "count": 3, "type": "VEC3"}, {"componentType": 5125, "count": 3, "type": "SCALAR"},
    ]  # fmt: skip
    extension = {"bufferView": view, "attributes": {"POSITION": 0}}
    mesh = gltf.mesh({"POSITION": 0}, extensions={"KHR_draco_mesh_compression": extension})
    gltf.header["meshes"][mesh]["primitives"][0]["indices"] = 1
    gltf.header["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    gltf.node(mesh=mesh)
    path = gltf.write(tmp_path / "a.glb")
    decoded = read_mesh(path)
    assert decoded.num_faces == 1
    np.testing.assert_allclose(np.sort(decoded.vertices.sum(axis=1)), [0, 1, 1], atol=1e-3)

    # The blob's own count is checked before it is decoded, whatever the accessors say.
    with pytest.raises(MeshError) as error:
        read_mesh(path, max_faces=0)
    assert error.value.reason == "too_many_faces"
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)
    assert error_of(gltf, tmp_path).reason == "draco"
    assert 'pip install "modeling-ulip2[mesh]"' in str(error_of(gltf, tmp_path))


def test_draco_counts_are_read_from_the_header():
    draco = pytest.importorskip("DracoPy")
    from modeling_ulip2.geometry.gltf_data import _draco_faces

    from .builders import CUBE_FACES, CUBE_VERTICES, sphere

    big = sphere(20)
    for vertices, faces in ((CUBE_VERTICES, CUBE_FACES), (big.vertices, big.faces)):
        for level in (1, 10):
            blob = draco.encode(vertices.astype(np.float32), faces=faces.astype(np.uint32), compression_level=level)
            assert _draco_faces(blob) >= len(draco.decode(blob).faces)
            assert _draco_faces(blob) <= len(faces)


def test_meshopt_and_unknown_required_extensions_are_refused(tmp_path):
    for name in ("EXT_meshopt_compression", "KHR_meshopt_compression", "ACME_shape"):
        gltf = triangle_gltf()
        gltf.header["extensionsRequired"] = [name]
        error = error_of(gltf, tmp_path)
        assert error.reason == "unsupported" and name in str(error)

    gltf = triangle_gltf()
    gltf.header["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 0}}
    gltf.header["bufferViews"][0]["buffer"] = 1
    gltf.header["buffers"] = [{"byteLength": len(gltf.binary)}, {"byteLength": len(gltf.binary)}]
    assert error_of(gltf, tmp_path).reason == "unsupported"


def test_basis_textures_are_refused_and_webp_is_taken(tmp_path):
    gltf = Gltf()
    two_texel_quad(gltf, UPRIGHT, {"image": RED_OVER_BLUE})
    texture = gltf.header["textures"][0]
    texture["extensions"] = {"KHR_texture_basisu": {"source": texture.pop("source")}}
    assert error_of(gltf, tmp_path).reason == "texture_corrupt"
    texture["extensions"] = {"EXT_texture_webp": {"source": 0}}
    read_mesh(gltf.write(tmp_path / "a.glb"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h["accessors"][0].update(count=10**9), "too_many_faces"),
        (lambda h: h["accessors"][0].update(count=4), "truncated"),
        (lambda h: h["accessors"][0].update(count=-3), "corrupt"),
        (lambda h: h["accessors"][0].update(byteOffset=-4), "truncated"),
        (lambda h: h["accessors"][0].update(componentType=99), "corrupt"),
        (lambda h: h["bufferViews"][0].update(byteLength=10**10), "truncated"),
        (lambda h: h["buffers"][0].update(byteLength=10**10), "truncated"),
        (lambda h: h["nodes"][0].update(children=[0]), "corrupt"),
        (lambda h: h["nodes"][0].update(mesh=7), "corrupt"),
        (lambda h: h["nodes"][0].update(translation=[float("nan"), 0, 0]), "non_finite"),
        (lambda h: h["asset"].update(version="1.0"), "unsupported"),
        (lambda h: h.update(meshes="none"), "corrupt"),
        (lambda h: h["meshes"][0]["primitives"][0].update(material=3), "corrupt"),
    ],
)
def test_broken_structure(tmp_path, change, reason):
    gltf = triangle_gltf()
    gltf.header["buffers"] = [{"byteLength": len(gltf.binary)}]
    change(gltf.header)
    assert error_of(gltf, tmp_path).reason == reason


def test_indices_beyond_the_vertices(tmp_path):
    gltf = triangle_gltf(indices=np.array([0, 1, 9], np.uint32))
    assert error_of(gltf, tmp_path).reason == "corrupt"


def test_faces_are_counted_over_all_instances(tmp_path):
    gltf = Gltf()
    shared = gltf.mesh({"POSITION": TRIANGLE})
    for _ in range(20):
        gltf.node(mesh=shared)
    path = gltf.write(tmp_path / "a.glb")
    assert read_mesh(path, max_faces=20).num_faces == 20
    with pytest.raises(MeshError, match="20 triangles") as error:
        read_mesh(path, max_faces=19)
    assert error.value.reason == "too_many_faces"


def test_containers_that_are_cut_off_or_no_gltf(tmp_path):
    whole = triangle_gltf().write(tmp_path / "whole.glb").read_bytes()
    for cut in (10, 18, 40, len(whole) - 8):
        path = tmp_path / "cut.glb"
        path.write_bytes(whole[:cut])
        with pytest.raises(MeshError) as error:
            read_mesh(path)
        assert error.value.reason == "truncated", cut
    cases = {
        b"not a mesh at all": "corrupt",
        b"glTF" + struct.pack("<II", 1, 100) + b"\0" * 88: "unsupported",
        b"[" * 200_000: "corrupt",
        json.dumps([1]).encode(): "corrupt",
        b"{}": "empty",
    }
    for content, reason in cases.items():
        path = tmp_path / "bad.gltf"
        path.write_bytes(content)
        with pytest.raises(MeshError) as error:
            read_mesh(path)
        assert error.value.reason == reason, content[:20]
