"""Code inside the programs that execute notebooks: it passes on what a kernel cannot know."""
