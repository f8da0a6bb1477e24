"""Everything that runs on the storage host: `fullsendd` receives streams, proves them whole and gives them back."""
