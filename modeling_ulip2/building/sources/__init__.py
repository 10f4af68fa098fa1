"""Where meshes come from: fetching and unpacking, used by the script of each source."""
