"""The main job: a hospital, a model of mortality, and the contributions to its predictions."""
