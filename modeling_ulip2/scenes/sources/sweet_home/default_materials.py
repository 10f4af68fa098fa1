"""Colors that OBJ files without a material file mean by their materials' names.

These are the names that Java 3D's loader knows, whose numbers Sweet Home 3D keeps: its own models rely on them.
"""

from __future__ import annotations

# Diffuse red, green and blue as the program shows them (sRGB, 0 to 1), and the opacity where it is not 1.
DEFAULT_MATERIALS = {
    "amber": "0.5755 0.2678 0", "amber_trans": "0.5755 0.2678 0 0.16", "charcoal": "0.0041 0.0041 0.0041",
    "lavendar": "0.2187 0.0906 0.3469", "navy_blue": "0 0 0.0531", "pale_green": "0.0712 0.3796 0.049",
    "pale_pink": "0.6531 0.2053 0.416", "pale_yellow": "0.6898 0.6211 0.1999", "peach": "0.6367 0.1829 0.0156",
    "periwinkle": "0 0.0396 0.8286", "redwood": "0.2571 0.033 0", "smoked_glass": "0.0041 0.0041 0.0041 0.02",
    "aqua_filter": "0.3743 0.6694 0.5791 0.02", "yellow_green": "0.1875 0.4082 0.0017",
    "bluetint": "0.0468 0.7115 0.9551 0.43", "plasma": "1 0.0776 0.4478 0.25", "emerald": "0.047 1 0 0.25",
    "ruby": "1 0 0 0.25", "sapphire": "0.0235 0 1 0.25", "white": "1 1 1", "red": "0.7714 0 0",
    "blue_pure": "0 0 1", "lime": "0 1 0", "green": "0 0.25 0", "yellow": "1 0.6667 0", "purple": "0.5 0 1",
    "orange": "1 0.1667 0", "grey": "0.1837 0.1837 0.1837", "rubber": "0.01 0.01 0.01", "flaqua": "0 0.5 0.5",
    "flblack": "0.0041 0.0041 0.0041", "flblue_pure": "0 0 0.7102", "flgrey": "0.5 0.5 0.5", "fllime": "0 1 0",
    "florange": "1 0.1667 0", "flpurple": "0.3755 0 0.751", "flred": "1 0 0", "flyellow": "1 0.6667 0",
    "pink": "0.9878 0.1695 0.6702", "flbrown": "0.1102 0.012 0.0013", "brown": "0.0857 0.0147 0",
    "glass": "0.4873 0.4919 0.5306", "flesh": "0.5265 0.4127 0.3374", "aqua": "0 0.5 0.5",
    "black": "0.002 0.002 0.002", "silver": "0.6163 0.6163 0.6163", "dkblue_pure": "0 0 0.1347",
    "fldkblue_pure": "0 0 0.1347", "dkgreen": "0.0058 0.0245 0", "dkgrey": "0.049 0.049 0.049",
    "ltbrown": "0.2776 0.1143 0.0531", "fldkgreen": "0.0058 0.0245 0", "flltbrown": "0.2776 0.1143 0.0531",
    "tan": "0.6612 0.5221 0.2186", "fltan": "0.6612 0.4567 0.1295", "brzskin": "0.3796 0.2898 0.2122",
    "lips": "0.9265 0.2612 0.2898", "redorange": "0.7551 0.0185 0", "blutan": "0.0776 0.2571 0.2041",
    "bluteal": "0.0776 0.2571 0.2041", "pinktan": "0.6857 0.2571 0.2163", "brnhair": "0.0898 0.0302 0.011",
    "blondhair": "0.5714 0.3283 0.0443", "flblonde": "0.5714 0.3283 0.0443", "yelloworng": "0.8857 0.249 0",
    "bone": "0.9 0.7626 0.4261", "teeth": "0.9837 0.7959 0.4694", "brass": "0.4776 0.1959 0", "dkred": "0.2286 0 0",
    "taupe": "0.2041 0.1227 0.1058", "dkteal": "0 0.0653 0.0449", "dkdkgrey": "0.0122 0.0122 0.0122",
    "dkblue": "0 0.0041 0.0571", "gold": "1 0.4898 0", "redbrick": "0.3306 0.0398 0.0081",
    "flmustard": "0.8898 0.3531 0.0073", "flpinegreen": "0.1061 0.2163 0.0857", "fldkred": "0.2286 0.0082 0.0082",
    "fldkgreen2": "0.0245 0.0694 0.0041", "flmintgreen": "0.1306 0.2898 0.1673", "olivegreen": "0.025 0.0367 0",
    "skin": "0.1102 0.0328 0.0139", "redbrown": "0.2816 0.006 0", "deepgreen": "0 0.0204 0.005",
    "flltolivegreen": "0.0393 0.0531 0.01", "jetflame": "0.951 0.4939 0.098", "brownskn": "0.0204 0.0082 0",
    "greenskn": "0 0.0735 0", "ltgrey": "0.3837 0.3837 0.3837", "bronze": "0.0653 0.0367 0.0122",
    "bone1": "0.9837 0.7959 0.4694", "flwhite1": "1 1 1", "flwhite": "0.9837 0.9309 0.8392",
    "shadow": "0.035 0.0248 0.0194 0.25", "fldkolivegreen": "0.0151 0.0204 0.0038",
    "fldkdkgrey": "0.0122 0.0122 0.0122", "lcdgreen": "0.5878 1 0.5061", "brownlips": "0.1429 0.0653 0.0408",
    "muscle": "0.4204 0.0721 0.0856", "flltgrey": "0.8245 0.8245 0.8245", "offwhite.warm": "0.8367 0.6898 0.449",
    "offwhite.cool": "0.8367 0.6812 0.5703", "yellowbrt": "1 0.7837 0", "chappie": "0.5837 0.1796 0.0367",
    "archwhite": "0.9959 0.9959 0.9959", "archwhite2": "0.8408 0.8408 0.8408", "lighttan": "0.702 0.421 0.2206",
    "lighttan2": "0.3143 0.187 0.0962", "lighttan3": "0.1796 0.0829 0.0139", "lightyellow": "1 0.9542 0.3388",
    "lighttannew": "0.7878 0.607 0.3216", "default": "0.7102 0.702 0.6531", "ship2": "1 1 1",
    "dkpurple": "0.0245 0 0.049", "dkorange": "0.7143 0.035 0", "mintgrn": "0.0245 0.4776 0.0816",
    "fgreen": "0 0.0449 0.0004", "glassblutint": "0.5551 0.8 0.773 0.67", "bflesh": "0.0245 0.0081 0.0021",
    "meh": "0.5551 0.8 0.773 0.25", "violet": "0.0287 0.0269 0.1347", "iris": "0 0.0572 0.3184",
    "blugrn": "0.0811 0.6408 0.2775", "glasstransparent": "0.4694 0.4694 0.4694 0.25",
    "fleshtransparent": "0.6898 0.2942 0.1295 0.25", "fldkgrey": "0.0939 0.0939 0.0939",
    "sky_blue": "0.1241 0.5931 0.8", "fldkpurple": "0.1612 0 0.3347", "dkbrown": "0.0087 0.0038 0.0016",
    "bone2": "0.9837 0.862 0.6504", "bluegrey": "0.1881 0.2786 0.2898", "metal": "0.9 0.7626 0.4261",
    "sand_stone": "0.1256 0.1138 0.0965", "hair": "0.0008 0.0007 0.0006",
}  # fmt: skip


def default_library() -> str:
    """The colors as the text of a material file (MTL)."""
    lines = []
    for name, numbers in DEFAULT_MATERIALS.items():
        *color, opacity = numbers.split() if numbers.count(" ") == 3 else (*numbers.split(), "1")
        lines += [f"newmtl {name}", f"Kd {' '.join(color)}", f"d {opacity}"]
    return "\n".join(lines) + "\n"
