"""The contents of a store: streams, partials and their journals, and how they are made durable."""
