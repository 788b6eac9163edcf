"""Models x training sets x test regions: plan, run, analysis of what is lost out of distribution."""
