"""One job on several processes: torchrun, slurm, and how the ranks talk."""
