"""Silent training errors of public projects, reproduced as short scripts: what the watcher of eegwatch says of each."""
