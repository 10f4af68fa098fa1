"""Command line of the conversion: a published `.pt` file in, a folder for `AutoModel.from_pretrained` out."""

from __future__ import annotations

import argparse

from ..feature_extraction_ulip2 import Ulip2FeatureExtractor
from .checkpoint import read_checkpoint
from .convert import convert_checkpoint


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m modeling_ulip2.conversion", description=__doc__)
    parser.add_argument("checkpoint", help="published ULIP or ULIP-2 Point-BERT checkpoint (.pt)")
    parser.add_argument("output_dir", help="folder for the converted model and its feature extractor")
    parser.add_argument("--tower", help="hub name or folder of the image-text tower that the model shall refer to")
    options = parser.parse_args(arguments)
    checkpoint = read_checkpoint(options.checkpoint)
    model = convert_checkpoint(checkpoint, clip_name_or_path=options.tower)
    model.save_pretrained(options.output_dir)
    features = Ulip2FeatureExtractor(in_channels=model.config.point_config.in_channels)
    features.num_points = checkpoint.args.get("npoints", features.num_points)
    features.save_pretrained(options.output_dir)
    print(f"{model.num_parameters():,} parameters in {len(model.state_dict())} tensors -> {options.output_dir}")


if __name__ == "__main__":
    main()
