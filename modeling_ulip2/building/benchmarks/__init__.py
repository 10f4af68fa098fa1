"""What the benchmarks' scripts share: reading lists and HDF5 files, writing a folder that `load_dataset` reads."""
