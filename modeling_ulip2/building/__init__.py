"""From a collection of 3D files to triplets: sources, stages, captioners, engines, inspection."""
