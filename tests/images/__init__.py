"""What finished images are like from inside, once they are booted."""
