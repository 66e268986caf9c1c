"""Where training data comes from: robot demonstrations and vision-language data as records."""
