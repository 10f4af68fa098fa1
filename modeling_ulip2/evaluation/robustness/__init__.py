"""What is left of an accuracy when clouds get worse."""
