"""Where scenes come from: homes of Sweet Home 3D, and published scans in the layouts in which they circulate."""
