#!/bin/bash
# Starts the training and keeps a copy of its output, as launchers do.
mkdir -p logs
export PYTHONUNBUFFERED=1
echo "Starting training at $(date)"
python train_paper_aligned.py "$@" 2>&1 | tee "logs/fixed_scheduler_$(date +%Y%m%d_%H%M%S).log"
