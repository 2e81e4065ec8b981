"""The main job: a hospital, a model of mortality, and what moved its predictions."""
