"""What a Python program or a notebook calls: the commands' own bodies, with objects where a command line has names."""
