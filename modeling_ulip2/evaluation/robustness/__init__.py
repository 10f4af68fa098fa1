"""How much accuracy is left when clouds get worse."""
