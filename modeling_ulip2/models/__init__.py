"""What travels with a checkpoint: configurations, models, processors and all that they need.

Each file imports only its neighbors here, torch, transformers and numpy; anything else inside try. The folder is flat,
since transformers copies its files beside the weights (`register_for_auto_class`).
"""
