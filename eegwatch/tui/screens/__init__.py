"""The screens: the run, the dialogs that ask before a command is sent, the help."""
