"""What is looked at in triplets that are made: captions, renders, clouds, likeness among objects."""
