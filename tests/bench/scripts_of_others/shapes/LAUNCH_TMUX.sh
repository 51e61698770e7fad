#!/bin/bash
# Starts the training in a tmux session of its own, and ends at once.
SESSION="eegpt_fixed_$$"
tmux new-session -d -s "$SESSION" "python train_paper_aligned.py $*"
echo "Training started in tmux session $SESSION. Attach with: tmux attach -t $SESSION"
