"""Helpers for all parts: files written whole, checksums, optional packages, the end of a script."""
