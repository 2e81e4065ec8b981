"""The page of a cohort: its codes and values, their distributions, groups, completeness and patients."""
