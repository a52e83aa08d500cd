"""What runs in the programs that execute notebooks: they tell what a kernel cannot know."""
