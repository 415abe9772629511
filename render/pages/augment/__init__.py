"""What happens to a page on its way to a picture: marks on the paper, its place, the optics, the light, the sensor."""
