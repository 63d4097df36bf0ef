"""A two-stage detection head (Faster R-CNN) in plain torch: proposals, regions, boxes."""
