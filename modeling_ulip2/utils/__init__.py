"""What every part may need and none owns: files written whole, checksums, optional packages, how a script ends."""
