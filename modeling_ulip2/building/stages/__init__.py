"""The steps from a mesh file to a triplet; each is a class called with a batch and returning a batch."""
