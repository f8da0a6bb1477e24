"""Who this receiver is, who may speak to it, and how it is set up."""
