"""SimMAT in napari: open the images of any sensor, and segment them by points, boxes, or without."""
