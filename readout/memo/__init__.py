"""What a finished readout is turned into: Markdown, JSON, terminal output, annotations, figures, and files on disk."""
