"""Captions measured: words in common, closeness in meaning, and whether a captioner beats its controls."""
