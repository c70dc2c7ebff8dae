"""``readout plan``: what an experiment could see, how to lay it out, and its assignment as a file."""
