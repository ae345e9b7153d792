"""Other people's layouts: Hugging Face Hub directories and OCI artifacts."""
