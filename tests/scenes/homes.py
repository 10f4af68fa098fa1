"""Homes of Sweet Home 3D made by the tests."""

from __future__ import annotations

import zipfile
from pathlib import Path

# A box of 2 x 1 x 4 in the model's own unit, off its origin, with a knob at the end of +x, +y and +z.
BOX = """# made
g body
v 10 0 0
v 12 0 0
v 12 1 0
v 10 1 0
v 10 0 4
v 12 0 4
v 12 1 4
v 10 1 4
usemtl flred
f 1 4 3 2
f 5 6 7 8
f 1 2 6 5
f 4 8 7 3
f 1 5 8 4
f 2 3 7 6
"""
WINDOW = (
    BOX
    + """g sweethome3d_window_pane
v 10.5 0.2 2
v 11.5 0.2 2
v 11.5 0.8 2
v 10.5 0.8 2
usemtl flblue_pure
f 9 10 11 12
"""
)
LAMP = (
    BOX
    + """g sweethome3d_light_1
v 8 -1 0
v 8.1 -1 0
v 8 -1 0.1
usemtl white
f 9 10 11
"""
)
ROOM = """
  <wall id='a' wallAtStart='d' wallAtEnd='b' xStart='0' yStart='0' xEnd='400' yEnd='0' height='250' thickness='10'
        leftSideColor='FF0000FF' rightSideColor='FF00FF00' topColor='FF101010'>
    <baseboard attribute='rightSideBaseboard' thickness='1' height='7' color='FF700000'/>
  </wall>
  <wall id='b' wallAtStart='a' wallAtEnd='c' xStart='400' yStart='0' xEnd='400' yEnd='300' thickness='10'/>
  <wall id='c' wallAtStart='b' wallAtEnd='d' xStart='400' yStart='300' xEnd='0' yEnd='300' thickness='10'/>
  <wall id='d' wallAtStart='c' wallAtEnd='a' xStart='0' yStart='300' xEnd='0' yEnd='0' thickness='10'/>
  <room name='Kitchen' floorColor='FFFF0000' ceilingColor='FFFFFFFF'>
    <point x='0' y='0'/><point x='400' y='0'/><point x='400' y='300'/><point x='0' y='300'/>
  </room>
"""
CHAIR = (
    "<pieceOfFurniture name='Chair' catalogId='eTeks#chair' model='0/chair.obj' x='100' y='200' "
    "width='40' depth='80' height='90' {}/>"
)
DOOR = (
    "<doorOrWindow name='Door' model='0/chair.obj' x='200' y='0' width='90' depth='12' height='205' "
    "cutOutShape='M0,0 v1 h1 v-1 z' wallCutOutOnBothSides='true' {}/>"
)


def home_xml(body: str = ROOM, **attributes: str) -> bytes:
    told = "".join(f" {name}='{value}'" for name, value in {"version": "7000", **attributes}.items())
    return f"<?xml version='1.0'?>\n<home{told} wallHeight='250'>{body}</home>".encode()


def write_home(path: Path, xml: bytes | None = None, **members: str | bytes) -> Path:
    """A `.sh3d` file; `members` by name, with __ for /."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Home.xml", home_xml() if xml is None else xml)
        for name, content in {"0__chair.obj": BOX, **members}.items():
            archive.writestr(name.replace("__", "/"), content)
    return path
