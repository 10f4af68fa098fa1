"""glTF: the colors of surfaces, from factors, textures, vertices and the extensions of materials."""

import numpy as np
import pytest

from modeling_ulip2.geometry import Camera, MeshError, Renderer, read_mesh, sample_points
from modeling_ulip2.geometry.colors import linear_to_srgb, to_uint8

from .builders import TRIANGLE, TRIANGLE_UV, Gltf, error_of, only_color, png, triangle_gltf

QUARTER_TURN_ABOUT_Z = [0.0, 0.0, np.sin(np.pi / 4), np.cos(np.pi / 4)]


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


def test_basis_textures_are_refused_and_webp_is_taken(tmp_path):
    gltf = Gltf()
    two_texel_quad(gltf, UPRIGHT, {"image": RED_OVER_BLUE})
    texture = gltf.header["textures"][0]
    texture["extensions"] = {"KHR_texture_basisu": {"source": texture.pop("source")}}
    assert error_of(gltf, tmp_path).reason == "texture_corrupt"
    texture["extensions"] = {"EXT_texture_webp": {"source": 0}}
    read_mesh(gltf.write(tmp_path / "a.glb"))
