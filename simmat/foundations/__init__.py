"""The foundation models that come with SimMAT: Segment Anything."""
