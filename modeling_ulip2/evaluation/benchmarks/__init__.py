"""The papers' benchmarks: by which protocol each is measured, and its figures beside the published ones."""
