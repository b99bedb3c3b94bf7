"""Looking into programs: dumps and their page, profiles, explanations, bisection, counts, attribution."""
