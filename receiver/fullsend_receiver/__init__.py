"""Everything that runs on the storage host: `fullsendd` takes streams in, proves them whole and gives them back."""
