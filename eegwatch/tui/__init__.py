"""The screen: draws a History, sends commands, knows no file format."""
