"""The ground floor: files, processes, signals, devices and downloads, which know nothing of images."""
