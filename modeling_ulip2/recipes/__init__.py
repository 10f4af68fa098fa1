"""Whole runs, from options to a folder of results: what the commands and the scripts of `examples/` start.

A recipe joins training with evaluation, which do not know each other. Its options stand in a file of their own, which
imports neither torch nor transformers, so that `ulip2 COMMAND --help` answers at once.
"""
