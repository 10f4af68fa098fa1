"""Around the captioning model: its pipeline and command, published Q-Formers, a language model without a hub."""
