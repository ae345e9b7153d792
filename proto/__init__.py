"""Wire contract of Switchyard: generated from the .proto files beside it, and nothing else."""
