"""The listing of a folder of meshes, which lives in the package, since `ulip2 index` reads such folders, too."""

from modeling_ulip2.triplets.objects import (
    OBJECT_COLUMNS,
    OBJECTS_FILE,
    SOURCE_FILE,
    FolderError,
    add_labels,
    list_objects,
    name_from_path,
)

__all__ = [
    "OBJECTS_FILE",
    "OBJECT_COLUMNS",
    "SOURCE_FILE",
    "FolderError",
    "add_labels",
    "list_objects",
    "name_from_path",
]
