"""What is wrong with a form of a job, field by field."""
