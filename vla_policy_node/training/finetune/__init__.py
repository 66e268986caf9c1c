"""Tuning of any Hugging Face image-text-to-text model into a policy folder."""
