"""What lies in the store's folder and how it gets there for good: streams, partials and their journals."""
