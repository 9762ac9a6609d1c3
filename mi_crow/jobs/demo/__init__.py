"""The demo: the main job end to end on the sample model and corpus."""

# What all of it takes: measured on two cores, and the files that it makes.
DURATION, DISK = "two to four minutes on two cores", "200 MB"
