"""The rooms of the Space, one file each, and what they share: `engine` computes, `uploads` reads, `viewer` shows."""
