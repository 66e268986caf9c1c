"""Co-fine-tuning: expert demonstrations and questions in, a checkpoint folder out (torch)."""
