"""Rendering the templates of images, which are other people's programs, in a process that can do nothing else."""
