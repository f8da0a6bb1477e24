"""What a stream has of its dataset: directories, attributes and contents of files, or a volume's blocks. No pool."""
