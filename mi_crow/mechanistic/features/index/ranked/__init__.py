"""An index that several processes build together: what each does, and how it becomes one."""
