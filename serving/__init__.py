"""The mesh: everything that serves models, runs jobs and answers clients; imports no sibling package."""
