"""From a clean page to an image file: marks on the paper, its place in the picture, optics, light, sensor."""
