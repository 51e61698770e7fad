"""Other people's training scripts under the daemon: each is started, stopped, resumed, killed, revived, restarted."""
