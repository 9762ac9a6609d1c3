"""What a job will need before it is started: time, disk and memory."""
