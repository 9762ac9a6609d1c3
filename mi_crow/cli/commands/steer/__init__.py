"""The commands that measure steering: `steer evaluate`, `steer --auto`, `steer results`."""
